"""What MLflow says of a version after its rollout: promoted, or failed and why; and its alias goes back to the version that answers."""

from __future__ import annotations

from typing import Any

import pytest

import load
from mlflow_in_cluster import Registry
from place import Place, a_model, until

ROLLOUT: dict[str, Any] = {
    "steps": [{"setWeight": 50}, {"pause": {"duration": 2}}],
    "progressDeadlineSeconds": 40,
    "signature": "any",
    "scaleDownDelaySeconds": 2,
    "abortScaleDownDelaySeconds": 2,
    "rollback": {"moveAliasBack": True},
}


@pytest.fixture
def model(registry: Registry) -> str:
    """Versions 1 and 2 are of the same files; `champion` is the first."""
    for _ in range(2):
        registry.copy("told")
    registry.set_alias("told", "1")
    return "told"


def tags(registry: Registry, model: str, version: str) -> dict[str, str]:
    """Those that Moorage sets, without the common beginning of their names."""
    found = registry.client().get_model_version(model, version).tags
    return {key.removeprefix("moorage."): value for key, value in found.items() if key.startswith("moorage.")}


def champion(registry: Registry, model: str) -> str:
    return str(registry.client().get_model_version_by_alias(model, "champion").version)


def test_a_worse_version_is_put_back_and_its_alias_goes_back_with_it(
    place: Place, registry: Registry, model: str
) -> None:
    place.apply(a_model("told", model, replicas=2, rollout=ROLLOUT))
    place.wait_ready("told")
    registry.set_alias(model, "2")
    until(120, "version 2 is stable", lambda: place.stable_version("told") == "2", lambda: place.status("told"))
    verdict = {"rollout": "promoted", "rollout.deployment": f"{place.name}/told"}
    until(30, "version 2 is tagged", lambda: tags(registry, model, "2") == verdict, lambda: tags(registry, model, "2"))

    bad = registry.copy(model, source="iris")  # pyfunc, which nobody has allowed
    with load.on(place, "told", "digits-onnx", pause=0.02) as running:
        registry.set_alias(model, bad)
        until(120, "the alias is back", lambda: champion(registry, model) == "2", lambda: place.status("told"))
        until(30, "it is ready again", lambda: place.condition("told", "Ready").get("status") == "True")

    assert running.failed == 0, running.said
    failed = until(30, "it is tagged", lambda: tags(registry, model, bad), lambda: place.status("told"))
    assert failed["rollout"] == "failed"
    assert failed["rollout.reason"] == "ProgressDeadlineExceeded"
    assert "no progress within 40 s" in failed["rollout.message"]
    status = place.status("told")
    assert [item["result"] for item in status["history"]] == ["RolledBack", "Promoted", "Promoted"]
    assert (status["stable"]["modelVersion"], "canary" in status, "rejected" in status) == ("2", False, False)
    notice = until(30, "it is written down", lambda: _told(place), lambda: place.status("told")["history"][0])
    assert (notice["aliasMove"], notice["aliasBackTo"]) == ("Done", "2")

    registry.client().set_model_version_tag(model, bad, "moorage.rollout", "seen by a person")
    place.change("told", revisionHistoryLimit=2)
    until(30, "the operator has looked again", lambda: place.condition("told", "Ready").get("status") == "True")
    assert len(place.status("told")["history"]) == 3, "the alias that went back started a rollout"
    assert tags(registry, model, bad)["rollout"] == "seen by a person", "it is told once"


def _told(place: Place) -> dict[str, str]:
    """The newest notice, once nothing of it is pending."""
    notice: dict[str, str] = place.status("told")["history"][0]["registry"]
    return {} if "Pending" in notice.values() else notice
