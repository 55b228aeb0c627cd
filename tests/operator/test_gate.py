"""The signature gate in a whole small world: who can't be used by stable's callers never gets a request, and is told why."""

from __future__ import annotations

import json
from typing import Any

import pytest

import world
from moorage_operator.core import names
from moorage_operator.core.kinds import AUTOSCALER, CONFIG_MAP, EVENT
from world import World, registered

SCHEMA = {"inputs": [["amount", "double"]], "outputs": [["score", "double"]]}
WIDER = {"inputs": [["amount", "double"], ["note", "string?"]], "outputs": [["score", "double"], ["why", "string"]]}
RENAMED = {"inputs": [["sum", "double"]], "outputs": [["score", "double"]]}
OTHER = {"inputs": [["amount", "string"]], "outputs": []}
TO_TESTERS = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}}
STEPS: list[Any] = [TO_TESTERS, {"setWeight": 25}, {"pause": {}}]


@pytest.fixture
async def served() -> World:
    """Version 3 answers, and tells its signature."""
    made = World()
    made.fates["3"] = world.fetched(SCHEMA)
    made.move_alias("3")
    made.apply(replicas=2, rollout={"steps": STEPS, "shadow": {"percent": 10}})
    await made.settle()
    return made


async def follow(served: World, schema: dict[str, Any] | None, *, then: world.Fate = world.ready) -> None:
    """Version 4, with that signature, becomes the wanted one."""
    served.fates["4"] = world.fetched(schema, then=then)
    served.move_alias("4")
    await served.settle()


def pin(served: World, version: str) -> dict[str, str]:
    data: dict[str, str] = next(
        item["data"] for item in served.all(CONFIG_MAP) if item["metadata"]["name"] == served.revision(version)
    )
    return data


def told(served: World) -> list[str]:
    return [item["note"] for item in served.all(EVENT) if item["reason"] == "SignaturePassedOver"]


async def test_one_that_callers_can_not_use_is_put_back_before_anybody_gets_it(served: World) -> None:
    await follow(served, OTHER)
    why = (
        "the signature is not compatible: input `amount` was double and is string; output `score` is gone; "
        "set rollout.signature: any to go on all the same"
    )
    assert served.status["rejected"][0] | {"revision": "", "trial": ""} == {
        "modelVersion": "4",
        "revision": "",
        "trial": "",
        "reason": "SignatureIncompatible",
        "message": why,
    }
    assert why in served.message("Ready")
    assert served.condition("Ready") == ("False", "RolledBack")
    assert served.condition("Available") == ("True", "Serving")
    assert not {"WeightSet", "RoutesSet"} & set(served.events()), "somebody got it"
    assert "shadow" not in served.status
    await served.pass_time(31)
    assert served.counts() == {"3": 2, "4": 0}


async def test_it_need_not_be_ready_for_that(served: World) -> None:
    await follow(served, RENAMED, then=world.loading)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"


async def test_one_that_takes_and_gives_more_goes_on(served: World) -> None:
    await follow(served, WIDER)
    assert served.status["canary"]["signature"] == "compatible"
    assert served.status["weights"]["applied"] == 25
    assert not told(served)


async def test_any_lets_it_through_and_says_so_once(served: World) -> None:
    served.apply(rollout={"steps": STEPS, "signature": "any"})
    await follow(served, RENAMED)
    what = "not compatible: input `amount` is gone; input `sum` is new and required"
    assert served.status["canary"]["signature"] == what
    assert served.status["weights"]["applied"] == 25
    await served.pass_time(400)
    assert told(served) == [f"the signature of version 4 is {what}"]


async def test_who_was_put_back_is_tried_again_when_any_is_set(served: World) -> None:
    await follow(served, RENAMED)
    served.apply(rollout={"steps": STEPS, "signature": "any"})
    await served.settle()
    assert "rejected" not in served.status
    assert served.status["weights"]["applied"] == 25


async def test_signatures_are_pinned_and_outlive_pods_and_the_operator(served: World) -> None:
    assert json.loads(pin(served, "3")["signature"])["inputs"] == [["amount", "double"]]
    served.fates["3"] = lambda: world.ready() | {"initContainerStatuses": []}
    served.run_controllers()
    served.restart()
    await follow(served, RENAMED)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"


async def test_what_a_runtime_of_before_did_not_tell_is_not_judged(served: World) -> None:
    await follow(served, None)
    words = "not compared: the runtime of version 4 did not tell its signature"
    assert served.status["canary"]["signature"] == words
    assert served.status["weights"]["applied"] == 25
    assert told(served) == [f"the signature of version 4 is {words}"]
    assert "signature" not in pin(served, "4")


