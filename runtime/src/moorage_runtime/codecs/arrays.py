"""JSON values into the array of one field, exactly or not at all: no number is cut, no text is read as a number.

Every refusal names the field, the first row that is wrong and what is expected, and never repeats what was sent.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from moorage_runtime import errors
from moorage_runtime.codecs import signature as signatures

Arrays: TypeAlias = dict[str, "np.ndarray[Any, Any]"]
"""What a model is given: an array a field, by name; all of one length in the first dimension where the model is tabular."""


def column(field: signatures.Field, values: Any) -> np.ndarray[Any, Any]:
    """One value a row: a list, or an array of numbers or truth values from a binary protocol."""
    if isinstance(values, np.ndarray):
        return _cast(field, values)
    if not isinstance(values, list):
        raise refusal(field, "send a list with one value a row")
    if field.is_json:
        return _objects(values)
    if field.dtype.kind in "iuf":
        return _numbers(field, values)
    parse = _PARSERS[field.type]
    parsed: list[Any] = []
    for row, value in enumerate(values):
        if value is None and not field.required:
            parsed.append(None)
            continue
        try:
            parsed.append(parse(value))
        except (ValueError, TypeError) as error:
            raise refusal(field, f"row {row} is no {_EXPECTED[field.type]}") from error
    return _objects(parsed) if field.dtype.kind == "O" else np.array(parsed, dtype=field.dtype)


def tensor(field: signatures.Field, values: Any) -> np.ndarray[Any, Any]:
    """Nested lists, as deep as the signature's shape."""
    try:
        array = np.array(values, dtype=object if field.dtype.kind == "O" else None)
    except ValueError as error:
        raise refusal(field, "its lists are of different lengths") from error
    return fitted(field, array)


def fitted(field: signatures.Field, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array with the field's type, if it has the field's shape and nothing is lost."""
    shape = field.shape or ()
    fits = array.ndim == len(shape) and all(want in (-1, size) for want, size in zip(shape, array.shape, strict=True))
    if not fits:
        raise refusal(field, f"its shape is {_shown(array.shape)}")
    return _cast(field, array)


def refusal(field: signatures.Field, what: str) -> errors.InvalidInput:
    name = field.name or signatures.ONLY_INPUT
    if field.shape is None:
        return errors.InvalidInput(f"column '{name}': {what}; the signature asks for {field.type}")
    return errors.InvalidInput(f"tensor '{name}': {what}; the signature asks for {field.type} of {_shown(field.shape)}")


def _numbers(field: signatures.Field, values: list[Any]) -> np.ndarray[Any, Any]:
    if set(map(type, values)) <= {int, float}:
        return _cast(field, _array_of_numbers(values))
    for row, value in enumerate(values):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        missing = value is None and field.dtype.kind == "f"
        if not (is_number or missing):
            raise refusal(field, f"row {row} is no number")
    # A missing number is NaN, as in pandas.
    return _cast(field, np.array([np.nan if value is None else float(value) for value in values]))


def _array_of_numbers(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.array(values)
    return array if array.dtype.kind in "iuf" else array.astype(float)  # integers beyond 64 bits


def _cast(field: signatures.Field, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    want = field.dtype
    if array.dtype == want and want.kind != "O":
        return array
    if want.kind == "O":
        if not all(isinstance(value, str) for value in array.flat):
            raise refusal(field, "a value is no text")
        return array
    if array.size and not _may_become(array.dtype.kind, want.kind):
        raise refusal(field, "a value is of another type")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(want)
    if want.kind in "iu" and not bool(np.all(cast == array)):
        raise refusal(field, f"a number is not a whole one that fits {want.name}")
    if want.kind == "f" and not np.array_equal(np.isfinite(cast), np.isfinite(array)):
        raise refusal(field, f"a number is too large for {want.name}")
    return cast


def _may_become(given: str, want: str) -> bool:
    return given in {"b": "b", "i": "iuf", "u": "iuf", "f": "iuf"}.get(want, "")


def _objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _moment(value: Any) -> np.datetime64:
    moment = datetime.datetime.fromisoformat(_text(value))
    if moment.tzinfo is not None:  # numpy and pandas' naive times are UTC
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):  # from a binary protocol; JSON has none
        return value
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error as error:
        raise ValueError from error


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "string": _text,
    "datetime": _moment,
    "binary": _bytes,
}
_EXPECTED = {"boolean": "true or false", "string": "text", "datetime": "ISO 8601 time", "binary": "base64 text"}


def _shown(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
