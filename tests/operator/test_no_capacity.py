"""No room for a new version beside the old one: what rollout.onNoCapacity makes of it, in a world with few GPUs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import world
from moorage_operator.core.kinds import AUTOSCALER, DEPLOYMENT, EVENT, MODEL_DEPLOYMENT, POD, Ref
from world import World

STEPS: list[Any] = [{"setWeight": 50}, {"pause": {"duration": 20}}, {"setWeight": 75}, {"pause": {"duration": 20}}]
ON_A_GPU = {"limits": {"nvidia.com/gpu": 1}}


async def served(gpus: int, mode: str, *, replicas: int = 4, **rollout: Any) -> World:
    """Version 3 answers with four pods; version 4 becomes the wanted one."""
    made = World()
    made.gpus = gpus
    made.move_alias("3")
    made.apply(replicas=replicas, resources=ON_A_GPU, rollout={"steps": STEPS, "onNoCapacity": mode} | rollout)
    await made.settle()
    made.move_alias("4")
    await made.settle()
    return made


async def by_and_by(made: World, seconds: int, *, every: int = 5) -> list[tuple[int, dict[str, int]]]:
    """What the canary's weight and the pods of each version were, as they changed."""
    seen: list[tuple[int, dict[str, int]]] = []
    for _ in range(0, seconds, every):
        await made.pass_time(every)
        now = (made.status.get("weights", {}).get("desired", -1), made.counts())
        if now not in seen[-1:]:
            seen.append(now)
    return seen


def notes(made: World, reason: str) -> list[str]:
    return [item["note"] for item in made.all(EVENT) if item["reason"] == reason]


async def test_to_wait_says_what_would_help_until_the_deadline() -> None:
    made = await served(5, "wait")
    assert made.condition("Ready") == ("False", "InsufficientGPU")
    assert made.message("Ready").endswith("; free some, or add a node, or set rollout.onNoCapacity")
    assert made.condition("Stalled") == ("absent", "")
    await made.pass_time(599)
    assert made.counts() == {"3": 4, "4": 2}
    await made.pass_time(2)
    assert made.condition("Ready") == ("False", "RolledBack")
    assert "no node has a free GPU" in made.message("Ready")
    assert not notes(made, "MadeRoom")
    assert "capacity" not in made.status


async def test_stable_gives_up_one_pod_after_the_other_as_its_requests_leave_it() -> None:
    made = await served(6, "shrinkStable")
    seen = await by_and_by(made, 200)
    assert seen == [
        (50, {"3": 4, "4": 2}),
        (50, {"3": 4, "4": 3}),
        (75, {"3": 3, "4": 3}),
        (75, {"3": 3, "4": 4}),
        (-1, {"3": 2, "4": 4}),
        (-1, {"3": 0, "4": 4}),
    ]
    assert made.condition("Ready") == ("True", "Promoted")
    assert len(notes(made, "MadeRoom")) == 2


async def test_what_stable_carries_it_keeps_and_says_so() -> None:
    made = await served(5, "shrinkStable")
    assert await by_and_by(made, 300) == [(0, {"3": 4, "4": 2})]
    assert made.message("Ready").endswith(" needs its 4 for its 100 %: free some, or add a node, or take smaller steps")


async def test_stable_has_its_pods_again_as_soon_as_the_canary_leaves() -> None:
    made = await served(
        6, "shrinkStable", steps=[{"setWeight": 50}, {"setCanaryScale": {"replicas": 4}}, {"pause": {}}]
    )
    await made.pass_time(10)
    await made.pass_time(10)
    assert made.counts() == {"3": 2, "4": 4}
    assert made.status["capacity"]["lentByStable"] == 2
    made.command(f"abort@{made.revision('4')}")
    await made.settle()
    assert made.counts() == {"3": 4, "4": 0}
    assert made.ready_pods(made.revision("3")) == 4
    assert "capacity" not in made.status


async def test_the_next_canary_takes_no_room_that_stable_waits_for() -> None:
    made = await served(
        6, "shrinkStable", steps=[{"setWeight": 50}, {"setCanaryScale": {"replicas": 4}}, {"pause": {}}]
    )
    await made.pass_time(10)
    await made.pass_time(10)
    made.move_alias("5")
    least = 4
    for _ in range(20):
        await made.reconcile()
        made.run_controllers()
        if "5" in made.counts():
            least = min(least, made.ready_pods(made.revision("3")))
    assert made.status["canary"]["modelVersion"] == "5"
    assert least == 4


async def test_a_new_operator_lends_no_pod_twice() -> None:
    made = await served(
        6, "shrinkStable", steps=[{"setWeight": 50}, {"setCanaryScale": {"replicas": 4}}, {"pause": {}}]
    )
    await made.pass_time(10)
    assert made.counts() == {"3": 3, "4": 4}
    made.restart()
    await made.settle()
    assert made.counts() == {"3": 3, "4": 4}


async def test_with_an_autoscaler_stable_shrinks_as_far_as_that_allows() -> None:
    made = await served(
        4, "shrinkStable", replicas=2, steps=[{"setWeight": 50}, {"setCanaryScale": {"replicas": 3}}, {"pause": {}}]
    )
    made.apply(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    await made.settle()
    assert made.autoscaler("3")["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": 15}
    ]
    assert made.autoscaler("4")["behavior"]["scaleDown"]["selectPolicy"] == "Disabled"
    assert made.message("Ready").endswith("gives up pods as far as its autoscaler allows")
    made.gpus = 9
    await made.settle()
    policies = {item["spec"]["behavior"]["scaleDown"]["selectPolicy"] for item in made.all(AUTOSCALER)}
    assert policies == {"Disabled"}


