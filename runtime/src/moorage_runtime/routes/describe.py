"""What the model is and whether it can be asked: v2 metadata and readiness, /ping, /version, /docs. A FastAPI app.

Predictions never come here: `routes.predict` answers them before.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import fastapi
import fastapi.exceptions
import orjson
from fastapi import responses

from moorage_runtime import errors, service
from moorage_runtime.codecs import v2
from moorage_runtime.routes import openapi, predict

VERSION = importlib.metadata.version("moorage-runtime")


def app(served: service.ModelService) -> fastapi.FastAPI:
    described = fastapi.FastAPI(title=served.name, version=served.version, redoc_url=None)
    described.openapi = lambda: openapi.document(served)  # type: ignore[method-assign]  # FastAPI's documented way
    described.include_router(_v2(served))
    described.include_router(_mlflow(served))
    _map_errors(described)
    return described


def _v2(served: service.ModelService) -> fastapi.APIRouter:
    router = fastapi.APIRouter(prefix="/v2")

    @router.get("")
    async def server() -> dict[str, Any]:
        return {"name": "moorage-runtime", "version": VERSION, "extensions": []}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> responses.Response:
        return _readiness(served)

    @router.get("/models/{name}/ready")
    async def model_ready(name: str) -> responses.Response:
        served.require(name, "")
        return _readiness(served)

    @router.get("/models/{name}/versions/{version}/ready")
    async def version_ready(name: str, version: str) -> responses.Response:
        served.require(name, version)
        return _readiness(served)

    @router.get("/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        return _metadata(served, name, "")

    @router.get("/models/{name}/versions/{version}")
    async def model_version(name: str, version: str) -> dict[str, Any]:
        return _metadata(served, name, version)

    return router


def _mlflow(served: service.ModelService) -> fastapi.APIRouter:
    router = fastapi.APIRouter()

    @router.get("/ping")
    async def ping() -> responses.Response:
        reason = served.not_ready_because()
        return responses.Response("\n", status_code=503 if reason else 200, media_type="application/json")

    @router.get("/version")
    async def version() -> responses.Response:
        return responses.PlainTextResponse(importlib.metadata.version("mlflow-skinny"))

    return router


def _readiness(served: service.ModelService) -> responses.Response:
    reason = served.not_ready_because()
    if reason:
        raise errors.NotReady(reason)
    return responses.JSONResponse({"ready": True})


def _metadata(served: service.ModelService, name: str, version: str) -> dict[str, Any]:
    served.require(name, version)
    model = served.model
    return v2.metadata(model.signature, model=served.name, version=served.version, engine=model.engine.name)


def _map_errors(described: fastapi.FastAPI) -> None:
    @described.exception_handler(errors.RequestError)
    async def answer(_: fastapi.Request, error: Exception) -> responses.Response:
        assert isinstance(error, errors.RequestError)  # noqa: S101  # FastAPI's type of a handler is wider
        headers = {"retry-after": str(predict.RETRY_AFTER_SECONDS)} if error.status == errors.NotReady.status else {}
        return responses.Response(predict.error_body(error), error.status, headers, "application/json")

    @described.exception_handler(404)
    @described.exception_handler(405)
    async def unknown(request: fastapi.Request, error: Exception) -> responses.Response:
        status = error.status_code if isinstance(error, fastapi.HTTPException) else 404
        paths = "/predict, /invocations, /v2, /feedback and /docs"
        body = {"error": f"nothing here answers this method and path: there are {paths}", "reason": "NotFound"}
        return responses.Response(orjson.dumps(body), status, media_type="application/json")
