"""Pods that have ended, or that nobody can end any more, and whose objects stay: of an eviction, of a node that is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import world
from moorage_operator.core.kinds import POD
from world import World

STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
ON_A_GPU = {"limits": {"nvidia.com/gpu": 1}}

LEFTOVERS: dict[str, Callable[[World, str], None]] = {
    "evicted": World.evict,
    # What the kubelet writes where the process did as it was told, and ended well.
    "drained": lambda made, version: made.evict(version, phase="Succeeded"),
    "lost with its node": World.lose_node,
}
leftovers = pytest.mark.parametrize("leave_one", LEFTOVERS.values(), ids=LEFTOVERS)


async def served(**spec: Any) -> World:
    """Version 3 answers with four pods."""
    made = World()
    made.move_alias("3")
    made.apply(**{"replicas": 4, "rollout": {"steps": STEPS}} | spec)
    await made.settle()
    return made


async def rolling(**spec: Any) -> World:
    """Version 4 has 25 %, and waits."""
    made = await served(**spec)
    made.move_alias("4")
    await made.settle()
    assert made.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    return made


def leftovers_of(made: World) -> int:
    return sum(map(world.is_leftover, made.all(POD)))


@leftovers
async def test_of_stable_it_is_no_pod_and_no_problem(leave_one: Callable[[World, str], None]) -> None:
    made = await served()
    leave_one(made, "3")
    await made.settle()
    assert leftovers_of(made) == 1
    assert made.status["replicas"] == made.status["stable"]["readyReplicas"] == 4
    assert {name: made.condition(name)[0] for name in ("Ready", "Available", "RuntimeAvailable")} == {
        "Ready": "True",
        "Available": "True",
        "RuntimeAvailable": "True",
    }


@leftovers
async def test_of_a_canary_it_puts_nothing_back_and_holds_nothing_up(leave_one: Callable[[World, str], None]) -> None:
    made = await rolling()
    leave_one(made, "4")
    await made.reconcile()
    await made.settle()
    for _ in range(2):
        made.command(f"promote@{made.revision('4')}/{made.status['currentStepIndex']}")
        await made.settle()
    assert leftovers_of(made) == 1
    assert made.counts()["4"] == made.status["stable"]["readyReplicas"] == 4
    assert [item["result"] for item in made.status["history"]] == ["Promoted", "Promoted"]
    await made.pass_time(31)
    assert made.counts() == {"3": 0, "4": 4}


async def test_what_is_counted_lacks_nothing_because_it_is_not_asked() -> None:
    made = await rolling(traffic={"router": "replicas"}, replicas=3)
    made.evict("3")
    await made.settle()
    await made.pass_time(15)
    rollout = made.meter._rollouts[world.KEY]
    latest = rollout.latest or rollout.base
    assert latest
    assert latest.all_answered


@leftovers
async def test_of_a_revision_that_leaves_it_keeps_nobody_waiting(leave_one: Callable[[World, str], None]) -> None:
    made = await rolling()
    leave_one(made, "4")
    await made.settle()
    made.move_alias("5")
    await made.settle()
    assert made.counts() == {"3": 4, "4": 0, "5": 2}
    assert made.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    assert "leaving" not in made.status


@pytest.mark.parametrize(
    "rollout", [{"strategy": "recreate"}, {"onNoCapacity": "recreate"}], ids=["strategy", "no room"]
)
@leftovers
async def test_who_starts_when_the_old_pods_have_ended_does_not_wait_for_it(
    leave_one: Callable[[World, str], None], rollout: dict[str, Any]
) -> None:
    made = await served(resources=ON_A_GPU, rollout=rollout)
    leave_one(made, "3")
    await made.settle()
    made.gpus = 4
    made.move_alias("4")
    for _ in range(8):
        await made.pass_time(15)
    assert leftovers_of(made) == 1
    assert made.traffic() == "4"
    assert made.condition("Ready") == ("True", "Promoted")


async def test_a_pod_that_may_still_be_ending_is_waited_for() -> None:
    made = await served(rollout={"strategy": "recreate"})
    made.move_alias("4")
    made.lose_node("3")
    await made.settle()
    assert made.again_at == made.now + timedelta(seconds=30 + 60)
    await made.pass_time(30 + 59)
    assert made.counts() == {"3": 0}
    await made.pass_time(1)
    assert made.counts() == {"3": 0, "4": 4}


@leftovers
async def test_stable_makes_room_all_the_same(leave_one: Callable[[World, str], None]) -> None:
    made = await served(
        resources=ON_A_GPU,
        rollout={
            "onNoCapacity": "shrinkStable",
            "steps": [{"setWeight": 50}, {"setCanaryScale": {"replicas": 4}}, {"pause": {}}],
        },
    )
    leave_one(made, "3")
    await made.pass_time(120)
    made.gpus = 6
    made.move_alias("4")
    for _ in range(6):
        await made.pass_time(10)
    assert made.counts() == {"3": 2, "4": 4}


@leftovers
async def test_a_router_that_left_one_works(leave_one: Callable[[World, str], None]) -> None:
    made = await rolling()
    leave_one(made, "router")
    await made.settle()
    await made.pass_time(60)
    assert made.condition("TrafficProgrammed")[0] == "True"
    assert made.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