async def test_with_recreate_stable_ends_after_half_a_minute_without_room() -> None:
    made = await served(2, "recreate", replicas=2)
    assert made.message("Ready").endswith(" end at 2026-01-01T00:00:30Z to make room")
    await made.pass_time(29)
    assert made.counts() == {"3": 2, "4": 2}
    assert made.condition("Available") == ("True", "Serving")
    made.fates["4"] = world.loading
    await made.pass_time(1)
    assert made.counts() == {"3": 0, "4": 2}
    assert made.condition("Available") == ("False", "NoReadyPods")
    assert "to make room" in made.message("Available")
    [note] = notes(made, "MadeRoom")
    assert "nobody is answered until these are ready" in note
    del made.fates["4"]
    await made.settle()
    assert made.condition("Ready") == ("True", "Promoted")
    assert made.traffic() == "4"


async def test_a_rollback_starts_stable_again() -> None:
    made = await served(2, "recreate", replicas=2)
    made.fates["4"] = world.failing("ModelLoadFailed")
    await made.pass_time(30)
    assert made.counts() == {"3": 0, "4": 2}
    await made.pass_time(601)
    assert made.counts() == {"3": 2, "4": 0}
    assert made.condition("Available") == ("True", "Serving")
    assert made.condition("Ready") == ("False", "RolledBack")


async def test_a_process_that_died_after_it_moved_the_address_is_no_reason_to_go_back_to_nobody() -> None:
    made = World()
    made.move_alias("3")
    made.apply(replicas=2, rollout={"strategy": "recreate"}, traffic={"router": "replicas"})
    await made.settle()
    made.move_alias("4")

    def die(verb: str, ref: Ref) -> None:
        if ref.kind is MODEL_DEPLOYMENT and made.traffic() == "4":
            raise SystemExit("killed")

    made.cluster.before_write = die
    with pytest.raises(SystemExit):
        await made.settle()
    made.cluster.before_write = None
    assert made.status["weights"]["desired"] == 0
    # Until its controller has seen that, no pod of it counts as available.
    made.cluster.edit(made.ref(DEPLOYMENT, made.revision("4")), lambda manifest: manifest["spec"].update(paused=False))
    made.restart()
    seen: list[str] = []
    await made.settle(after_a_pass=lambda: seen.append(made.traffic()))
    assert set(seen) == {"4"}
    assert made.condition("Ready") == ("True", "Promoted")


async def test_a_newer_version_takes_no_requests_from_the_one_that_answers_alone() -> None:
    made = await served(2, "recreate", replicas=2)
    made.now += timedelta(seconds=30)
    while made.status["weights"]["desired"] == 0:
        await made.reconcile()
        made.run_controllers()
    made.move_alias("5")
    answering: list[int] = []
    await made.settle(after_a_pass=lambda: answering.append(made.ready_pods(made.revision("4"))))
    assert min(answering) == 2
    assert made.traffic() == "4"
    newest = made.status["history"][0]
    assert (newest["modelVersion"], newest["result"]) == ("4", "Promoted")


async def test_pods_end_only_after_the_status_says_why() -> None:
    """A process that died in between would find neither version with pods, and give the new one its steps' share of the requests."""
    made = await served(2, "recreate", replicas=2)
    told: list[bool] = []

    def note(verb: str, ref: Ref) -> None:
        if ref.kind is DEPLOYMENT and made.counts()["3"] == 0:
            told.append("capacity" in made.status and made.status["capacity"].get("stableEnded", False))

    made.cluster.after_write = note
    await made.pass_time(30)
    assert told
    assert all(told)


async def test_the_strategy_recreate_starts_no_pod_while_others_may_come_back() -> None:
    made = World()
    made.move_alias("3")
    made.apply(replicas=2, rollout={"strategy": "recreate"})
    await made.settle()
    for pod in made.of_models(POD):
        made.cluster.remove(made.ref(POD, pod["metadata"]["name"]))
    made.move_alias("4")
    seen: list[dict[str, int]] = []
    await made.settle(after_a_pass=lambda: seen.append(made.counts()))
    assert made.traffic() == "4"
    assert not [counts for counts in seen if counts["3"] and counts.get("4")]


async def test_room_that_comes_in_time_keeps_stable() -> None:
    made = await served(2, "recreate", replicas=2)
    await made.pass_time(20)
    made.gpus = 4
    made.run_controllers()
    await made.pass_time(20)
    assert made.condition("Available") == ("True", "Serving")
    assert not notes(made, "MadeRoom")
    assert made.status["weights"]["applied"] == 50


async def test_with_requests_a_canary_waits_for_room() -> None:
    made = await served(6, "recreate", steps=[{"setWeight": 50}, {"setCanaryScale": {"replicas": 4}}, {"pause": {}}])
    await made.pass_time(60)
    assert made.counts() == {"3": 4, "4": 4}
    assert made.message("Ready").endswith("; free some, or add a node")


@pytest.mark.parametrize("mode", ["shrinkStable", "recreate"])
async def test_what_stable_can_not_give_is_waited_for(mode: str) -> None:
    """The new version asks for what stable's pods do not hold: that they end would be no help."""
    made = World()
    made.gpus = 2
    made.move_alias("3")
    made.apply(replicas=2, rollout={"onNoCapacity": mode})
    await made.settle()
    made.apply(resources=ON_A_GPU)
    await made.settle()
    await made.pass_time(60)
    assert made.condition("Available") == ("True", "Serving")
    assert made.condition("Ready") == ("False", "InsufficientGPU")
    assert not notes(made, "MadeRoom")
