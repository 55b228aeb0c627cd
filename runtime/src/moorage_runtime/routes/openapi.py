"""The OpenAPI document of one model: its real columns or tensors, and an example that it really takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from moorage_runtime import errors, service
from moorage_runtime.codecs import answers, arrays, v2
from moorage_runtime.codecs import signature as signatures

_TYPES: Mapping[str, Mapping[str, str]] = {
    "BOOL": {"type": "boolean"},
    "BYTES": {"type": "string"},
    "FP16": {"type": "number"},
    "FP32": {"type": "number", "format": "float"},
    "FP64": {"type": "number", "format": "double"},
    "INT64": {"type": "integer", "format": "int64"},
}
_FORMATS = {"datetime": "date-time", "binary": "byte"}
_EXAMPLE_ROWS = 2


def document(served: service.ModelService) -> dict[str, Any]:
    """Before the model is loaded there is nothing to tell but that."""
    info = {"title": served.name, "version": served.version, "description": "An MLflow model, served by Moorage."}
    try:
        model = served.model
    except errors.NotReady as error:
        return {"openapi": "3.1.0", "info": {**info, "description": str(error)}, "paths": {}}
    example = _shortened(model)
    infer = {"inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}}
    paths = {
        "/predict": _operation(
            "Predict rows", _object({"rows": _rows(model.signature)}), {"rows": _as_rows(model, example)}
        ),
        "/invocations": _operation("MLflow scoring protocol", _invocations(model), _as_invocations(model, example)),
        f"/v2/models/{served.name}/infer": _operation("Open Inference Protocol", _object(infer), v2.example(example)),
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": {"Tensor": _tensor_schema()}}}


def _operation(summary: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    # Through JSON, because the example holds numpy's arrays.
    plain = orjson.loads(orjson.dumps(example, option=orjson.OPT_SERIALIZE_NUMPY))
    content = {"application/json": {"schema": schema, "example": plain}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {"description": "The prediction"},
                "400": {"description": "The body is no JSON"},
                "413": {"description": "The body is too large"},
                "415": {"description": "The body is of another content type"},
                "422": {"description": "The body is not what the signature asks for"},
                "500": {"description": "The model failed"},
                "503": {"description": "The model is not ready"},
            },
        }
    }


def _rows(signature: signatures.Signature) -> dict[str, Any]:
    if signature.is_tabular:
        required = [field.name for field in signature.inputs if field.required]
        row = _object({field.name: _scalar(field) for field in signature.inputs}, required)
        return {"type": "array", "minItems": 1, "items": row}
    if len(signature.inputs) == 1:
        return _nested(signature.inputs[0])
    row = _object({field.name: _nested(field)["items"] for field in signature.inputs})
    return {"type": "array", "minItems": 1, "items": row}


def _invocations(model: service.Model) -> dict[str, Any]:
    if not model.signature.is_tabular:
        return _object({"inputs": _rows(model.signature)})
    return _object({"dataframe_records": _rows(model.signature)})


def _nested(field: signatures.Field) -> dict[str, Any]:
    schema = _scalar(field)
    for size in reversed(field.shape or ()):
        sized = {} if size == -1 else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **sized}
    return schema


def _scalar(field: signatures.Field) -> dict[str, Any]:
    if field.is_json:
        return {"description": f"MLflow type {field.type}"}
    default = {"type": "integer"}
    schema: dict[str, Any] = dict(_TYPES.get(field.datatype, default))
    if field.type in _FORMATS:
        schema["format"] = _FORMATS[field.type]
    return schema


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _tensor_schema() -> dict[str, Any]:
    return _object(
        {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array", "items": {}},
        }
    )


def _shortened(model: service.Model) -> arrays.Arrays:
    free = model.signature.is_tabular or all((field.shape or (0,))[:1] == (-1,) for field in model.signature.inputs)
    return {name: array[:_EXAMPLE_ROWS] if free else array for name, array in model.example.items()}


def _as_rows(model: service.Model, example: arrays.Arrays) -> Any:
    if not model.signature.is_tabular and len(example) == 1:
        return answers.plain(*example.values())
    return answers.per_row(answers.Prediction(example, is_table=True))


def _as_invocations(model: service.Model, example: arrays.Arrays) -> dict[str, Any]:
    if model.signature.is_tabular:
        return {"dataframe_records": _as_rows(model, example)}
    plain: Mapping[str, Any] = {name: answers.plain(np.asarray(array)) for name, array in example.items()}
    return {"inputs": plain if len(plain) > 1 else next(iter(plain.values()))}
