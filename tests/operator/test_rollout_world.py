"""Rollouts in a whole small world: what callers, pods and the status see from the alias that moves to the version that answers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import world
from moorage_operator.core import names, routing
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    MODEL_DEPLOYMENT,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    Manifest,
)
from moorage_operator.core.routing import NAME
from world import World

ROUTERS = (DEPLOYMENT, DISRUPTION_BUDGET, CONFIG_MAP, SERVICE_ACCOUNT, ROLE_BINDING)
STEPS = [{"setWeight": 25}, {"pause": {"duration": "1m"}}, {"setWeight": 50}, {"pause": {}}]


@pytest.fixture
async def served() -> World:
    """Version 3 answers with three pods; version 4 will come by steps."""
    made = World()
    made.move_alias("3")
    made.apply(replicas=4, rollout={"steps": STEPS})
    await made.settle()
    return made


@pytest.fixture
async def by_pods(served: World) -> World:
    """The same, without a router."""
    served.apply(replicas=3, traffic={"router": "replicas"})
    await served.settle()
    return served


async def test_a_canary_takes_over_step_by_step(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 4, "4": 2}
    assert [{served.version(name): share for name, share in shares.items()} for shares in served.agents.shares()] == [
        {"3": 75, "4": 25}
    ] * 2
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    assert served.status["pausedUntil"] == "2026-01-01T00:01:00Z"
    assert served.status["message"] == (
        "step 2 of 5: 25 % to version 4, the rest to version 3; until 2026-01-01T00:01:00Z"
    )
    await served.pass_time(11)
    await served.pass_time(50)
    assert served.counts() == {"3": 4, "4": 2}
    assert served.status["phase"] == "Paused"
    assert served.condition("Ready") == ("False", "Paused")
    command = f"{names.COMMAND}=promote@{served.revision('4')}/3"
    assert served.message("Ready").endswith(f"kubectl annotate --overwrite mdep fraud {command}")
    served.command(command.split("=")[1])
    await served.settle()
    assert served.counts() == {"3": 4, "4": 4}
    assert served.traffic() == "4"
    assert served.condition("Ready") == ("True", "Promoted")
    assert [item["result"] for item in served.status["history"]] == ["Promoted", "Promoted"]
    assert [reason for reason in served.events() if reason == "WeightSet"] == ["WeightSet"] * 3


async def test_a_router_is_made_again_for_a_model_that_comes_after_the_last_one_has_gone(served: World) -> None:
    served.cluster.remove(served.ref(MODEL_DEPLOYMENT))
    served.cluster.collect_garbage()
    assert served.all(SERVICE_ACCOUNT) == []
    served.apply(replicas=2)
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")
    assert served.all(SERVICE_ACCOUNT)


async def test_a_canary_that_loses_its_pods_is_put_back_and_stays_out(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    served.fates["4"] = world.failing("OutOfMemory", "no more memory")
    served.run_controllers()
    await served.settle()
    assert served.traffic() == "3"
    assert served.condition("Ready") == ("False", "RolledBack")
    assert served.condition("Available") == ("True", "Serving")
    assert served.condition("Stalled") == ("True", "RolledBack")
    assert "no more memory" in served.message("Ready")
    await served.pass_time(31)
    assert served.counts() == {"3": 4, "4": 0}
    del served.fates["4"]
    await served.pass_time(400)
    assert served.counts() == {"3": 4, "4": 0}
    served.command(f"retry@{served.revision('4')}")
    await served.settle()
    assert served.status["canary"]["modelVersion"] == "4"


async def test_another_version_may_come_after_one_that_was_put_back(served: World) -> None:
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    await served.pass_time(601)
    assert served.condition("Ready") == ("False", "RolledBack")
    served.move_alias("5")
    await served.settle()
    assert served.status["canary"]["modelVersion"] == "5"
    assert "rejected" not in served.status


@pytest.mark.parametrize(("is_ready", "reason"), [(True, "Paused"), (False, "RolledBack")])
async def test_a_canary_on_nodes_that_nobody_hears_of_is_not_lost(served: World, is_ready: bool, reason: str) -> None:
    """As the node controller calls them unready; a kubelet says of its containers, too, that they are not."""
    served.apply(rollout={"steps": [{"setWeight": 25}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    assert served.condition("Ready") == ("False", "Paused")
    served.fates["4"] = world.unready(ready=is_ready, state={"running": {}})
    served.run_controllers()
    await served.settle()
    del served.fates["4"]
    await served.settle()
    assert served.condition("Ready") == ("False", reason)


async def test_blue_green_has_a_preview_until_it_takes_over(served: World) -> None:
    served.apply(rollout={"strategy": "blueGreen", "blueGreen": {"autoPromote": False}})
    served.move_alias("4")
    await served.settle()
    preview = next(item for item in served.all(SERVICE) if item["metadata"]["name"] == "fraud-preview")
    assert preview["spec"]["selector"][names.REVISION] == served.revision("4")
    assert served.traffic() == "3"
    served.command(f"promote@{served.revision('4')}")
    await served.settle()
    assert served.traffic() == "4"
    assert "fraud-preview" not in services(served)


def services(served: World) -> list[str]:
    return [item["metadata"]["name"] for item in served.all(SERVICE)]


async def test_blue_green_takes_over_by_itself_when_all_its_pods_are_ready(served: World) -> None:
    served.apply(rollout={"strategy": "blueGreen", "blueGreen": {"autoPromote": True}})
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 4, "4": 4}
    assert served.traffic() == "3"
    assert "fraud-preview" in services(served)
    del served.fates["4"]
    await served.settle()
    assert served.traffic() == "4"
    assert served.condition("Ready") == ("True", "Promoted")
    assert "fraud-preview" not in services(served)


async def test_blue_green_makes_no_preview_that_nobody_wants(served: World) -> None:
    """One that somebody does not want any more goes."""
    served.apply(rollout={"strategy": "blueGreen", "blueGreen": {"autoPromote": False}})
    served.move_alias("4")
    await served.settle()
    assert "fraud-preview" in services(served)
    served.apply(rollout={"strategy": "blueGreen", "blueGreen": {"autoPromote": False, "previewService": False}})
    await served.settle()
    assert "fraud-preview" not in services(served)
    served.restart()
    await served.settle()
    assert "fraud-preview" not in services(served)
    assert served.traffic() == "3"


async def promote_to_the_end(served: World, version: str) -> None:
    served.command(f"promoteFull@{served.revision(version)}")
    await served.settle()
    assert served.traffic() == version


async def test_undo_is_at_once_while_the_version_before_has_its_pods(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    await promote_to_the_end(served, "4")
    served.command(f"undo@{served.revision('3')}")
    await served.settle()
    assert served.traffic() == "3"
    assert served.condition("Ready") == ("True", "Promoted")


async def test_undo_goes_back_by_the_same_steps_when_those_pods_have_ended(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    await promote_to_the_end(served, "4")
    await served.pass_time(31)
    served.command(f"undo@{served.revision('3')}")
    await served.settle()
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    assert served.status["message"].startswith("step 2 of 5: 25 % to version 3, the rest to version 4; until ")
    await promote_to_the_end(served, "3")
    assert served.condition("Ready") == ("True", "Promoted")


async def test_undo_holds_until_the_alias_moves(served: World) -> None:
    served.apply(rollout={})
    served.move_alias("4")
    await served.settle()
    served.command(f"undo@{served.revision('3')}")
    await served.settle()
    await served.pass_time(400)
    assert served.traffic() == "3"
    served.move_alias("5")
    await served.settle()
    assert served.traffic() == "5"
    assert "undo" not in served.status


async def test_no_autoscaler_shrinks_anything_during_a_rollout(served: World) -> None:
    served.apply(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4}, rollout={"steps": [{"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    assert {item["spec"]["behavior"]["scaleDown"]["selectPolicy"] for item in served.all(AUTOSCALER)} == {"Disabled"}
    served.command(f"promoteFull@{served.revision('4')}")
    await served.settle()
    assert served.autoscaler("4")["behavior"]["scaleDown"]["selectPolicy"] == "Disabled"
    await served.pass_time(31)
    assert served.autoscaler("4")["behavior"]["scaleDown"]["selectPolicy"] == "Max"


async def test_without_a_router_a_weight_is_what_the_pods_show(by_pods: World) -> None:
    by_pods.move_alias("4")
    await by_pods.settle()
    assert by_pods.counts() == {"3": 3, "4": 1}
    assert by_pods.traffic() == "3+4"
    assert by_pods.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    by_pods.command(f"abort@{by_pods.revision('4')}")
    await by_pods.reconcile()
    assert by_pods.traffic() == "3"


async def test_pods_of_a_revision_that_leaves_get_nothing_of_a_split(by_pods: World) -> None:
    served = by_pods
    served.apply(rollout={"scaleDownDelaySeconds": 300, "steps": [{"setWeight": 50}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    served.command(f"promote@{served.revision('4')}")
    await served.settle()
    served.move_alias("5")
    await served.settle()
    assert served.traffic() == "4"
    assert f"the pods of {served.revision('3')} have to end first" in served.status["message"]
    await served.pass_time(301)
    assert served.traffic() == "4+5"


async def test_a_new_operator_goes_on_where_the_last_one_ended(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    before = served.status
    served.cluster.writes.clear()
    served.restart()
    await served.settle()
    assert served.status == before
    assert not served.cluster.writes


async def test_no_weight_counts_as_set_before_all_routers_hold_it(served: World) -> None:
    slow = next(iter(served.agents.states))
    served.agents.deaf.add(slow)
    served.move_alias("4")
    await served.settle()
    assert served.status["weights"]["desired"] == 0
    assert "the routers do not know all pods" in served.status["message"]
    served.agents.deaf.clear()
    await served.settle()
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}


async def test_a_router_that_cannot_be_asked_is_told_and_holds_the_rollout(served: World) -> None:
    served.agents.silent.add(next(iter(served.agents.states)))
    served.move_alias("4")
    await served.settle()
    assert served.condition("TrafficProgrammed") == ("True", "Programmed"), "one lost answer is no news"
    await served.pass_time(10)
    assert served.condition("TrafficProgrammed") == ("False", "RouterUnreachable")
    assert served.condition("Available") == ("True", "Serving")
    assert served.status["weights"]["desired"] == 0
    await served.pass_time(601)
    assert served.condition("Ready") == ("False", "RolledBack")
    assert served.traffic() == "3"


TO_TESTERS = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}}
BY_HEADER = [TO_TESTERS, {"pause": {}}, {"setWeight": 25}, {"pause": {}}]


def by_header(served: World) -> set[tuple[str, str]]:
    """What each router sends by a header, to which version; only where all do the same."""
    held = [routing.held(state, world.KEY.name) for state in served.agents.states.values()]
    found = {
        frozenset((match.value, served.version(match.revision)) for match in item.matches) for item in held if item
    }
    assert len(found) == 1
    return set(found.pop())


async def test_testers_get_the_canary_at_weight_0_until_it_has_taken_over(served: World) -> None:
    served.apply(rollout={"steps": BY_HEADER})
    served.move_alias("4")
    await served.settle()
    assert served.status["weights"] == {"desired": 0, "applied": 0, "verified": True}
    assert served.status["headerRoutes"] == [{"name": "testers", "value": "beta", "header": "x-group"}]
    assert served.status["message"].startswith(
        "step 2 of 5: 0 % and the route testers to version 4, the rest to version 3"
    )
    assert served.counts() == {"3": 4, "4": 2}
    assert by_header(served) == {("beta", "4")}
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")
    served.command(f"promote@{served.revision('4')}")
    await served.settle()
    assert served.status["weights"]["applied"] == 25
    assert by_header(served) == {("beta", "4")}
    served.command(f"promoteFull@{served.revision('4')}")
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")
    assert by_header(served) == set()
    assert "headerRoutes" not in served.status
    assert served.events().count("RoutesSet") == 1


async def test_no_route_counts_as_set_before_all_routers_hold_it(served: World) -> None:
    served.apply(rollout={"steps": [{"pause": {}}, *BY_HEADER]})
    served.move_alias("4")
    await served.settle()
    served.agents.deaf.add(next(iter(served.agents.states)))
    served.command(f"promote@{served.revision('4')}")
    await served.settle()
    assert "the routers are taking up the route testers" in served.status["message"]
    assert served.condition("TrafficProgrammed") == ("Unknown", "Pending")
    served.agents.deaf.clear()
    await served.settle()
    assert served.status["currentStepIndex"] == 2


async def test_a_canary_that_testers_have_is_put_back_without_pods_and_keeps_them_until_no_router_uses_it(
    served: World,
) -> None:
    served.apply(rollout={"steps": BY_HEADER, "abortScaleDownDelaySeconds": 0})
    served.move_alias("4")
    await served.settle()
    served.agents.deaf.add("*")
    served.fates["4"] = world.failing("OutOfMemory", "no more memory")
    served.run_controllers()
    await served.settle()
    assert served.condition("Ready") == ("False", "RolledBack")
    assert served.counts() == {"3": 4, "4": 2}
    served.agents.deaf.clear()
    await served.settle()
    assert by_header(served) == set()
    assert served.counts() == {"3": 4, "4": 0}


async def test_a_new_operator_knows_the_routes_and_the_shadow(served: World) -> None:
    served.apply(rollout={"steps": BY_HEADER, "shadow": {"percent": 10}})
    served.move_alias("4")
    await served.settle()
    before = served.status
    assert before["shadow"] == {"percent": 10, "verified": True}
    served.cluster.writes.clear()
    served.restart()
    await served.settle()
    assert served.status == before
    assert not served.cluster.writes


async def test_requests_are_copied_from_when_the_pods_are_ready_to_the_end_of_the_rollout(served: World) -> None:
    served.apply(rollout={"steps": [{"pause": {}}], "shadow": {"percent": 10}})
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    assert "shadow" not in served.status
    del served.fates["4"]
    await served.settle()
    assert served.status["weights"]["desired"] == 0
    assert served.status["shadow"] == {"percent": 10, "verified": True}
    table = json.loads(served.all(CONFIG_MAP)[-1]["data"][routing.TABLE])
    assert table["models"]["fraud"]["shadow"] == {"revision": served.revision("4"), "percent": 10}
    served.command(f"promote@{served.revision('4')}")
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")
    assert "shadow" not in served.status
    assert not [state for state in served.agents.states.values() if state.models["fraud"].shadow]


async def test_a_shadow_that_no_router_takes_up_holds_nothing(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_of_canary", without_shadow(routing._of_canary))
    served.apply(rollout={"steps": [{"setWeight": 25}, {"pause": {}}], "shadow": {"percent": 10}})
    served.move_alias("4")
    await served.settle()
    assert served.status["shadow"] == {"percent": 10, "verified": False}
    assert served.status["phase"] == "Paused"
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")


def without_shadow(make: Callable[..., Manifest]) -> Callable[..., Manifest]:
    return lambda *found: {name: part for name, part in make(*found).items() if name != "shadow"}


# A row that the routers would refuse.


BAD = {"stickiness": {"header": "x user"}}
"""No API server with this CRD lets it through; one with another CRD may."""


async def test_what_the_router_would_refuse_is_told_and_the_row_before_stays(served: World) -> None:
    before = rows(served)
    served.apply(traffic=BAD)
    await served.settle()
    assert rows(served) == before
    assert served.condition("TrafficProgrammed") == ("False", "RouterRefused")
    assert served.condition("Available") == ("True", "Serving")
    assert served.condition("Ready") == ("False", "RouterRefused")
    assert "stickiness.header" in served.message("TrafficProgrammed")
    served.restart()
    await served.settle()
    assert rows(served) == before
    served.apply(traffic={"stickiness": {"header": "x-user"}})
    await served.settle()
    assert rows(served)["fraud"]["stickiness"] == {"header": "x-user"}
    assert served.condition("Ready") == ("True", "Promoted")


async def test_one_that_the_router_would_refuse_holds_up_no_other(served: World) -> None:
    fraud = served.all(MODEL_DEPLOYMENT)[0]
    churn = {
        "apiVersion": fraud["apiVersion"],
        "kind": fraud["kind"],
        "metadata": {"name": "churn", "namespace": "payments"},
    }
    stable = {"revision": "churn-v1-11111111", "modelVersion": "1"}
    spec = {"model": {"name": "churn", "version": "1"}, "traffic": BAD}
    served.cluster.add(churn | {"spec": spec, "status": {"observedGeneration": 1, "stable": stable}})
    served.apply(traffic={"stickiness": {"header": "x-user"}})
    await served.settle()
    assert rows(served).keys() == {"fraud"}
    assert rows(served)["fraud"]["stickiness"] == {"header": "x-user"}


async def test_a_first_revision_that_the_router_would_refuse_is_not_available() -> None:
    made = World()
    made.move_alias("3")
    made.apply(traffic=BAD)
    await made.settle()
    assert made.condition("Available") == ("False", "RouterRefused")
    assert made.condition("Stalled") == ("True", "RouterRefused")
    assert rows(made) == {}


async def test_a_row_that_somebody_broke_is_not_kept(served: World) -> None:
    served.apply(traffic=BAD)
    await served.settle()
    broken = json.dumps({"models": {"fraud": rows(served)["fraud"] | {"surprise": 1}}})
    served.cluster.edit(served.ref(CONFIG_MAP, NAME), lambda item: item["data"].update({routing.TABLE: broken}))
    served.restart()
    await served.settle()
    assert rows(served) == {}


def rows(served: World) -> dict[str, Manifest]:
    """The table that the agents follow."""
    config_map = next(item for item in served.all(CONFIG_MAP) if item["metadata"]["name"] == NAME)
    found: dict[str, Manifest] = json.loads(config_map["data"][routing.TABLE])["models"]
    return found


async def test_the_pods_of_an_old_version_stay_until_no_router_uses_it(served: World) -> None:
    served.apply(rollout={"scaleDownDelaySeconds": 0})
    served.move_alias("4")
    served.agents.silent.add("*")
    await served.settle()
    assert served.counts()["3"] == 4
    served.agents.silent.clear()
    await served.settle()
    assert served.counts() == {"3": 0, "4": 4}


async def test_the_address_moves_to_the_router_when_all_router_pods_know_what_to_do(by_pods: World) -> None:
    by_pods.agents.deaf.add("*")
    by_pods.apply(traffic={"router": "haproxy"})
    await by_pods.settle()
    assert by_pods.address
    assert by_pods.address["spec"]["selector"].get(names.REVISION) == by_pods.revision("3")
    by_pods.agents.deaf.clear()
    await by_pods.settle()
    assert by_pods.address["spec"]["selector"][names.APP_COMPONENT] == names.ROUTER
    assert by_pods.condition("Ready") == ("True", "Promoted")


async def test_the_router_goes_with_the_last_model_deployment_behind_it(served: World) -> None:
    def routers() -> list[str]:
        return [item["kind"] for kind in ROUTERS for item in served.all(kind) if item["metadata"]["name"] == NAME]

    assert routers() == ["Deployment", "PodDisruptionBudget", "ConfigMap", "ServiceAccount", "RoleBinding"]
    served.apply(traffic={"router": "replicas"})
    await served.settle()
    assert served.traffic() == "3"
    assert routers() == ["ServiceAccount", "RoleBinding"]


async def test_a_new_operator_concludes_nothing_before_it_has_asked_the_routers(served: World) -> None:
    served.cluster.writes.clear()
    served.restart()
    again = await served.reconciler.reconcile(world.KEY)
    assert again == 1
    assert not served.cluster.writes
    await served.settle()
    assert not served.cluster.writes
