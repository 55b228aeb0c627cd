"""The hot path: `infer`, `/invocations` and `/predict` as one bare ASGI callable. It reads, decodes, asks the service, writes.

No framework between the server and the codecs: on small models it would cost more than the model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from moorage_runtime import arms, errors, prediction_ids, service, shadow
from moorage_runtime.codecs import answers, arrays, mlflow, rows, v2
from moorage_runtime.codecs import signature as signatures

logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER_SECONDS = 2
JSON = b"application/json"
CSV = b"text/csv"

_ARM = arms.HEADER.encode()
_ID = prediction_ids.HEADER.encode()
_SHADOW = shadow.HEADER.encode()

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

    def __init__(self, served: service.ModelService, otherwise: App, shadows: shadow.Shadows | None = None) -> None:
        self._served = served
        self._shadows = shadows
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
        metrics = self._served.metrics
        arm = metrics.arms.label(header(scope, _ARM))
        with metrics.in_flight.track_inprogress():
            status, body, request = await self._answer(protocol, scope, receive)
            identifier = self._served.feedback.issue(arm, protocol.label, body) if status == 200 else ""
            await respond(send, status, body, closing=self._served.draining, identifier=identifier)
        metrics.answered(protocol.label, status, time.perf_counter() - started, arm)
        # The caller has its answer: what follows is not on its time.
        if identifier and self._shadows and (revision := self._shadows.target(header(scope, _SHADOW), arm)):
            content_type = (header(scope, b"content-type") or JSON).decode("latin-1")
            path = scope["path"]
            self._shadows.offer(shadow.Copy(revision, protocol.label, path, content_type, request, body, identifier))

    async def _answer(self, protocol: Protocol, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        """Status and body of the answer, and the body of a request that could be answered."""
        try:
            body = await read(scope, receive, self._served.limits.max_request_bytes)
            model = self._served.model
            content, inputs = _decoded(protocol, model.signature, _content_type(scope), body)
            prediction = await self._served.predict(inputs)
            return 200, orjson.dumps(protocol.encode(self._served, prediction, content), option=_OPTIONS), body
        except errors.RequestError as error:
            return error.status, error_body(error), b""
        except Exception:
            logger.exception("a request failed in the runtime itself")
            return 500, error_body(errors.ModelFault("the runtime failed on this request: its log has the reason")), b""


async def respond(send: Send, status: int, body: bytes, *, closing: bool, identifier: str = "") -> None:
    """One JSON answer. `closing` tells a client that keeps its connection to make a new one, which finds another pod."""
    headers = [(b"content-type", JSON), (b"content-length", str(len(body)).encode())]
    if identifier:
        headers.append((_ID, identifier.encode()))
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


async def read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body, if it is not larger than the limit."""
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.BadRequest("the connection was closed before the whole body had come")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
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
    return header(scope, b"content-type").partition(b";")[0].strip().lower()


def header(scope: Scope, name: bytes) -> bytes:
    return next((value for header, value in scope["headers"] if header == name), b"")


def _too_large(limit: int) -> errors.BodyTooLarge:
    shown = f"{limit // 2**20} MiB" if limit % 2**20 == 0 else f"{limit} bytes"
    return errors.BodyTooLarge(f"the body is larger than {shown}: send fewer rows at a time")
