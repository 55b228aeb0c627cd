"""The Argo CD health check, run as Lua 5.1 (which Argo CD speaks) against statuses as the operator writes them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from lupa import lua51

from documents import REPOSITORY, fences

HEALTH_CHECK = REPOSITORY / "charts/moorage/files/argo-cd-health.lua"


def health(status: dict[str, Any], *, suspend: bool = False, generation: int = 4) -> tuple[str, str]:
    """What Argo CD shows, as status and message."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    live = {"metadata": {"generation": generation}, "spec": {"suspend": suspend}, "status": status}
    check: Any = lua.execute(f"return function(obj) {HEALTH_CHECK.read_text()} end")
    answer = check(lua.table_from(live, recursive=True))
    return answer["status"], answer["message"]


def a_status(*conditions: str, generation: int = 4) -> dict[str, Any]:
    """Conditions as "Type=Status"; each has its type, in lower case, as message."""
    pairs = [condition.split("=") for condition in conditions]
    items = [{"type": kind, "status": truth, "message": kind.lower()} for kind, truth in pairs]
    return {"observedGeneration": generation, "message": "summary", "conditions": items}


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (a_status("Ready=True", "Available=True"), ("Healthy", "ready")),
        (a_status("Ready=False", "Reconciling=True"), ("Progressing", "reconciling")),
        (a_status("Ready=False", "Available=True", "Stalled=True"), ("Degraded", "stalled")),
        (a_status("Ready=False"), ("Progressing", "ready")),
        (a_status("Ready=Unknown"), ("Progressing", "ready")),
        (a_status(), ("Progressing", "")),
    ],
    ids=["ready", "on its way", "stalled, the old version answers", "not ready", "unknown", "no conditions"],
)
def test_health_follows_the_conditions(status: dict[str, Any], shown: tuple[str, str]) -> None:
    assert health(status) == shown


@pytest.mark.parametrize("status", [{"observedGeneration": -1}, {}, a_status("Ready=True", generation=3)])
def test_a_status_of_another_generation_is_no_answer(status: dict[str, Any]) -> None:
    assert health(status)[0] == "Progressing"
    assert "operator" in health(status)[1]


def test_a_suspended_one_is_suspended_whatever_its_conditions_say() -> None:
    assert health(a_status("Ready=False", "Stalled=True"), suspend=True) == ("Suspended", "summary")


def test_the_snippet_to_paste_has_the_key_that_argo_cd_looks_for_and_this_very_check() -> None:
    snippet = yaml.safe_load(fences(REPOSITORY / "docs/gitops.md", "yaml")[0])

    assert snippet == {"data": {"resource.customizations.health.moorage.dev_ModelDeployment": HEALTH_CHECK.read_text()}}
