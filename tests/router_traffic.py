"""What goes through a router in the tests: model pods that tell what they were sent, and callers that are careful clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

DEADLINE = 20.0


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str, seconds: float = DEADLINE) -> None:
    """Wait for a condition that has no event, with a deadline."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(0.02)
    raise AssertionError(f"in {seconds:g} s it did not come to this: {what}")


@dataclass(frozen=True)
class Answer:
    """What a caller gets; `pod` and `seen` (the headers that arrived) as the pod told them."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def pod(self) -> str:
        return str(json.loads(self.body)["pod"])

    @property
    def seen(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.body)["seen"]
        return found


class Pod:
    """A model server that tells who it is and what it was sent.

    A test may change its status, have it hold its answers back, or promise more bytes than it sends.
    """

    def __init__(self, revision: str, port: int) -> None:
        self.revision = revision
        self.port = port
        self.requests = 0
        self.status = 200
        self.hold: asyncio.Event | None = None
        self.promised = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def kill(self) -> None:
        """As the kernel does it: the port is closed, and every connection is reset."""
        assert self._server
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def asked(self, times: int) -> None:
        await until(lambda: self.requests >= times, f"{self.revision} has {times} requests")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await _read_message(reader):
                self.requests += 1
                if self.hold:
                    await self.hold.wait()
                body = json.dumps({"pod": self.revision, "seen": head.headers}).encode()
                size = self.promised or len(body)
                writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: {size}\r\n\r\n".encode() + body[:size])
                await writer.drain()
                if size > len(body):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass(frozen=True)
class _Message:
    first: str
    headers: dict[str, str]
    body: bytes


async def _read_message(reader: asyncio.StreamReader) -> _Message | None:
    """One request or response; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return _Message(first, headers, body)


class Caller:
    """One kept-alive connection, as a careful HTTP/1.1 client has it: `Connection: close` is followed, nothing is tried again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, headers: Mapping[str, str] | None = None, body: bytes = b"{}", path: str = "/invocations"
    ) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        message = await _read_message(reader)
        if message is None:
            raise ConnectionResetError("closed without an answer")
        if message.headers.get("connection", "").lower() == "close":
            await self.close()
        return Answer(int(message.first.split()[1]), message.headers, message.body)

    async def close(self) -> None:
        if self._streams:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass
class Load:
    """Callers that post without a pause, but for a moment after a failure; what they got."""

    statuses: Counter[int] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    """When, by the monotonic clock, a request got no answer or a bad one."""
    slowest: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.statuses.values()) + len(self.failures)

    def failed(self) -> list[str]:
        return self.failures + [str(status) for status in self.statuses.elements() if status != 200]


async def answered(found: Load, count: int) -> None:
    """Wait until so many more requests have had their end."""
    goal = found.total + count
    await until(lambda: found.total >= goal, f"{count} more requests")


async def can_connect(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
    except OSError:
        return False
    return True


async def refuses_connections(port: int) -> None:
    async def refused() -> bool:
        return not await can_connect(port)

    await until(refused, f"nobody listens on port {port}")


@contextlib.asynccontextmanager
async def load(port: int, *, callers: int = 8, keep_alive: bool = True) -> AsyncIterator[Load]:
    """For the time of the block; each request that has begun then gets its end."""
    found, stop = Load(), asyncio.Event()
    tasks = [asyncio.create_task(_call(port, found, stop, index, keep_alive)) for index in range(callers)]
    try:
        yield found
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _call(port: int, found: Load, stop: asyncio.Event, index: int, keep_alive: bool) -> None:
    caller, number = Caller(port), 0
    while not stop.is_set():
        number += 1
        began = time.monotonic()
        try:
            answer = await caller.post({"x-user-id": f"{index}-{number}"})
            found.statuses[answer.status] += 1
            if answer.status == 200:
                found.pods[answer.pod] += 1
            else:
                found.failed_at.append(time.monotonic())
            if not keep_alive:
                await caller.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            found.failures.append(repr(error))
            found.failed_at.append(time.monotonic())
            await caller.close()
            await asyncio.sleep(0.01)
        found.slowest = max(found.slowest, time.monotonic() - began)
    await caller.close()
