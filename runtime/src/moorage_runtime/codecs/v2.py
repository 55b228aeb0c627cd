"""The Open Inference Protocol (v2): `infer` bodies and the model's metadata, as JSON has them.

`v2_messages` brings gRPC's messages into the same form, where `data` may be an array; every check is here, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays, rows
from moorage_runtime.codecs import signature as signatures

_CLASSES = {"BOOL": "b", "BYTES": "O", "FP16": "f", "FP32": "f", "FP64": "f"}
_CLASSES |= {f"{sign}INT{bits}": "i" for sign in ("", "U") for bits in (8, 16, 32, 64)}


def body(signature: signatures.Signature, content: Any) -> arrays.Arrays:
    """{"inputs": [{"name", "shape", "datatype", "data"}]}."""
    inputs = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
        raise errors.InvalidInput("send an object with 'inputs', a list of objects with name, shape, datatype and data")
    by_name = {_name(signature, tensor): tensor for tensor in inputs}
    if len(by_name) != len(inputs):
        raise errors.InvalidInput("two of the 'inputs' have the same name")
    if signature.is_tabular:
        values = {name: _flat_column(signature, name, tensor) for name, tensor in by_name.items()}
        return rows.columns(signature, values, drop_unknown=False)
    missing = [field.name for field in signature.inputs if field.name not in by_name]
    if missing:
        raise errors.InvalidInput(f"tensor '{missing[0] or signatures.ONLY_INPUT}' is missing in 'inputs'")
    return {field.name: _tensor(field, by_name[field.name]) for field in signature.inputs}


def answer(prediction: answers.Prediction, *, model: str, version: str, request: Any) -> dict[str, Any]:
    reply = {"model_name": model, "model_version": version, "outputs": answers.as_v2(prediction)}
    identifier = request.get("id") if isinstance(request, dict) else None
    return {**reply, "id": identifier} if isinstance(identifier, str) else reply


def metadata(signature: signatures.Signature, *, model: str, version: str, engine: str) -> dict[str, Any]:
    return {
        "name": model,
        "versions": [version],
        "platform": engine,
        "inputs": [_described(field, signatures.ONLY_INPUT) for field in signature.inputs],
        "outputs": [_described(field, signatures.ONLY_OUTPUT) for field in signature.outputs],
    }


def example(arrays_: arrays.Arrays) -> dict[str, Any]:
    """A request body with these arrays."""
    outputs = answers.as_v2(answers.Prediction(arrays_))
    names = [name or signatures.ONLY_INPUT for name in arrays_]
    return {"inputs": [{**tensor, "name": name} for name, tensor in zip(names, outputs, strict=True)]}


def _described(field: signatures.Field, unnamed: str) -> dict[str, Any]:
    shape = [-1] if field.shape is None else list(field.shape)
    return {"name": field.name or unnamed, "datatype": field.datatype, "shape": shape}


def _name(signature: signatures.Signature, tensor: dict[str, Any]) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise errors.InvalidInput("each of the 'inputs' needs a 'name'")
    # An only input without a name of its own goes by any.
    is_only = len(signature.inputs) == 1 and not signature.inputs[0].name
    if not is_only and signature.input(name) is None:
        known = ", ".join(f"'{field.name}'" for field in signature.inputs[:20])
        raise errors.InvalidInput(f"one of the 'inputs' has a name that the model does not know; it has {known}")
    return "" if is_only else name


def _flat_column(signature: signatures.Signature, name: str, tensor: dict[str, Any]) -> Any:
    field = signature.input(name)
    assert field is not None  # noqa: S101  # `_name` has refused all others
    if field.is_json:
        raise arrays.refusal(field, "this protocol can't carry it, /predict and /invocations can")
    shape, flat = _checked(field, tensor)
    if shape[1:] not in ([], [1]) or not shape:
        raise arrays.refusal(field, "its shape must be [rows] or [rows, 1]")
    return flat


def _tensor(field: signatures.Field, tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    shape, flat = _checked(field, tensor)
    try:
        array = np.array(flat, dtype=object if field.dtype.kind == "O" else None).reshape(shape)
    except ValueError as error:
        raise arrays.refusal(field, "its data can't be read as one tensor") from error
    return arrays.fitted(field, array)


def _checked(field: signatures.Field, tensor: dict[str, Any]) -> tuple[list[int], Any]:
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise arrays.refusal(field, "'shape' must be a list of whole numbers")
    if not isinstance(data, list | np.ndarray):
        raise arrays.refusal(field, "'data' must be a list")
    given, want = _CLASSES.get(str(tensor.get("datatype"))), _CLASSES.get(field.datatype)
    if given is None or not (given == want or (given, want) == ("i", "f")):
        raise arrays.refusal(field, f"its datatype must be {field.datatype}")
    flat: Any = data
    if isinstance(data, list) and any(isinstance(item, list) for item in data):
        flat = list(_flattened(data))
    if math.prod(shape) != len(flat):
        raise arrays.refusal(field, f"'shape' says {math.prod(shape)} values, 'data' has {len(flat)}")
    return shape, flat


def _flattened(data: Sequence[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flattened(item)
        else:
            yield item