async def test_one_that_is_too_large_may_only_be_the_same(served: World) -> None:
    await follow(served, {})
    assert "another one, and too large to be compared; set rollout" in served.status["rejected"][0]["message"]


async def test_going_back_is_never_refused(served: World) -> None:
    served.apply(rollout={"signature": "any"})
    await follow(served, RENAMED)
    await served.pass_time(31)
    assert served.status["stable"]["modelVersion"] == "4"
    served.apply(rollout={})
    served.command(f"undo@{served.revision('3')}")
    await served.settle()
    assert served.status["stable"]["modelVersion"] == "3"


async def test_the_alias_that_moves_back_at_once_is_not_refused(served: World) -> None:
    served.apply(rollout={"signature": "any"})
    await follow(served, RENAMED)
    assert served.status["stable"]["modelVersion"] == "4"
    served.apply(rollout={})
    served.move_alias("3")
    await served.settle()
    assert served.status["stable"]["modelVersion"] == "3"
    assert names.COMMAND not in served.message("Ready")


@pytest.mark.parametrize("strategy", ["blueGreen", "recreate"])
async def test_it_holds_for_every_strategy(served: World, strategy: str) -> None:
    served.apply(rollout={"strategy": strategy})
    await follow(served, RENAMED)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert served.traffic() == "3"
    assert served.condition("Available") == ("True", "Serving")


# The first pod of a canary is alone until it has told.


def fetching() -> dict[str, Any]:
    """Of a pod whose fetch container has not ended yet."""
    return {
        "conditions": [{"type": "Ready", "status": "False"}],
        "initContainerStatuses": [{"name": "fetch", "state": {"running": {}}}],
    }


async def test_no_second_pod_is_made_before_the_first_has_told(served: World) -> None:
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 2, "4": 1}
    assert served.status["canary"]["isHeldBack"] is True
    await follow(served, WIDER, then=world.loading)
    assert served.counts() == {"3": 2, "4": 2}, "all others start when it has fetched, not when it is ready"
    assert "isHeldBack" not in served.status["canary"]


async def test_one_that_callers_can_not_use_never_had_a_second_pod(served: World) -> None:
    served.apply(replicas=4)
    await served.settle()
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, served.counts().get("4", 0))

    served.fates["4"] = world.fetched(OTHER)
    served.move_alias("4")
    await served.settle(after_a_pass=look)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert most == 1


NOT_HELD: dict[str, dict[str, Any]] = {
    "any signature is good": {"rollout": {"steps": STEPS, "signature": "any"}},
    "stable ends first": {"rollout": {"strategy": "recreate"}},
}


@pytest.mark.parametrize("spec", NOT_HELD.values(), ids=NOT_HELD)
async def test_where_nothing_depends_on_it_all_pods_start_at_once(served: World, spec: dict[str, Any]) -> None:
    served.apply(**spec)
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    assert served.counts()["4"] == 2


async def test_the_first_revision_starts_with_all_pods() -> None:
    made = World()
    made.fates["3"] = fetching
    made.move_alias("3")
    made.apply(replicas=2)
    await made.settle()
    assert made.counts() == {"3": 2}


async def test_beside_a_stable_version_that_never_told_all_pods_start_at_once() -> None:
    made = World()
    made.move_alias("3")
    made.apply(replicas=2)
    await made.settle()
    made.fates["4"] = fetching
    made.move_alias("4")
    await made.settle()
    assert made.counts()["4"] == 2


async def test_a_pod_that_is_ready_without_a_word_is_waited_for_no_longer(served: World) -> None:
    served.fates["4"] = lambda: world.ready() | {"initContainerStatuses": []}
    served.move_alias("4")
    await served.settle()
    assert served.counts()["4"] == 2
    assert served.status["weights"]["applied"] == 25


async def test_an_autoscaler_comes_when_all_pods_may(served: World) -> None:
    served.apply(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4}, rollout={})
    await served.settle()
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    autoscaled = {item["spec"]["scaleTargetRef"]["name"] for item in served.all(AUTOSCALER)}
    assert autoscaled == {served.revision("3")}
    assert served.counts()["4"] == 1
    await follow(served, WIDER, then=world.loading)
    assert served.counts()["4"] == 2
    assert {item["spec"]["scaleTargetRef"]["name"] for item in served.all(AUTOSCALER)} == autoscaled | {
        served.revision("4")
    }


