"""Whether two answers say the same, and whether an answer is what came true. Pure; by what the answers' bytes say.

Where an answer has classes (whole numbers, truth values, text; else the largest of probabilities), they are what counts. Where it has
none, it is a regression, and numbers within a relative tolerance are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson

from moorage_runtime import errors
from moorage_runtime.codecs import v2_messages

RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-6


class NoAnswer(Exception):
    """These bytes are not what a model answers in that protocol."""


Outputs: TypeAlias = Mapping[str, Any]
"""Each output's values, row by row, as plain lists."""


def outputs(protocol: str, body: bytes) -> Outputs:
    """What an answer in this protocol says; `NoAnswer` for what is none."""
    try:
        if protocol == "grpc":
            return v2_messages.outputs(body)
        content = orjson.loads(body)
        if protocol == "v2":
            return {each["name"]: _shaped(each["data"], each["shape"]) for each in content["outputs"]}
        return _named(content["predictions"])
    except (errors.RequestError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise NoAnswer from error


def agree(one: Outputs, other: Outputs) -> bool:
    """The same classes in every row; for a regression the same outputs, within the tolerance."""
    theirs = classes(one), classes(other)
    if None not in theirs:
        return theirs[0] == theirs[1]
    return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)


def is_right(answer: Outputs, label: Any) -> bool:
    """The truth is one value for each row, or just the value if there is one row."""
    given = classes(answer)
    values = next(iter(answer.values()), []) if given is None else given
    truth = label if isinstance(label, list) else [label]
    if not isinstance(values, list) or len(values) != len(truth):
        raise errors.InvalidInput("'label' must have one value for each row of the prediction")
    return _close(values, truth)


def classes(answer: Outputs) -> list[Any] | None:
    """One a row; None for a regression."""
    for values in answer.values():
        flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in _rows(values)]
        if flat and all(isinstance(value, bool | int | str) for value in flat):
            return flat
    for values in answer.values():
        rows = _rows(values)
        if rows and all(_is_distribution(row) for row in rows):
            return [max(range(len(row)), key=row.__getitem__) for row in rows]
    return None


def _named(predictions: Any) -> Outputs:
    if isinstance(predictions, dict):
        return predictions
    if isinstance(predictions, list) and predictions and all(isinstance(row, dict) for row in predictions):
        return {name: [row[name] for row in predictions] for name in predictions[0]}
    return {"": predictions}


def _shaped(flat: Any, shape: Any) -> Any:
    return np.array(flat, dtype=object).reshape(shape).tolist()


def _rows(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else []


def _is_distribution(row: Any) -> bool:
    if not isinstance(row, list) or len(row) < 2 or not all(isinstance(value, float) for value in row):
        return False
    return min(row) >= 0 and math.isclose(sum(row), 1, abs_tol=RELATIVE_TOLERANCE)


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    return bool(one == other)
