"""`grpc.health.v1`, as the model's readiness is: what a gRPC client or balancer asks for, beside /readyz for the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from moorage_runtime import errors, service
from moorage_runtime.codecs import v2_messages
from moorage_runtime.rpc import inference

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES = ("", inference.NAME)
MAX_WATCHERS = 64
"""Each is a call that stays open for as long as its client likes."""


class Health:
    def __init__(self, served: service.ModelService) -> None:
        self._served = served
        self._watchers = 0
        self._ending = False

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)

    def end(self) -> None:
        """Let those who watch go: the server waits for every call that is open."""
        self._ending = True
        self._served.tell()

    async def _check(self, raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        status = self._status(await _service(raw, context))
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the services here are '' and '{inference.NAME}'")
        return _reply(status)

    async def _watch(self, raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        asked = await _service(raw, context)
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} are watching already")
        self._watchers += 1
        try:
            told = None
            while True:
                change, status = self._served.change(), self._status(asked)
                if status != told:
                    yield _reply(status)
                told = status
                if self._ending:
                    return
                await change.wait()
        finally:
            self._watchers -= 1

    def _status(self, asked: str) -> Any:
        if asked not in SERVICES:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._served.not_ready_because():
            return health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse.SERVING


async def _service(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> str:
    try:
        return str(v2_messages.parsed(health_pb2.HealthCheckRequest, raw).service)
    except errors.BadRequest as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("abort has raised") from error


def _reply(status: Any) -> bytes:
    reply: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return reply
