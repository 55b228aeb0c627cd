"""A backend for tests of routing: tells its name and the headers that it got, by HTTP/1.1 on port 8080 and by gRPC on 8081.

It runs in a pod, of the runtime's image; any gRPC method is answered.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc


def told(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    texts = {name.lower(): value for name, value in headers if isinstance(value, str)}
    return json.dumps({"name": os.environ["NAME"], "headers": texts}).encode()


class ByHttp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = told(self.headers.items())
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class ByGrpc(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, _: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda _, context: told(context.invocation_metadata()))


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(8), handlers=[ByGrpc()])
    server.add_insecure_port("0.0.0.0:8081")
    server.start()
    by_http = ThreadingHTTPServer(("", 8080), ByHttp)
    threading.Thread(target=by_http.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
