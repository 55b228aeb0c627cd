"""Experiments in a whole small world: which arms start, what they get, and what is left of them when they go."""

from __future__ import annotations

import json
from typing import Any

import pytest

import world
from moorage_operator.core import names
from moorage_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, Manifest
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelRef, ModelVersion
from world import World

TESTERS = {"header": "x-group", "value": "beta"}


def an_arm(name: str = "challenger", weight: int = 10, **more: Any) -> Manifest:
    return {"name": name, "model": {"alias": name}, "weight": weight} | more


def point(served: World, alias: str, version: str) -> None:
    """As the registry does."""
    served.registry[ModelRef("detector", alias=alias)] = ModelVersion("detector", version, f"run-{version}", "s3://m")


def row(served: World) -> Manifest:
    """What the routers are told."""
    tables = [item for item in served.all(CONFIG_MAP) if "router.json" in item["data"]]
    found: Manifest = json.loads(tables[0]["data"]["router.json"])["models"]["fraud"]
    return found


def told(served: World) -> dict[str, tuple[str, int]]:
    """Version and percent of each arm, as the routers are told."""
    return {arm["name"]: (served.version(arm["revision"]), arm["weight"] // 100) for arm in row(served).get("arms", ())}


@pytest.fixture
async def served() -> World:
    """Version 3 answers with four pods; `challenger` is version 5, `other` 6."""
    made = World()
    made.move_alias("3")
    for alias, version in (("challenger", "5"), ("rival", "6")):
        point(made, alias, version)
    made.apply(replicas=4)
    await made.settle()
    return made


async def start(served: World, *arms: Manifest) -> None:
    served.apply(experiment={"arms": list(arms)} if arms else None)
    await served.settle()


async def test_arms_start_and_take_their_share(served: World) -> None:
    await start(served, an_arm(weight=10, match=TESTERS), an_arm("rival", 30, replicas=1))
    assert served.counts() == {"3": 4, "5": 2, "6": 1}
    assert told(served) == {"challenger": ("5", 10), "rival": ("6", 30)}
    assert row(served)["salt"] == "experiment"
    assert row(served)["arms"][0]["match"] == TESTERS
    assert served.status["weights"]["arms"] == [
        {"name": "challenger", "desired": 10, "applied": 10, "verified": True},
        {"name": "rival", "desired": 30, "applied": 30, "verified": True},
    ]
    assert served.condition("Ready") == ("True", "Promoted")
    arm = served.status["experiment"]["arms"][0]
    assert arm["modelVersion"] == "5"
    assert arm["readyReplicas"] == 2
    for kind in (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET):
        assert arm["revision"] in [item["metadata"]["name"] for item in served.all(kind)]
    deployment = next(item for item in served.all(DEPLOYMENT) if item["metadata"]["name"] == arm["revision"])
    assert deployment["metadata"]["labels"][names.TRACK] == "challenger"
    assert names.TRACK not in deployment["spec"]["template"]["metadata"]["labels"]


async def test_a_canary_takes_its_weight_of_what_the_arms_leave(served: World) -> None:
    await start(served, an_arm(weight=20))
    served.apply(rollout={"steps": [{"setWeight": 50}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    weights = served.status["weights"]
    assert (weights["desired"], weights["applied"], weights["verified"]) == (50, 50, True)
    assert told(served) == {"challenger": ("5", 20)}
    assert served.counts() == {"3": 4, "4": 2, "5": 2}
    served.command(f"promote@{served.revision('4')}/1")
    await served.settle()
    await served.pass_time(31)
    assert served.traffic() == "4"
    assert told(served) == {"challenger": ("5", 20)}
    assert served.counts() == {"3": 0, "4": 4, "5": 2}
    assert served.status["weights"] == {
        "arms": [{"name": "challenger", "desired": 20, "applied": 20, "verified": True}]
    }


async def test_an_alias_that_moves_changes_the_arm_when_the_next_version_is_ready_and_known(served: World) -> None:
    await start(served, an_arm())
    served.fates["7"] = world.loading
    point(served, "challenger", "7")
    await served.settle()
    assert told(served) == {"challenger": ("5", 10), "challenger-next": ("7", 0)}
    assert served.counts() == {"3": 4, "5": 2, "7": 2}
    del served.fates["7"]
    served.run_controllers()
    served.agents.deaf = {"*"}
    await served.settle()
    assert told(served)["challenger"] == ("7", 10), "its pods are known to the routers, which hold the row before"
    served.agents.deaf.clear()
    await served.pass_time(1)
    assert told(served) == {"challenger": ("7", 10)}
    assert served.counts() == {"3": 4, "5": 2, "7": 2}, "who answered just now stays for a while"
    await served.pass_time(31)
    assert served.counts() == {"3": 4, "5": 0, "7": 2}


async def test_an_arm_that_does_not_load_gets_nothing_and_holds_up_nobody(served: World) -> None:
    served.fates["5"] = world.failing("ModelLoadFailed", "it is no model")
    await start(served, an_arm(match=TESTERS), an_arm("rival", 20))
    assert told(served) == {"challenger": ("5", 0), "rival": ("6", 20)}
    assert "match" not in row(served)["arms"][0]
    assert "it is no model" in served.status["experiment"]["arms"][0]["problem"]
    assert "ArmInTrouble" in served.events()
    assert served.condition("Ready") == ("True", "Promoted")
    served.move_alias("4")
    await served.settle()
    assert served.traffic() == "4"
    assert served.condition("Ready") == ("True", "Promoted")


async def test_an_alias_that_nobody_has_set_is_told(served: World) -> None:
    served.registry[ModelRef("detector", alias="nobody")] = Problem(Reason.ALIAS_NOT_FOUND, "no alias nobody")
    await start(served, an_arm("nobody"))
    assert served.status["experiment"]["arms"] == [{"name": "nobody", "problem": "no alias nobody", "readyReplicas": 0}]
    assert "arms" not in row(served)
    assert served.status["weights"] == {"arms": [{"name": "nobody", "desired": 10, "applied": 0, "verified": False}]}
    point(served, "nobody", "7")
    await served.pass_time(1)
    assert told(served) == {"nobody": ("7", 10)}
    assert "problem" not in served.status["experiment"]["arms"][0]


async def test_an_arm_that_is_taken_out_gets_nothing_before_its_pods_end(served: World) -> None:
    await start(served, an_arm(match=TESTERS), an_arm("rival", 20))
    served.agents.deaf = {"*"}
    await start(served, an_arm("rival", 20))
    assert told(served) == {"challenger": ("5", 0), "rival": ("6", 20)}, "the routers have not said that they hold it"
    await served.pass_time(100)
    assert served.counts()["5"] == 2
    served.agents.deaf.clear()
    await served.settle()
    assert told(served) == {"rival": ("6", 20)}
    assert served.counts()["5"] == 2
    await served.pass_time(31)
    assert served.counts() == {"3": 4, "5": 0, "6": 2}
    await start(served)
    await served.pass_time(31)
    assert "arms" not in row(served)
    assert "experiment" not in served.status
    assert "weights" not in served.status
    assert served.counts() == {"3": 4, "5": 0, "6": 0}


async def test_who_comes_later_moves_nobody_who_was_there(served: World) -> None:
    await start(served, an_arm("rival", 20))
    await start(served, an_arm(), an_arm("rival", 20))
    assert list(told(served)) == ["rival", "challenger"]


async def test_an_arm_of_the_version_that_answers_has_no_pods_of_its_own(served: World) -> None:
    point(served, "challenger", "3")
    await start(served, an_arm(weight=40))
    assert served.counts() == {"3": 4}
    assert told(served) == {"challenger": ("3", 40)}
    served.move_alias("4")
    await served.settle()
    await served.pass_time(31)
    assert served.traffic() == "4"
    assert served.counts() == {"3": 2, "4": 4}, "the arm goes on with what it needs"
    await start(served)
    await served.pass_time(31)
    assert served.counts() == {"3": 0, "4": 4}


async def test_resources_of_its_own_make_another_revision(served: World) -> None:
    point(served, "challenger", "3")
    await start(served, an_arm(resources={"limits": {"cpu": "2"}}))
    arm = served.status["experiment"]["arms"][0]
    assert arm["revision"] != served.status["stable"]["revision"]
    deployment = next(item for item in served.all(DEPLOYMENT) if item["metadata"]["name"] == arm["revision"])
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "2"}


async def test_beside_an_autoscaler_an_arm_follows_the_pods_of_stable(served: World) -> None:
    served.apply(replicas=None, autoscaling={"minReplicas": 4, "maxReplicas": 8})
    await start(served, an_arm(weight=75))
    assert served.counts() == {"3": 4, "5": 3}
    await start(served)
    await served.pass_time(31)
    assert served.counts() == {"3": 4, "5": 0}


async def test_a_new_operator_goes_on_with_the_arms_as_they_are(served: World) -> None:
    await start(served, an_arm(match=TESTERS), an_arm("rival", 20))
    served.cluster.writes.clear()
    served.restart()
    await served.settle()
    assert not served.cluster.writes
    served.registry[ModelRef("detector", alias="rival")] = Problem(Reason.REGISTRY_UNREACHABLE, "no answer")
    served.restart()
    await served.settle()
    assert told(served) == {"challenger": ("5", 10), "rival": ("6", 20)}


async def count(served: World, *, ticks: int, arm: int = 0, stable: int = 0, told: int = -1) -> None:
    """A minute each; `arm` and `stable` are how many of 100 requests of each fail, `told` how many of 50 words say "wrong"."""
    answering, tested = served.status["stable"]["revision"], served.revision("5")
    for _ in range(ticks):
        if "winner" in served.status["experiment"]:
            return
        served.agents.traffic.send("challenger", tested, 100, bad=arm)
        served.agents.traffic.send("stable", answering, 100, bad=stable)
        if told >= 0:
            served.agents.traffic.tell(tested, "challenger", right=50 - told, wrong=told)
            served.agents.traffic.tell(answering, "stable", right=30, wrong=20)
        await served.pass_time(60)


def verdicts(served: World) -> dict[str, str]:
    return {item["metric"]: item["verdict"] for item in served.status["experiment"]["arms"][0].get("verdicts", ())}


async def test_an_arm_that_fails_more_is_shown_to_be_worse_without_any_rollout(served: World) -> None:
    await start(served, an_arm())
    await served.pass_time(1)
    await count(served, ticks=4, arm=20, stable=2)
    assert verdicts(served) == {"errors": "noDifferenceShown", "wrong": "noDifferenceShown"}, "bursts are seen first"
    await count(served, ticks=6, arm=20, stable=2)
    arm = served.status["experiment"]["arms"][0]
    assert verdicts(served) == {"errors": "worse", "wrong": "noDifferenceShown"}
    assert arm["verdicts"][0]["low"] > 1
    assert arm["errors"] == arm["requests"] // 5 > 100
    assert "ArmJudged" in served.events()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_an_arm_that_is_told_to_be_right_more_often_is_shown_to_be_better(served: World) -> None:
    await start(served, an_arm())
    await served.pass_time(1)
    await count(served, ticks=16, told=5)
    assert verdicts(served)["wrong"] == "better"


async def test_what_is_slow_is_judged_where_a_guard_says_what_that_is(served: World) -> None:
    guards = [{"name": "slow", "latency": {"maxSeconds": 0.2}}]
    served.apply(rollout={"analysis": {"guards": guards}})
    await start(served, an_arm())
    await served.pass_time(1)
    for _ in range(16):
        served.agents.traffic.send("challenger", served.revision("5"), 100, slow=40)
        served.agents.traffic.send("stable", served.revision("3"), 100, slow=2)
        await served.pass_time(60)
    assert verdicts(served)["slow"] == "worse"


async def test_a_new_operator_keeps_what_was_shown_and_another_version_begins_anew(served: World) -> None:
    await start(served, an_arm())
    await served.pass_time(1)
    await count(served, ticks=12, arm=20, stable=2)
    before = served.status["experiment"]
    served.restart()
    await served.settle()
    await served.pass_time(60)
    assert served.status["experiment"] == before
    await count(served, ticks=2, arm=20, stable=2)
    assert served.status["experiment"]["arms"][0]["requests"] > before["arms"][0]["requests"]
    served.move_alias("4")
    await served.settle()
    await served.pass_time(31)
    assert verdicts(served) == {}
    assert "requests" not in served.status["experiment"]["arms"][0]


async def test_while_a_canary_is_judged_the_arms_are_as_well(served: World) -> None:
    await start(served, an_arm())
    served.apply(rollout={"steps": [{"setWeight": 50}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    await served.pass_time(61)
    await count(served, ticks=3)
    assert served.status["experiment"]["arms"][0]["requests"] > 0
    assert served.status["canary"]["modelVersion"] == "4"


@pytest.mark.parametrize("killed", [False, True])
async def test_a_winner_takes_over_by_the_steps_until_the_alias_moves(served: World, killed: bool) -> None:
    served.apply(rollout={"steps": [{"setWeight": 50}, {"pause": {}}]})
    served.apply(experiment={"winner": "promote", "arms": [an_arm()]})
    await served.settle()
    await served.pass_time(1)
    await count(served, ticks=16, told=5)
    assert served.status["canary"]["modelVersion"] == "5"
    assert served.status["experiment"]["winner"]["arm"] == "challenger"
    assert "ArmWon" in served.events()
    if killed:
        served.restart()
    served.command(f"promote@{served.revision('5')}/1")
    await served.pass_time(31)
    assert served.status["stable"]["modelVersion"] == "5"
    assert served.condition("Ready") == ("True", "Promoted")
    await start(served)
    await served.pass_time(300)
    assert served.status["stable"]["modelVersion"] == "5", "who won goes on without the experiment"
    served.move_alias("4")
    await served.settle()
    assert served.status["canary"]["modelVersion"] == "4"
    assert "experiment" not in served.status


async def test_an_arm_that_is_better_but_fails_more_does_not_win(served: World) -> None:
    served.apply(experiment={"winner": "promote", "arms": [an_arm()]})
    await served.settle()
    await served.pass_time(1)
    await count(served, ticks=16, told=5, arm=20, stable=2)
    assert verdicts(served) == {"errors": "worse", "wrong": "better"}
    assert "winner" not in served.status["experiment"]


async def test_without_arms_nobody_is_asked_any_more(served: World) -> None:
    await start(served, an_arm())
    await served.pass_time(1)
    assert served.meter._rollouts
    await start(served)
    await served.pass_time(31)
    assert not served.meter._rollouts
