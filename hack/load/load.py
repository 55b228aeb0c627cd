"""Load for the demo and the tests: asks a model the same question from a few threads until SIGTERM, then says how it went.

It runs in a pod (pod.yaml), beside files that say what to do: `url`, `request.json`, and `pause`, the seconds that a thread
rests between two questions. Half of the threads keep their connection, as an application does; for the others each question
takes a new one.
"""

import collections
import http.client
import signal
import threading
import time
import urllib.parse
from pathlib import Path

THREADS = 4
LIMIT_SECONDS = 300


class Caller(threading.Thread):
    """One thread."""

    def __init__(self, url: str, body: bytes, pause: float, stop: threading.Event, *, keeps: bool) -> None:
        super().__init__()
        self.parts, self.body, self.pause, self.stop_event, self.keeps = (
            urllib.parse.urlsplit(url),
            body,
            pause,
            stop,
            keeps,
        )
        self.failed = 0
        self.answered: collections.Counter[str] = collections.Counter()
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self.stop_event.is_set():
            try:
                self.answered[self.ask()] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed += 1
                print(f"{time.monotonic():.1f} failed: {type(error).__name__}: {error}", flush=True)
                self.close()
                self.stop_event.wait(0.5)
            self.stop_event.wait(self.pause)

    def ask(self) -> str:
        """The revision that answered."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=10)
        self.connection.request("POST", self.parts.path, self.body, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        body = answer.read()
        if not self.keeps:
            self.close()
        if answer.status != 200:
            raise http.client.HTTPException(f"HTTP {answer.status}: {body[:200]!r}")
        return (answer.headers.get("x-moorage-prediction-id") or "unknown").partition(".")[0]

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None


def main(folder: Path) -> None:
    url, body = (folder / "url").read_text(), (folder / "request.json").read_bytes()
    pause = float((folder / "pause").read_text())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    callers = [Caller(url, body, pause, stop, keeps=number % 2 == 0) for number in range(THREADS)]
    begin = time.monotonic()
    for caller in callers:
        caller.start()
    stop.wait(LIMIT_SECONDS)
    stop.set()
    for caller in callers:
        caller.join()
    answered = sum((caller.answered for caller in callers), collections.Counter())
    failed = sum(caller.failed for caller in callers)
    for revision, count in sorted(answered.items()):
        print(f"{count} by {revision}")
    print(f"{answered.total()} answered, {failed} failed in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(__file__).parent)
