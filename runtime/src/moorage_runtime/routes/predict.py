"""The hot path: `infer`, `/invocations` and `/predict` as one bare ASGI callable. It reads, decodes, asks the service, writes.

No framework between the server and the codecs: on small models it would cost more than the model.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from moorage_runtime import errors, service
from moorage_runtime.codecs import answers, arrays, mlflow, rows, v2
from moorage_runtime.codecs import signature as signatures

logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 16 * 1024 * 1024
RETRY_AFTER_SECONDS = 2
JSON = b"application/json"
CSV = b"text/csv"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True)
class Protocol:
    """One way to ask: from a body's JSON to arrays, and from a prediction to the answer's JSON."""

    label: str
    decode: Callable[[signatures.Signature, Any], arrays.Arrays]
    encode: Callable[[service.ModelService, answers.Prediction, Any], Any]
    takes_csv: bool = False


def _v2_answer(served: service.ModelService, prediction: answers.Prediction, content: Any) -> Any:
    return v2.answer(prediction, model=served.name, version=served.version, request=content)


def _mlflow_answer(_: service.ModelService, prediction: answers.Prediction, __: Any) -> Any:
    return {"predictions": answers.as_mlflow(prediction)}


def _rows_answer(served: service.ModelService, prediction: answers.Prediction, _: Any) -> Any:
    return {"predictions": answers.per_row(prediction), "model": served.name, "version": served.version}


V2 = Protocol("v2", v2.body, _v2_answer)
MLFLOW = Protocol("mlflow", mlflow.body, _mlflow_answer, takes_csv=True)
ROWS = Protocol("predict", rows.body, _rows_answer)


class Predictions:
    """The prediction routes in front of another app, which answers everything else."""

    def __init__(self, served: service.ModelService, otherwise: App) -> None:
        self._served = served
        self._otherwise = otherwise
        name, version = served.name, served.version
        self._routes = {
            "/predict": ROWS,
            "/invocations": MLFLOW,
            f"/v2/models/{name}/infer": V2,
            f"/v2/models/{name}/versions/{version}/infer": V2,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if protocol is None:
            await self._otherwise(scope, receive, send)
            return
        started = time.perf_counter()
        with self._served.metrics.in_flight.track_inprogress():
            status, body = await self._answer(protocol, scope, receive)
            await respond(send, status, body, closing=self._served.draining)
        self._served.metrics.answered(protocol.label, status, time.perf_counter() - started)

    async def _answer(self, protocol: Protocol, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        try:
            body = await _read(scope, receive)
            model = self._served.model
            content, inputs = _decoded(protocol, model.signature, _content_type(scope), body)
            prediction = await self._served.predict(inputs)
            return 200, orjson.dumps(protocol.encode(self._served, prediction, content), option=_OPTIONS)
        except errors.RequestError as error:
            return error.status, error_body(error)
        except Exception:
            logger.exception("a request failed in the runtime itself")
            return 500, error_body(errors.ModelFault("the runtime failed on this request: its log has the reason"))


async def respond(send: Send, status: int, body: bytes, *, closing: bool) -> None:
    """One JSON answer. `closing` tells a client that keeps its connection to make a new one, which finds another pod."""
    headers = [(b"content-type", JSON), (b"content-length", str(len(body)).encode())]
    if status == errors.NotReady.status:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    # The rest of a body that was too large is still on its way: this connection can't be used again.
    if closing or status == errors.BodyTooLarge.status:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(error: errors.RuntimeFault) -> bytes:
    """The one shape of all errors; `error` alone is what the Open Inference Protocol asks for."""
    return orjson.dumps({"error": str(error), "reason": type(error).__name__})


async def _read(scope: Scope, receive: Receive) -> bytes:
    declared = _header(scope, b"content-length")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.BadRequest("the connection was closed before the whole body had come")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise _too_large()
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decoded(
    protocol: Protocol, signature: signatures.Signature, content_type: bytes, body: bytes
) -> tuple[Any, arrays.Arrays]:
    try:
        if content_type == CSV and protocol.takes_csv:
            return None, mlflow.table(signature, body.decode())
        if content_type not in (JSON, b""):
            wanted = "application/json or text/csv" if protocol.takes_csv else "application/json"
            raise errors.UnsupportedMediaType(f"send content-type: {wanted}")
        content = orjson.loads(body)
        return content, protocol.decode(signature, content)
    except orjson.JSONDecodeError as error:
        raise errors.BadRequest(
            f"the body is no JSON: it goes wrong at line {error.lineno}, column {error.colno}"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise errors.BadRequest("the body is not UTF-8, or nested too deeply") from error


def _content_type(scope: Scope) -> bytes:
    return _header(scope, b"content-type").partition(b";")[0].strip().lower()


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for header, value in scope["headers"] if header == name), b"")


def _too_large() -> errors.BodyTooLarge:
    megabytes = math.floor(MAX_BODY_BYTES / 1024 / 1024)
    return errors.BodyTooLarge(f"the body is larger than {megabytes} MiB: send fewer rows at a time")
