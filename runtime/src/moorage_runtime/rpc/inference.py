"""The Open Inference Protocol's six calls: they parse, ask the service, and answer in messages. What is checked is checked by the codecs.

Messages arrive as bytes and are parsed here, so that what is no message is the caller's fault and not the server's.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

from moorage_runtime import arms, errors, prediction_ids, service, shadow
from moorage_runtime.codecs import v2, v2_messages
from moorage_runtime.oip import inference_pb2

logger = logging.getLogger(__name__)

NAME = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PROTOCOL = "grpc"
RETRY, RETRY_MILLISECONDS = "grpc-retry-pushback-ms", 2000

STATUS: Mapping[type[errors.RequestError], grpc.StatusCode] = {
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Gone: grpc.StatusCode.NOT_FOUND,
    errors.BodyTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnsupportedMediaType: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelFault: grpc.StatusCode.INTERNAL,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Inference:
    """`grpc.aio` calls the methods, each with the request's bytes."""

    def __init__(self, served: service.ModelService, shadows: shadow.Shadows | None = None) -> None:
        self._served = served
        self._shadows = shadows

    def handler(self) -> grpc.GenericRpcHandler:
        calls: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
            "ServerLive": (inference_pb2.ServerLiveRequest, self._live),
            "ServerReady": (inference_pb2.ServerReadyRequest, self._ready),
            "ModelReady": (inference_pb2.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (inference_pb2.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (inference_pb2.ModelMetadataRequest, self._model_metadata),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(_call(kind, answer)) for name, (kind, answer) in calls.items()
        }
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        return grpc.method_handlers_generic_handler(NAME, methods)

    def _live(self, _: Any) -> Any:
        return inference_pb2.ServerLiveResponse(live=True)

    def _ready(self, _: Any) -> Any:
        return inference_pb2.ServerReadyResponse(ready=not self._served.not_ready_because())

    def _model_ready(self, request: Any) -> Any:
        self._served.require(request.name, request.version)
        return inference_pb2.ModelReadyResponse(ready=not self._served.not_ready_because())

    def _server_metadata(self, _: Any) -> Any:
        version = importlib.metadata.version("moorage-runtime")
        return inference_pb2.ServerMetadataResponse(name="moorage-runtime", version=version)

    def _model_metadata(self, request: Any) -> Any:
        served = self._served
        served.require(request.name, request.version)
        model = served.model
        described = v2.metadata(model.signature, model=served.name, version=served.version, engine=model.engine.name)
        return v2_messages.metadata(described)

    async def _infer(self, raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        started = time.perf_counter()
        metrics = self._served.metrics
        arm = metrics.arms.label(_metadata(context, arms.HEADER))
        code = grpc.StatusCode.CANCELLED
        try:
            with metrics.in_flight.track_inprogress():
                answer = await self._answer(raw, context.time_remaining())
                identifier = self._served.feedback.issue(arm, PROTOCOL, answer)
                context.set_trailing_metadata(((prediction_ids.HEADER, identifier),))
                self._shadow(context, arm, raw, answer, identifier)
                code = grpc.StatusCode.OK
                return answer
        except errors.RequestError as error:
            code = STATUS[type(error)]
            await _refuse(context, error)
        except Exception:
            logger.exception("a request failed in the runtime itself")
            code = grpc.StatusCode.INTERNAL
            await _abort(context, code, "the runtime failed on this request: its log has the reason")
        finally:
            number: int = code.value[0]
            metrics.answered(PROTOCOL, number, time.perf_counter() - started, arm)

    def _shadow(
        self, context: grpc.aio.ServicerContext[Any, Any], arm: str, raw: bytes, answer: bytes, identifier: str
    ) -> None:
        shadows = self._shadows
        if shadows and (revision := shadows.target(_metadata(context, shadow.HEADER), arm)):
            copy = shadow.Copy(revision, PROTOCOL, "", "", raw, answer, identifier)
            context.add_done_callback(lambda _: shadows.offer(copy))

    async def _answer(self, raw: bytes, seconds: float | None) -> bytes:
        served = self._served
        request = v2_messages.request(raw)
        served.require(request.model_name, request.model_version)
        inputs = v2_messages.body(served.model.signature, request)
        prediction = await served.predict(inputs, seconds=seconds)
        reply = v2_messages.answer(prediction, model=served.name, version=served.version, request=request)
        serialized: bytes = reply.SerializeToString()
        return serialized


def _call(kind: Any, answer: Callable[[Any], Any]) -> Callable[..., Any]:
    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            reply: bytes = answer(v2_messages.parsed(kind, raw)).SerializeToString()
            return reply
        except errors.RequestError as error:
            await _refuse(context, error)

    return call


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: errors.RequestError) -> NoReturn:
    status = STATUS[type(error)]
    # What clients with a retry policy wait for; without it they choose for themselves.
    metadata = ((RETRY, str(RETRY_MILLISECONDS)),) if status is grpc.StatusCode.UNAVAILABLE else ()
    await _abort(context, status, str(error), metadata)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], *arguments: Any) -> NoReturn:
    await context.abort(*arguments)
    raise AssertionError("abort has raised")  # for the type checker


def _metadata(context: grpc.aio.ServicerContext[Any, Any], wanted: str) -> bytes:
    for key, value in context.invocation_metadata() or ():
        if key == wanted:
            return value if isinstance(value, bytes) else value.encode()
    return b""
