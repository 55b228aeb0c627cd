"""`docs/registries.md` lists what the code knows: every reason, and every scheme that artifacts may have."""

from __future__ import annotations

import re
from pathlib import Path

from moorage_operator import errors
from moorage_operator.adapters.registry import sources

DOC = (Path(__file__).parents[2] / "docs" / "registries.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return DOC.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_table_of_reasons_is_that_of_the_errors() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", section("Reasons"), re.MULTILINE)
    assert set(listed) == {error.reason for error in errors.RegistryError.__subclasses__()}


def test_the_table_of_addresses_allows_what_the_code_allows() -> None:
    rows = [
        row for row in section("Where artifacts may lie").splitlines() if "| no" not in row and "any address" not in row
    ]
    listed = re.findall(r"`([a-z0-9-]+):/", "\n".join(row.split(" | ")[0] for row in rows))
    assert set(listed) == sources.STORES | sources.OWN
