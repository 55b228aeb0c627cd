"""A web server on loopback that answers what a test tells it, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """One request, as it arrived."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """`body` as JSON, or as it is when it is bytes."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Stub:
    """A running server; `answer` may be changed at any time."""

    answer: Callable[[Request], Reply]
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def authorizations(self) -> list[str | None]:
        """The `Authorization` header of each request, None where there was none."""
        return [request.headers.get("Authorization") for request in self.requests]


@contextlib.contextmanager
def serving(answer: Callable[[Request], Reply], *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """A server for the time of the block."""
    stub = Stub(answer)
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(stub))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    stub.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(parts.path, dict(parse_qsl(parts.query)), dict(self.headers), body)
            stub.requests.append(request)
            reply = stub.answer(request)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.payload())), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that has read enough
                self.wfile.write(reply.payload())

        do_POST = do_GET  # noqa: N815 - the base class wants this name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class wants this name
            """Say nothing."""

    return Handler
