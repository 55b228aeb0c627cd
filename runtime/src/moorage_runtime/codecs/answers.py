"""Predictions into values that JSON can carry, in the shape of each protocol."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moorage_runtime.codecs import signature as signatures


@dataclass(frozen=True)
class Prediction:
    """What a model gave: its outputs by name, in their order. `is_table`: one value a row in each, as in a data frame."""

    outputs: Mapping[str, np.ndarray[Any, Any]]
    is_table: bool = False


def per_row(prediction: Prediction) -> Any:
    """`/predict`: one entry a row where the outputs have rows; an only output stands for itself."""
    if len(prediction.outputs) == 1 and not prediction.is_table:
        return plain(*prediction.outputs.values())
    lengths = {array.shape[:1] for array in prediction.outputs.values()}
    if len(lengths) == 1 and lengths != {()}:
        return _records(prediction)
    return {name: plain(array) for name, array in prediction.outputs.items()}


def as_mlflow(prediction: Prediction) -> Any:
    """`/invocations`: as MLflow's own server writes arrays, data frames and dictionaries."""
    if prediction.is_table:
        return _records(prediction)
    if len(prediction.outputs) == 1 and "" in prediction.outputs:
        return plain(prediction.outputs[""])
    return {name: plain(array) for name, array in prediction.outputs.items()}


def as_v2(prediction: Prediction) -> list[dict[str, Any]]:
    """`/v2/…/infer`: each output flat, with its shape and type."""
    return [
        {
            "name": name or signatures.ONLY_OUTPUT,
            "shape": list(array.shape),
            "datatype": signatures.datatype(array.dtype),
            "data": plain(array.ravel()),
        }
        for name, array in prediction.outputs.items()
    ]


def plain(array: np.ndarray[Any, Any]) -> Any:
    """An array that orjson writes by itself, or nested lists of what it can write."""
    if array.dtype.kind in "biuf":
        return np.ascontiguousarray(array) if array.ndim else array.item()
    if array.dtype.kind == "M":
        return np.datetime_as_string(array.astype("datetime64[us]")).tolist()
    return _plain_value(array.tolist())


def _records(prediction: Prediction) -> list[dict[str, Any]]:
    names = list(prediction.outputs)
    lists = [_listed(plain(array)) for array in prediction.outputs.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def _listed(value: Any) -> list[Any]:
    return list(value.tolist()) if isinstance(value, np.ndarray) else list(value)


def _plain_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain_value(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return plain(value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
