"""docs/rollouts.md says what the code does: its steps, states, commands and reasons are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import documents
from documents import REPOSITORY
from moorage_operator.core import commands
from moorage_operator.core.state import Result
from moorage_operator.core.strategy import Rollout, Step

TEXT = (REPOSITORY / "docs/rollouts.md").read_text()
DIAGRAM = TEXT[TEXT.index("stateDiagram-v2") : TEXT.index("```", TEXT.index("stateDiagram-v2"))]


def first_cells(heading: str) -> set[str]:
    """Code in the first cells of the table below a heading."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`([A-Za-z]+)", row)}


def test_each_strategy_is_told() -> None:
    found = next(field for field in msgspec.structs.fields(Rollout) if field.name == "strategy")
    assert first_cells("Strategies") - {"spec"} == set(found.type.__args__)


def test_each_step_is_told() -> None:
    assert first_cells("Steps") == {field.encode_name for field in msgspec.structs.fields(Step)}


def test_each_command_is_told() -> None:
    assert first_cells("Taking part") == set(commands._VERBS)


def test_the_picture_ends_as_rollouts_end() -> None:
    assert set(re.findall(r"^ {4}(\w+) --> \[\*\]", DIAGRAM, re.MULTILINE)) == set(Result)


DOCUMENTS = {
    "rollout": ["rollouts.md"],
    "traffic": ["rollouts.md", "gateway.md"],
    "experiment": ["experiments.md"],
}
"""Where the fields of a part of the spec are told, beside docs/api.md."""


def leaves(schema: dict[str, Any], path: str) -> Iterator[str]:
    schema = schema.get("items", schema)
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, f"{path}.{name}")
    if "properties" not in schema:
        yield path


@pytest.mark.parametrize(("part", "names"), DOCUMENTS.items())
def test_each_field_of_all_that_divides_requests_is_told_somewhere(part: str, names: list[str]) -> None:
    told = " ".join(documents.code(REPOSITORY / "docs" / name) for name in names)
    words = set(re.findall(r"\w+", told))

    assert [
        path for path in leaves(documents.SPEC["properties"][part], part) if not words.issuperset(path.split("."))
    ] == []
