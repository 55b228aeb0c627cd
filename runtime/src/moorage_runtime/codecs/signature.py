"""A model's MLflow signature: the fields that it wants, and those that it gives. Everything a codec accepts follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moorage_runtime import errors

ONLY_INPUT = "input"
"""What the Open Inference Protocol calls an input that has no name of its own."""

ONLY_OUTPUT = "predictions"

COLUMN_TYPES: Mapping[str, tuple[str, str]] = {
    "boolean": ("BOOL", "bool"),
    "integer": ("INT32", "int32"),
    "long": ("INT64", "int64"),
    "float": ("FP32", "float32"),
    "double": ("FP64", "float64"),
    "string": ("BYTES", "object"),
    "binary": ("BYTES", "object"),
    "datetime": ("BYTES", "datetime64[ns]"),
}
"""MLflow's column types: how the Open Inference Protocol calls each, and the array it becomes."""

_V2_OF_KIND = {"f": "FP", "i": "INT", "u": "UINT"}


@dataclass(frozen=True)
class Field:
    """One column, or (with a shape) one tensor. `type` is MLflow's column type or numpy's name of the tensor's."""

    name: str
    type: str
    shape: tuple[int, ...] | None = None
    required: bool = True

    @property
    def is_json(self) -> bool:
        """An array, object or map in each row: passed to the model as it is."""
        return self.shape is None and self.type not in COLUMN_TYPES

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.shape is None:
            return np.dtype(COLUMN_TYPES.get(self.type, ("", "object"))[1])
        dtype = np.dtype(self.type)
        return np.dtype(object) if dtype.kind in "US" else dtype

    @property
    def datatype(self) -> str:
        """The Open Inference Protocol's name of the type."""
        if self.shape is None:
            return COLUMN_TYPES.get(self.type, ("BYTES", ""))[0]
        return datatype(self.dtype)


@dataclass(frozen=True)
class Signature:
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = ()

    @property
    def is_tabular(self) -> bool:
        return self.inputs[0].shape is None

    def input(self, name: str) -> Field | None:
        return next((field for field in self.inputs if field.name == name), None)


def parse(raw: Mapping[str, Any] | None) -> Signature:
    """From `MLmodel`'s JSON. Raises `SignatureMissing`: without one, nothing can be checked or described."""
    if raw is None or not raw.get("inputs"):
        raise errors.SignatureMissing(
            "the model has no signature: log it with signature=mlflow.models.infer_signature(inputs, outputs)"
        )
    try:
        return Signature(_fields(raw["inputs"]), _fields(raw.get("outputs") or []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.SignatureMissing("the model's signature can't be read: log the model again") from error


def datatype(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "BOOL"
    prefix = _V2_OF_KIND.get(dtype.kind)
    return f"{prefix}{dtype.itemsize * 8}" if prefix else "BYTES"


def _fields(raw: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    return tuple(_field(spec, str(position) if len(raw) > 1 else "") for position, spec in enumerate(raw))


def _field(spec: Mapping[str, Any], unnamed: str) -> Field:
    name = str(spec.get("name") or unnamed)
    if spec["type"] == "tensor":
        tensor = spec["tensor-spec"]
        return Field(name, np.dtype(tensor["dtype"]).name, tuple(int(size) for size in tensor["shape"]))
    return Field(name, str(spec["type"]), required=bool(spec.get("required", True)))
