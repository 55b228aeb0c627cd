"""What changes while something else is under way: spec and alias at once, another version in the scale-down delay, an alias that flips."""

from __future__ import annotations

from datetime import timedelta

import pytest

import world
from moorage_operator.core.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD
from moorage_operator.core.state import MOST_OUTCOMES
from world import World

STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]


@pytest.fixture
async def served() -> World:
    """Version 3 answers; others come by steps."""
    made = World()
    made.move_alias("3")
    made.apply(replicas=4, rollout={"steps": STEPS, "scaleDownDelaySeconds": 300})
    await made.settle()
    return made


async def promote_fully(served: World, version: str) -> None:
    served.command(f"promoteFull@{served.revision(version)}")
    await served.settle()


def results(served: World) -> list[tuple[str, str]]:
    """The newest first."""
    return [(item["modelVersion"], item["result"]) for item in served.status["history"]]


def frozen(served: World) -> set[str]:
    return {item["metadata"]["name"] for item in served.all(CONTROLLER_REVISION)}


def limits(served: World, version: str) -> dict[str, str]:
    deployment = next(
        item for item in served.of_models(DEPLOYMENT) if item["metadata"]["name"] == served.revision(version)
    )
    found: dict[str, str] = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    return found


def shares(served: World) -> list[dict[str, float]]:
    """What each router sends to which version."""
    return [{served.version(name): share for name, share in held.items()} for held in served.agents.shares()]


# Another version in the scale-down delay.


@pytest.fixture
async def leaving(served: World) -> World:
    """Version 4 answers, version 5 has 25 %, and version 3 still has its pods."""
    served.move_alias("4")
    await served.settle()
    await promote_fully(served, "4")
    await served.pass_time(60)
    served.move_alias("5")
    await served.settle()
    return served


async def test_a_second_rollout_in_the_scale_down_delay_sends_nothing_to_the_version_that_leaves(
    leaving: World,
) -> None:
    assert leaving.counts() == {"3": 4, "4": 4, "5": 2}
    assert shares(leaving) == [{"4": 75, "5": 25}] * 2
    await leaving.pass_time(239)
    assert leaving.counts()["3"] == 4
    await leaving.pass_time(2)
    assert leaving.counts() == {"3": 0, "4": 4, "5": 2}
    assert shares(leaving) == [{"4": 75, "5": 25}] * 2


async def test_a_way_back_in_the_scale_down_delay_finds_the_pods_that_are_still_there(leaving: World) -> None:
    pods, made = {item["metadata"]["name"] for item in leaving.of_models(POD)}, frozen(leaving)
    leaving.move_alias("3")
    await leaving.settle()
    assert pods >= {item["metadata"]["name"] for item in leaving.of_models(POD)}
    assert frozen(leaving) == made
    assert shares(leaving) == [{"3": 100}] * 2
    assert leaving.counts() == {"3": 4, "4": 4, "5": 0}
    assert results(leaving)[:2] == [("3", "Promoted"), ("5", "Superseded")]
    await leaving.pass_time(301)
    assert leaving.counts() == {"3": 4, "4": 0, "5": 0}


async def test_pods_that_leave_end_although_the_clock_was_put_back_by_a_year(leaving: World) -> None:
    leaving.now -= timedelta(days=365)
    await leaving.settle()
    await leaving.pass_time(24 * 3600 + 1)
    assert leaving.counts() == {"3": 0, "4": 4, "5": 2}


# The spec and the alias at once.


async def test_spec_and_alias_that_change_at_rest_make_one_revision(served: World) -> None:
    before = frozen(served)
    served.apply(resources={"limits": {"cpu": "2"}})
    served.move_alias("4")
    await served.settle()
    assert len(frozen(served) - before) == 1
    assert limits(served, "4") == {"cpu": "2"}
    await promote_fully(served, "4")
    assert results(served) == [("4", "Promoted"), ("3", "Promoted")]
    assert shares(served) == [{"4": 100}] * 2


async def test_spec_and_alias_that_change_under_way_replace_the_canary_by_one_revision(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    before = frozen(served)
    served.apply(resources={"limits": {"cpu": "2"}})
    served.move_alias("5")
    await served.settle()
    assert len(frozen(served) - before) == 1
    assert served.counts() == {"3": 4, "4": 0, "5": 2}
    assert shares(served) == [{"3": 75, "5": 25}] * 2
    await promote_fully(served, "5")
    assert results(served) == [("5", "Promoted"), ("4", "Superseded"), ("3", "Promoted")]
    assert len(frozen(served) - before) == 1
    assert limits(served, "5") == {"cpu": "2"}


# An alias that flips.


async def flip(served: World, *, seconds: int, passes: int, pods_are_ready: bool) -> None:
    """To version 4 and back, fifty times: each flip is seen, and stands for so many seconds and passes."""
    for _ in range(50):
        for version in ("4", "3"):
            served.fates["4"] = world.ready if pods_are_ready else world.loading
            served.move_alias(version)
            served.now += timedelta(seconds=seconds)
            for _ in range(passes):
                await served.reconcile()
                served.run_controllers()


async def test_an_alias_that_flips_a_hundred_times_faster_than_pods_start_moves_no_request(served: World) -> None:
    before, told = frozen(served), served.events().count("WeightSet")
    await flip(served, seconds=1, passes=2, pods_are_ready=False)
    await served.settle()
    assert served.events().count("WeightSet") == told
    assert served.counts() == {"3": 4, "4": 0}
    assert len(frozen(served) - before) == 1
    assert len(results(served)) == MOST_OUTCOMES
    assert served.condition("Ready") == ("True", "Promoted")


async def test_an_alias_that_flips_a_hundred_times_is_followed_by_one_rollout_to_where_it_settles(
    served: World,
) -> None:
    before = frozen(served)
    await flip(served, seconds=40, passes=3, pods_are_ready=True)
    served.move_alias("4")
    await served.settle()
    begun = served.events().count("RevisionCreated")
    await promote_fully(served, "4")
    for _ in range(5):
        await served.pass_time(100)
    assert served.events().count("RevisionCreated") == begun
    assert len(frozen(served) - before) == 1
    assert results(served) == [("4", "Promoted"), *[("4", "Superseded")] * (MOST_OUTCOMES - 1)]
    assert served.counts() == {"3": 0, "4": 4}
    assert shares(served) == [{"4": 100}] * 2
