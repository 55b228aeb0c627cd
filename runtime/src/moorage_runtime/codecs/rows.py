"""Rows, as people write them: a list of objects or lists for columns, nested lists (or objects of them) for tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moorage_runtime import errors
from moorage_runtime.codecs import arrays
from moorage_runtime.codecs import signature as signatures


def body(signature: signatures.Signature, content: Any) -> arrays.Arrays:
    """`POST /predict`: {"rows": [...]}."""
    if not isinstance(content, dict) or set(content) != {"rows"}:
        raise errors.InvalidInput('send an object with one member, {"rows": [...]}')
    return decode(signature, content["rows"], what="rows")


def decode(signature: signatures.Signature, rows: Any, *, what: str, drop_unknown: bool = False) -> arrays.Arrays:
    """Rows into arrays. MLflow's own forms drop columns that the signature does not name, others refuse them."""
    if not isinstance(rows, list) or not rows:
        raise errors.InvalidInput(f"'{what}' must be a list with at least one row")
    if not signature.is_tabular:
        return _tensors(signature, rows, what)
    if all(isinstance(row, dict) for row in rows):
        names = set().union(*rows)
        values: dict[str, list[Any]] = {
            field.name: _named(field, rows) for field in signature.inputs if field.name in names
        }
        return columns(signature, values, unknown=names, drop_unknown=drop_unknown)
    if len(signature.inputs) == 1 and not any(isinstance(row, list) for row in rows):
        return {signature.inputs[0].name: arrays.column(signature.inputs[0], rows)}
    return _positional(signature, rows, what)


def columns(
    signature: signatures.Signature, values: dict[str, Any], *, unknown: Iterable[str] = (), drop_unknown: bool
) -> arrays.Arrays:
    """Columns by name into arrays: all that are required, none that nobody asked for, all of one length."""
    wanted = {field.name for field in signature.inputs}
    extra = sorted({*values, *unknown} - wanted)
    if extra and not drop_unknown:
        raise errors.InvalidInput(f"{len(extra)} columns are not in the signature, which has {_listed(signature)}")
    missing = [field.name for field in signature.inputs if field.required and field.name not in values]
    if missing:
        raise errors.InvalidInput(f"column '{missing[0]}' is missing; the signature has {_listed(signature)}")
    decoded = {f.name: arrays.column(f, values[f.name]) for f in signature.inputs if f.name in values}
    lengths = {len(array) for array in decoded.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise errors.InvalidInput("all columns must have the same number of rows, and at least one")
    return decoded


def _named(field: signatures.Field, rows: list[dict[str, Any]]) -> list[Any]:
    values = []
    for position, row in enumerate(rows):
        if field.required and field.name not in row:
            raise arrays.refusal(field, f"row {position} has none")
        values.append(row.get(field.name))
    return values


def _positional(signature: signatures.Signature, rows: list[Any], what: str) -> arrays.Arrays:
    width = len(signature.inputs)
    for position, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise errors.InvalidInput(
                f"'{what}': row {position} must be an object, or a list of {width} values in this order: {_listed(signature)}"
            )
    return {
        field.name: arrays.column(field, list(values))
        for field, values in zip(signature.inputs, zip(*rows, strict=True), strict=True)
    }


def _tensors(signature: signatures.Signature, rows: list[Any], what: str) -> arrays.Arrays:
    fields = signature.inputs
    if not all(isinstance(row, dict) for row in rows):
        if len(fields) > 1:
            raise errors.InvalidInput(f"'{what}': each row must be an object with {_listed(signature)}")
        return {fields[0].name: arrays.tensor(fields[0], rows)}
    names = {field.name or signatures.ONLY_INPUT for field in fields}
    for position, row in enumerate(rows):
        if set(row) != names:
            raise errors.InvalidInput(f"'{what}': row {position} must have exactly {_listed(signature)}")
    return {
        field.name: arrays.tensor(field, [row[field.name or signatures.ONLY_INPUT] for row in rows]) for field in fields
    }


def _listed(signature: signatures.Signature) -> str:
    names = [f"'{field.name or signatures.ONLY_INPUT}'" for field in signature.inputs]
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
