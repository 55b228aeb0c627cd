"""MLflow's scoring protocol, `POST /invocations`: dataframe_split, dataframe_records, inputs, instances and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from moorage_runtime import errors
from moorage_runtime.codecs import arrays, rows
from moorage_runtime.codecs import signature as signatures

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")


def body(signature: signatures.Signature, content: Any) -> arrays.Arrays:
    """One of the JSON forms."""
    if not isinstance(content, dict) or len(content) != 1 or not set(content) <= set(FORMS):
        raise errors.InvalidInput(f"send an object with one member, one of {', '.join(FORMS)}")
    [(form, given)] = content.items()
    return _DECODERS[form](signature, given)


def table(signature: signatures.Signature, text: str) -> arrays.Arrays:
    """CSV whose first line names the columns; an empty cell is a missing value."""
    if not signature.is_tabular:
        raise errors.InvalidInput("the model takes tensors, which CSV can't carry: send JSON")
    try:
        header, *lines = csv.reader(io.StringIO(text), strict=True)
    except (ValueError, csv.Error) as error:
        raise errors.BadRequest("the body is no CSV with a first line of column names") from error
    lines = [line for line in lines if line]
    values: dict[str, Any] = {}
    for position, name in enumerate(header):
        field = signature.input(name)
        if field is not None:
            values[name] = [_cell(field, line, position, row) for row, line in enumerate(lines)]
    return rows.columns(signature, values, drop_unknown=True)


def _records(signature: signatures.Signature, given: Any) -> arrays.Arrays:
    _require_columns(signature, "dataframe_records")
    return rows.decode(signature, given, what="dataframe_records", drop_unknown=True)


def _instances(signature: signatures.Signature, given: Any) -> arrays.Arrays:
    return rows.decode(signature, given, what="instances", drop_unknown=True)


def _split(signature: signatures.Signature, given: Any) -> arrays.Arrays:
    _require_columns(signature, "dataframe_split")
    shape_is_right = isinstance(given, dict) and set(given) <= {"columns", "index", "data"} and "data" in given
    if not shape_is_right or not isinstance(given["data"], list):
        raise errors.InvalidInput("'dataframe_split' must be an object with 'columns' and 'data', a list of rows")
    names = given.get("columns", [field.name for field in signature.inputs])
    if not isinstance(names, list) or len(set(map(str, names))) != len(names):
        raise errors.InvalidInput("'dataframe_split': 'columns' must be a list of different names")
    for position, row in enumerate(given["data"]):
        if not isinstance(row, list) or len(row) != len(names):
            raise errors.InvalidInput(f"'dataframe_split': row {position} must be a list of {len(names)} values")
    transposed = zip(names, zip(*given["data"], strict=True), strict=False)
    return rows.columns(signature, {str(name): list(values) for name, values in transposed}, drop_unknown=True)


def _inputs(signature: signatures.Signature, given: Any) -> arrays.Arrays:
    if signature.is_tabular:
        if isinstance(given, dict):
            return rows.columns(signature, {name: _listed(value) for name, value in given.items()}, drop_unknown=True)
        return rows.decode(signature, given, what="inputs", drop_unknown=True)
    if not isinstance(given, dict):
        if len(signature.inputs) != 1:
            raise errors.InvalidInput("'inputs' must be an object with a member for each of the model's tensors")
        given = {signature.inputs[0].name: given}
    missing = [field.name for field in signature.inputs if field.name not in given]
    if missing:
        raise errors.InvalidInput(f"tensor '{missing[0]}' is missing in 'inputs'")
    return {field.name: arrays.tensor(field, given[field.name]) for field in signature.inputs}


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _require_columns(signature: signatures.Signature, form: str) -> None:
    if not signature.is_tabular:
        raise errors.InvalidInput(f"the model takes tensors, not columns: send 'inputs' instead of '{form}'")


def _cell(field: signatures.Field, line: list[str], position: int, row: int) -> Any:
    if position >= len(line):
        raise arrays.refusal(field, f"row {row} is too short")
    text = line[position]
    if text == "" and (field.dtype.kind == "f" or not field.required):
        return None
    try:
        return _CELLS.get(field.type, str)(text)
    except ValueError as error:
        raise arrays.refusal(field, f"row {row} is of another type") from error


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


_CELLS: dict[str, Callable[[str], Any]] = {
    "boolean": _truth,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
}

_DECODERS: dict[str, Callable[[signatures.Signature, Any], arrays.Arrays]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "inputs": _inputs,
    "instances": _instances,
}
