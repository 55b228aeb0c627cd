"""Scaling while a rollout is under way: by an autoscaler, and by hand as `kubectl scale` does it."""

from __future__ import annotations

from typing import Any

import pytest

import world
from moorage_operator.core.kinds import DEPLOYMENT
from world import World

STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}, {"setWeight": 90}, {"pause": {}}]
AUTOSCALED: dict[str, Any] = {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 100}}


async def rolling(*, pods: int = 4, **spec: Any) -> World:
    """Version 3 has so many pods, version 4 has 25 % of the requests and waits for somebody."""
    made = World()
    made.move_alias("3")
    made.apply(**{"rollout": {"steps": STEPS}} | spec)
    await made.settle()
    await load(made, "3", pods)
    made.move_alias("4")
    await made.settle()
    assert made.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    return made


async def promote(served: World) -> None:
    served.command(f"promote@{served.revision('4')}/{served.status['currentStepIndex']}")
    await served.settle()


async def load(served: World, version: str, pods: int) -> None:
    """So many pods are what the autoscaler of that version finds right."""
    ref = served.ref(DEPLOYMENT, served.revision(version))
    served.cluster.edit(ref, lambda manifest: manifest["spec"].update(replicas=pods), manager="autoscaler")
    await served.settle()


async def test_before_a_step_a_canary_gets_its_share_of_the_pods_that_carry_the_requests_by_then() -> None:
    served = await rolling(**AUTOSCALED)
    assert served.counts() == {"3": 4, "4": 2}
    await load(served, "3", 6)
    assert served.counts() == {"3": 6, "4": 2}
    served.gpus = 6 + 2
    await promote(served)
    assert served.autoscaler("4")["minReplicas"] == 4, "half of the six and the two that were ready"
    assert served.status["weights"]["desired"] == 25
    served.gpus = None
    await served.settle()
    assert served.status["weights"] == {"desired": 50, "applied": 50, "verified": True}
    assert served.counts() == {"3": 6, "4": 4}


async def test_the_pods_that_a_canary_gets_for_a_step_ask_for_no_more_of_them() -> None:
    served = await rolling(pods=10, **AUTOSCALED)
    seen = [served.counts()]
    for _ in range(3):
        await promote(served)
        seen.append(served.counts())
    assert seen == [{"3": 10, "4": count} for count in (3, 6, 11, 13)]


async def test_what_the_autoscalers_added_under_way_is_there_for_all_of_the_requests() -> None:
    served = await rolling(**AUTOSCALED)
    await promote(served)
    await load(served, "3", 6)
    await load(served, "4", 6)
    served.command(f"promoteFull@{served.revision('4')}")
    await served.settle()
    assert served.traffic() == "4"
    assert served.counts()["4"] == 12


async def test_a_new_operator_counts_the_pods_of_a_step_as_the_one_before() -> None:
    served = await rolling(**AUTOSCALED)
    await promote(served)
    served.gpus = 4 + 3
    await promote(served)
    assert served.status["weights"]["desired"] == 50
    before = served.counts()
    served.restart()
    await served.settle()
    served.gpus = None
    await served.settle()
    assert served.counts() == before


@pytest.mark.parametrize("replicas", [8, 2, 5])
async def test_both_versions_follow_who_scales_at_a_pause(replicas: int) -> None:
    """The scale subresource of a ModelDeployment is its spec.replicas."""
    served = await rolling(replicas=4)
    await promote(served)
    served.apply(replicas=replicas)
    await served.reconcile()
    assert served.counts() == {"3": replicas, "4": max(2, -(-replicas // 2))}
    await served.settle()
    assert served.status["weights"] == {"desired": 50, "applied": 50, "verified": True}
    served.command(f"promoteFull@{served.revision('4')}")
    await served.pass_time(0)
    await served.pass_time(31)
    assert served.counts() == {"3": 0, "4": replicas}


async def test_up_and_down_again_at_a_pause() -> None:
    served = await rolling(replicas=4)
    await promote(served)
    seen = []
    for replicas in (8, 2):
        served.apply(replicas=replicas)
        await served.settle(after_a_pass=lambda: seen.append(served.counts()["3"]))
        assert served.counts()["4"] == max(2, replicas // 2)
    assert set(seen) == {8, 2}


async def test_to_zero_and_back_at_a_pause_puts_nothing_back() -> None:
    served = await rolling(replicas=4)
    served.apply(replicas=0)
    await served.settle()
    assert served.counts() == {"3": 0, "4": 0}
    served.fates["4"] = world.loading
    served.apply(replicas=4)
    await served.settle()
    assert served.condition("Ready") == ("False", "Paused")
    del served.fates["4"]
    await served.settle()
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    assert served.counts() == {"3": 4, "4": 2}
    served.fates["4"] = world.loading
    await served.settle()
    assert served.message("Ready").startswith("version 4 was put back"), "it has lost them"
