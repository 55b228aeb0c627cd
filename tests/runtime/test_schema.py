"""What `fetch` tells of a signature: all that callers have to know, in a few bytes, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from moorage_runtime import schema
from moorage_runtime.codecs import signature as signatures


def described(inputs: Any, outputs: Any = None) -> dict[str, Any]:
    """As it is in an MLmodel file."""
    found = infer_signature(inputs, outputs).to_dict()
    return {part: json.loads(found[part]) if found[part] else None for part in ("inputs", "outputs", "params")}


TABLE = pd.DataFrame(
    {"amount": [1.5], "pieces": np.array([1], dtype="float32"), "note": pd.Series(["x"], dtype=object)}
)
TOLD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "columns": (
        described(TABLE, pd.DataFrame({"score": [0.5]})),
        {"inputs": [("amount", "double"), ("pieces", "float"), ("note", "string")], "outputs": [("score", "double")]},
    ),
    "an only tensor": (
        described(np.zeros((2, 3), dtype="float32"), np.zeros(2, dtype="int64")),
        {"inputs": [("", "float32[-1,3]")], "outputs": [("", "int64[-1]")]},
    ),
    "named tensors": (
        described({"a": np.zeros((2, 3)), "b": np.zeros((2, 1))}),
        {"inputs": [("a", "float64[-1,3]"), ("b", "float64[-1,1]")], "outputs": []},
    ),
    "optional": (
        {"inputs": [{"type": "string", "name": "note", "required": False}]},
        {"inputs": [("note", "string?")], "outputs": []},
    ),
    "without names": (
        {"inputs": [{"type": "double"}, {"type": "long"}]},
        {"inputs": [("0", "double"), ("1", "long")], "outputs": []},
    ),
    "a list in each row": (
        described(pd.DataFrame({"words": [["a", "b"]]})),
        {"inputs": [("words", '{"items":{"type":"string"},"type":"array"}')], "outputs": []},
    ),
}


@pytest.mark.parametrize(("signature", "told"), TOLD.values(), ids=TOLD)
def test_a_signature_is_told_in_a_few_words(signature: dict[str, Any], told: dict[str, Any]) -> None:
    assert schema.of(signature) == told


@pytest.mark.parametrize("signature", [row[0] for row in TOLD.values()], ids=TOLD)
def test_its_names_are_those_by_which_the_server_goes(signature: dict[str, Any]) -> None:
    read = signatures.parse(signature)
    assert [name for name, _ in schema.of(signature)["inputs"]] == [field.name for field in read.inputs]


@pytest.mark.parametrize("broken", [None, {"inputs": []}, {"inputs": [{"name": "a"}]}, {"inputs": [7]}])
def test_nothing_is_told_of_what_can_not_be_read(broken: Any) -> None:
    assert schema.of(broken) == {}


def test_nothing_is_told_of_what_is_too_large() -> None:
    columns = [{"type": "double", "name": f"column_{number}"} for number in range(500)]
    assert schema.of({"inputs": columns[:90]})
    assert schema.of({"inputs": columns}) == {}
