"""Load for the demo and the tests: asks a model the same question from a few threads until SIGTERM, then says how it went.

It runs in a pod (pod.yaml), beside files that say what to do: `url`, `request.json`, and `pause`, the seconds that a thread
rests between two questions. It ends by itself after `seconds`, or five minutes. Half of the threads keep their connection, as an
application does; for the others each question takes a new one. With `grpc`, an address, and `request.pb` others ask by gRPC: each
keeps a channel with the settings that gRPC has by itself, and asks nobody for the model's health.
"""

import collections
import http.client
import signal
import threading
import time
import urllib.parse
from pathlib import Path

THREADS = 4
GRPC_THREADS = 2
METHOD = "/inference.GRPCInferenceService/ModelInfer"
ID = "x-moorage-prediction-id"


class Failed(Exception):
    """A question without an answer."""


class Caller(threading.Thread):
    """One thread."""

    def __init__(self, body: bytes, pause: float, stop: threading.Event) -> None:
        super().__init__()
        self.body, self.pause, self.stop_event = body, pause, stop
        self.failed = 0
        self.answered: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        while not self.stop_event.is_set():
            try:
                self.answered[self.ask().partition(".")[0] or "unknown"] += 1
            except Failed as error:
                self.failed += 1
                # By the clock that other processes have, too: who breaks something wants to know what came of it. In one piece.
                print(f"{time.time():.2f} failed: {error}\n", end="", flush=True)
                self.stop_event.wait(0.5)
            self.stop_event.wait(self.pause)

    def ask(self) -> str:
        """The prediction's id, which begins with the revision that answered."""
        raise NotImplementedError


class ByHttp(Caller):
    """On a connection that is kept, or on a new one each time."""

    def __init__(self, url: str, body: bytes, pause: float, stop: threading.Event, *, keeps: bool) -> None:
        super().__init__(body, pause, stop)
        self.parts, self.keeps = urllib.parse.urlsplit(url), keeps
        self.connection: http.client.HTTPConnection | None = None

    def ask(self) -> str:
        try:
            return self.answer()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Failed(f"{type(error).__name__}: {error}") from error

    def answer(self) -> str:
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=10)
        self.connection.request("POST", self.parts.path, self.body, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        body = answer.read()
        if not self.keeps:
            self.close()
        if answer.status != 200:
            raise http.client.HTTPException(f"HTTP {answer.status}: {body[:200]!r}")
        return answer.headers.get(ID) or ""

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None


class ByGrpc(Caller):
    """On one channel, whatever happens to it."""

    def __init__(self, address: str, body: bytes, pause: float, stop: threading.Event) -> None:
        super().__init__(body, pause, stop)
        import grpc  # noqa: PLC0415  # only where somebody asks by it

        self.error = grpc.RpcError
        # Else all channels of a process share one connection.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.call = self.channel.unary_unary(METHOD)

    def ask(self) -> str:
        try:
            _, call = self.call.with_call(self.body, timeout=10)
        except self.error as error:
            raise Failed(f"gRPC {error.code().name}: {error.details()}") from error
        return dict(call.trailing_metadata()).get(ID) or ""


def callers_of(folder: Path, stop: threading.Event) -> list[Caller]:
    url, body = (folder / "url").read_text(), (folder / "request.json").read_bytes()
    pause = float((folder / "pause").read_text())
    callers: list[Caller] = [ByHttp(url, body, pause, stop, keeps=number % 2 == 0) for number in range(THREADS)]
    if (folder / "grpc").exists():
        address, message = (folder / "grpc").read_text(), (folder / "request.pb").read_bytes()
        callers += [ByGrpc(address, message, pause, stop) for _ in range(GRPC_THREADS)]
    return callers


def main(folder: Path) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    callers = callers_of(folder, stop)
    begin = time.monotonic()
    for caller in callers:
        caller.start()
    limit = folder / "seconds"
    stop.wait(float(limit.read_text()) if limit.exists() else 300)
    stop.set()
    for caller in callers:
        caller.join()
    answered = sum((caller.answered for caller in callers), collections.Counter())
    failed = sum(caller.failed for caller in callers)
    by_grpc = sum(caller.answered.total() for caller in callers if isinstance(caller, ByGrpc))
    if by_grpc:
        print(f"{by_grpc} by gRPC")
    for revision, count in sorted(answered.items()):
        print(f"{count} by {revision}")
    print(f"{answered.total()} answered, {failed} failed in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(__file__).parent)