async def test_blue_and_green_has_all_pods_before_it_takes_over(served: World) -> None:
    served.apply(rollout={"strategy": "blueGreen"})
    await follow(served, WIDER, then=world.loading)
    assert served.counts() == {"3": 2, "4": 2}
    assert served.traffic() == "3"
    await follow(served, WIDER)
    assert served.traffic() == "4"


async def test_the_time_for_the_first_pod_is_not_taken_from_the_others(served: World) -> None:
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    await served.pass_time(500)
    await follow(served, WIDER, then=world.loading)
    await served.pass_time(500)
    assert "rejected" not in served.status
    await served.pass_time(101)
    assert served.status["rejected"][0]["reason"] == "ProgressDeadlineExceeded"


async def test_a_first_pod_that_never_tells_is_put_back_in_time(served: World) -> None:
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    await served.pass_time(601)
    assert served.status["rejected"][0]["reason"] == "ProgressDeadlineExceeded"


# Where the registry tells the signature, there is nothing to wait for.


async def test_one_that_callers_can_not_use_by_the_registry_never_has_a_pod(served: World) -> None:
    served.signatures["4"] = registered(OTHER)
    await follow(served, OTHER)
    why = (
        "the signature is not compatible: input `amount` was double and is string; output `score` is gone; "
        "set rollout.signature: any to go on all the same"
    )
    assert served.counts() == {"3": 2}, "it has a Deployment"
    [rejected] = served.status["rejected"]
    assert (rejected["modelVersion"], rejected["message"]) == ("4", why)
    assert served.condition("Ready") == ("False", "RolledBack")
    assert served.condition("Available") == ("True", "Serving")
    assert served.events().count("RolledBack") == 1
    assert served.status["history"][0]["result"] == "RolledBack"
    assert served.tags["4"]["moorage.rollout"] == "failed"
    await served.pass_time(400)
    assert served.counts() == {"3": 2}
    assert len(served.status["history"]) == 2


async def test_it_is_tried_again_with_all_pods_when_any_is_set_and_not_before(served: World) -> None:
    served.signatures["4"] = registered(RENAMED)
    await follow(served, RENAMED)
    served.command(f"retry@{served.status['rejected'][0]['revision']}")
    await served.settle()
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert served.counts() == {"3": 2}
    served.apply(rollout={"steps": STEPS, "signature": "any"})
    await served.settle()
    assert "rejected" not in served.status
    assert served.status["weights"]["applied"] == 25


async def test_one_that_is_compatible_by_the_registry_starts_with_all_pods(served: World) -> None:
    served.signatures["4"] = registered(WIDER)
    served.fates["4"] = fetching
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 2, "4": 2}
    assert "isHeldBack" not in served.status["canary"]


async def test_what_its_pods_tell_is_judged_all_the_same(served: World) -> None:
    served.signatures["4"] = registered(WIDER)
    await follow(served, RENAMED)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert not {"WeightSet", "RoutesSet"} & set(served.events())


async def test_stable_need_not_end_for_one_that_can_not_take_over(served: World) -> None:
    served.apply(rollout={"strategy": "recreate"})
    await served.settle()
    served.signatures["4"] = registered(RENAMED)
    fewest = 2

    def look() -> None:
        nonlocal fewest
        fewest = min(fewest, served.counts()["3"])

    served.fates["4"] = world.fetched(RENAMED)
    served.move_alias("4")
    await served.settle(after_a_pass=look)
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert fewest == 2


async def test_one_that_has_not_left_yet_is_refused_and_leaves_in_its_time(served: World) -> None:
    served.apply(rollout={"steps": STEPS, "signature": "any", "abortScaleDownDelaySeconds": 60})
    await follow(served, RENAMED)
    revision = served.revision("4")
    served.command(f"abort@{revision}")
    await served.settle()
    served.apply(rollout={"steps": STEPS})
    served.command(f"retry@{revision}")
    await served.settle()
    assert served.status["rejected"][0]["reason"] == "SignatureIncompatible"
    assert served.counts() == {"3": 2, "4": 2}
    await served.pass_time(61)
    assert served.counts() == {"3": 2, "4": 0}


async def test_going_back_is_not_refused_by_what_the_registry_tells(served: World) -> None:
    served.signatures |= {"3": registered(SCHEMA), "4": registered(RENAMED)}
    served.apply(rollout={"signature": "any"})
    await follow(served, RENAMED)
    served.apply(rollout={})
    served.move_alias("3")
    await served.settle()
    assert served.status["stable"]["modelVersion"] == "3"
