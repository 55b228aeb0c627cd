"""The second port: /healthz, /readyz, /metrics and /drain, for the kubelet and for monitoring. Bare ASGI, never limited."""

from __future__ import annotations

import time

import orjson
import prometheus_client

from moorage_runtime import drain, service
from moorage_runtime.routes.predict import Receive, Scope, Send


class Health:
    def __init__(self, served: service.ModelService, drainer: drain.Drainer) -> None:
        self._served = served
        self._drainer = drainer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        match scope["path"]:
            case "/healthz":
                await _tell(send, self._served.unhealthy_because(time.monotonic()))
            case "/readyz":
                await _tell(send, self._served.not_ready_because())
            case "/metrics":
                await _write(send, 200, prometheus_client.CONTENT_TYPE_LATEST, self._served.metrics.exposition())
            case "/drain":
                await self._drainer.drain()
                await _tell(send, "")
            case _:
                await _tell(send, "there are /healthz, /readyz, /metrics and /drain here", status=404)


async def _tell(send: Send, reason: str, status: int = 503) -> None:
    body = {"status": "error", "reason": reason} if reason else {"status": "ok"}
    await _write(send, status if reason else 200, "application/json", orjson.dumps(body))


async def _write(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
