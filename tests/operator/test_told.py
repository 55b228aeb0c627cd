"""What the registry is told of rollouts, in the small world: tags, the alias that goes back, and what a registry that says no changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import world
from moorage_operator.core import told
from moorage_operator.core.kinds import EVENT
from moorage_operator.core.notices import AliasMove
from moorage_operator.core.platform import RegistryEndpoint
from world import PLATFORM, World

BACK = {"rollback": {"moveAliasBack": True}, "progressDeadlineSeconds": 60}


async def a_world(*, rollout: dict[str, Any] | None = None, **given: Any) -> World:
    """Version 3 answers."""
    made = World(**given)
    made.move_alias("3")
    made.apply(rollout=BACK if rollout is None else rollout)
    await made.settle()
    return made


async def roll_back(served: World, version: str = "4") -> None:
    served.fates[version] = world.loading
    served.move_alias(version)
    await served.settle()
    await served.pass_time(61)


def notices(served: World) -> list[dict[str, Any] | None]:
    """The newest first."""
    return [item.get("registry") for item in served.status["history"]]


def notes(served: World, reason: str) -> list[str]:
    return [item["note"] for item in served.all(EVENT) if item["reason"] == reason]


async def test_a_version_that_is_promoted_is_tagged_once() -> None:
    served = await a_world()
    assert served.tags == {"3": {"moorage.rollout": "promoted", "moorage.rollout.deployment": "payments/fraud"}}
    assert notices(served) == [{"name": "default", "model": "detector", "tags": "Done"}]
    said = len(served.said)
    served.cluster.writes.clear()
    served.restart()
    await served.settle()
    assert len(served.said) == said
    assert not served.cluster.writes


async def test_a_version_that_is_put_back_is_tagged_with_the_reason() -> None:
    served = await a_world(rollout={"progressDeadlineSeconds": 60})
    await roll_back(served)
    tags = served.tags["4"]
    assert tags["moorage.rollout"] == "failed"
    assert tags["moorage.rollout.reason"] == "ProgressDeadlineExceeded"
    assert tags["moorage.rollout.message"].startswith("no progress within 60 s")
    assert served.status["history"][0]["reason"] == "ProgressDeadlineExceeded"
    assert served.champion == "4", "the alias is moved only where that is asked for"
    assert served.condition("Ready") == ("False", "RolledBack")


async def test_a_version_that_is_promoted_after_all_is_not_failed_any_more() -> None:
    served = await a_world(rollout={"progressDeadlineSeconds": 60})
    await roll_back(served)
    served.fates.clear()
    served.command(f"retry@{served.revision('4')}")
    await served.settle()
    assert served.tags["4"] == {"moorage.rollout": "promoted", "moorage.rollout.deployment": "payments/fraud"}


async def test_an_aborted_version_is_tagged_and_its_alias_stays() -> None:
    served = await a_world(rollout=BACK | {"steps": [{"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    served.command(f"abort@{served.revision('4')}")
    await served.settle()
    assert served.tags["4"] == {"moorage.rollout": "aborted", "moorage.rollout.deployment": "payments/fraud"}
    assert served.champion == "4"


async def test_a_superseded_version_gets_no_tag() -> None:
    served = await a_world(rollout={"steps": [{"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    served.move_alias("5")
    await served.settle()
    assert served.status["history"][0]["result"] == "Superseded"
    assert "4" not in served.tags


async def test_the_alias_goes_back_and_no_rollout_follows() -> None:
    served = await a_world()
    await roll_back(served)
    await served.pass_time(400)
    assert served.champion == "3"
    assert served.condition("Ready") == ("True", "Promoted")
    assert "rejected" not in served.status
    assert "canary" not in served.status
    assert [item["result"] for item in served.status["history"]] == ["RolledBack", "Promoted"]
    assert "no progress within 60 s" in served.status["history"][0]["message"]
    assert notices(served)[0] == {
        "name": "default", "model": "detector", "tags": "Done", "alias": "champion", "aliasBackTo": "3", "aliasMove": "Done"
    }  # fmt: skip
    assert notes(served, "AliasMovedBack") == ["alias champion of detector names version 3 again, not 4"]


async def test_a_version_that_was_put_back_is_tried_again_when_the_alias_names_it_again() -> None:
    served = await a_world()
    await roll_back(served)
    served.fates.clear()
    served.move_alias("4")
    await served.settle()
    assert served.traffic() == "4"
    assert served.champion == "4"


async def test_an_alias_that_somebody_has_moved_meanwhile_stays() -> None:
    served = await a_world()
    served.fates |= {"4": world.loading, "5": world.loading}
    served.move_alias("4")
    await served.settle()
    served.now += timedelta(seconds=61)
    hurried = served.tellers.work

    def somebody_is_faster() -> bool:
        if any(isinstance(errand, AliasMove) for errand in served.tellers.errands):
            served.move_alias("5")
        return hurried()

    served.tellers.work = somebody_is_faster  # type: ignore[method-assign]
    await served.settle()
    assert served.champion == "5"
    assert [notice["aliasMove"] for notice in notices(served) if notice and "aliasMove" in notice] == ["Skipped"]
    assert served.status["canary"]["modelVersion"] == "5"


async def test_the_alias_stays_where_the_spec_was_changed_too_because_a_rollout_would_follow() -> None:
    served = await a_world()
    served.apply(minReadySeconds=1)
    await roll_back(served)
    assert served.champion == "4"
    assert served.condition("Ready") == ("False", "RolledBack")


async def test_the_alias_stays_where_the_same_version_was_put_back_for_its_spec() -> None:
    served = await a_world()
    served.fates["3"] = world.loading
    served.apply(resources={"limits": {"cpu": "7"}})
    await served.settle()
    await served.pass_time(61)
    assert served.condition("Ready") == ("False", "RolledBack")
    assert not [errand for errand in served.said if isinstance(errand, AliasMove)]


async def test_a_registry_that_is_down_is_told_later_by_whoever_works_then() -> None:
    served = await a_world()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    served.lose_registry()
    await served.pass_time(61)
    assert served.condition("Available") == ("True", "Serving")
    assert served.status["history"][0]["registry"]["aliasMove"] == "Pending"
    served.cluster.writes.clear()
    await served.settle()
    assert not served.cluster.writes, "what is pending is no reason to write"
    served.restart()
    served.move_alias("4")
    await served.settle()
    assert served.tags["4"]["moorage.rollout"] == "failed"
    assert served.champion == "3"
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_registry_that_takes_no_tags_is_told_of_once() -> None:
    served = World()
    served.registry_refuses = "registry 'default' forbids the operator's user to change this model"
    served.move_alias("3")
    served.apply(rollout={})
    await served.settle()
    for version in ("4", "5"):
        served.move_alias(version)
        await served.settle()
    assert [notice["tags"] for notice in notices(served) if notice] == ["Failed"] * 3
    assert len(notes(served, "RegistryNotTold")) == 1
    assert served.condition("Ready") == ("True", "Promoted")
    assert len(served.said) == 3
    served.registry_refuses = ""
    served.move_alias("6")
    await served.settle()
    served.registry_refuses = "forbidden again"
    served.move_alias("7")
    await served.settle()
    assert len(notes(served, "RegistryNotTold")) == 2


async def test_an_alias_that_may_not_be_moved_is_told_and_stays() -> None:
    served = await a_world()
    served.registry_refuses = "forbidden"
    await roll_back(served)
    assert notes(served, "AliasNotMoved") == ["alias champion of detector stays where it is: forbidden"]
    assert served.condition("Ready") == ("False", "RolledBack")
    said = len(served.said)
    await served.pass_time(400)
    assert len(served.said) == said


async def test_a_read_only_registry_is_told_nothing() -> None:
    endpoint = RegistryEndpoint("http://mlflow", read_only=True)
    served = await a_world(platform=replace(PLATFORM, registries={"default": endpoint}))
    await roll_back(served)
    assert not served.said
    assert not notes(served, "RegistryNotTold")
    assert notes(served, "AliasNotMoved") == [
        "alias champion of detector stays where it is: the registry default is declared with readOnly: true"
    ]


async def test_nothing_is_told_while_suspended() -> None:
    served = await a_world()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    served.lose_registry()
    await served.pass_time(61)
    served.apply(suspend=True)
    served.move_alias("4")
    await served.settle()
    assert "4" not in served.tags
    served.apply(suspend=False)
    await served.settle()
    assert (served.champion, served.tags["4"]["moorage.rollout"]) == ("3", "failed")


@pytest.mark.parametrize("change", ["switched off", "another spec", "retry"])
async def test_an_alias_that_ought_not_to_move_any_more_when_the_registry_is_back_stays(change: str) -> None:
    served = await a_world()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    served.lose_registry()
    await served.pass_time(61)
    if change == "switched off":
        served.apply(rollout={})
    elif change == "another spec":
        served.apply(minReadySeconds=1)
    else:
        served.command(f"retry@{served.revision('4')}")
    await served.settle()
    served.move_alias("4")
    await served.settle()
    assert served.champion == "4"
    assert notices(served)[0] == {
        "name": "default", "model": "detector", "tags": "Done", "alias": "champion", "aliasBackTo": "3", "aliasMove": "Skipped"
    }  # fmt: skip


async def test_an_older_outcome_never_overwrites_a_newer_one() -> None:
    served = await a_world(rollout={"scaleDownDelaySeconds": 300})
    served.lose_registry()
    served.apply(resources={"limits": {"cpu": "2"}})
    await served.settle()
    assert served.condition("Ready")[1] == "Promoted"
    assert [notice["tags"] for notice in notices(served) if notice] == ["Pending", "Done"]
    served.apply(resources={"limits": {"cpu": "3"}})
    await served.settle()
    served.move_alias("3")
    await served.settle()
    assert [notice["tags"] for notice in notices(served) if notice] == ["Done", "Skipped", "Done"]


@pytest.mark.parametrize(("said", "shown"), [("a\x1b[31mb\nc", "a [31mb c"), ("x" * 5000, "x" * 999 + "…")])
def test_a_message_is_made_short_and_harmless(said: str, shown: str) -> None:
    assert told._shortened(said) == shown
