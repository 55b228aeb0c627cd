"""Somebody writes a child as often as the operator does: it is told, it ends by itself, and nothing is written at each event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from moorage_operator.core import contests, names, routing
from moorage_operator.core.contests import Rival, Taken
from moorage_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, Manifest, Ref
from world import START, World

SECOND = timedelta(seconds=1)
Change = Callable[[Manifest], None]


@pytest.fixture
async def served() -> World:
    """Version 3 answers."""
    made = World()
    made.move_alias("3")
    made.apply(replicas=2)
    await made.settle()
    made.cluster.writes.clear()
    return made


def relabel(manifest: Manifest) -> None:
    manifest["metadata"]["labels"][names.APP_NAME] = "theirs"


def retarget(manifest: Manifest) -> None:
    manifest["spec"]["ports"][0]["targetPort"] = 1


def redirect(manifest: Manifest) -> None:
    manifest["spec"]["selector"] = {"app": "theirs"}


def restart(manifest: Manifest) -> None:
    manifest["spec"]["template"]["metadata"]["annotations"] = {"theirs": "yes"}


def empty(manifest: Manifest) -> None:
    manifest["data"][routing.TABLE] = '{"models":{}}'


async def fight(world: World, ref: Ref, change: Change = relabel, *, times: int = 4) -> None:
    """Somebody changes it; the operator has a second each time."""
    for _ in range(times):
        world.cluster.edit(ref, change, manager="gitops-tool")
        await world.pass_time(1)


async def sleep(world: World, seconds: float) -> None:
    """The operator wakes up only when it wanted to."""
    end = world.now + seconds * SECOND
    while world.again_at and world.again_at < end:
        world.now = max(world.again_at, world.now) + SECOND
        await world.settle()
    world.now = end


def app_name(world: World) -> Any:
    assert world.address
    return world.address["metadata"]["labels"][names.APP_NAME]


def told(world: World) -> list[str]:
    return [event for event in world.events() if event == "FieldConflict"]


async def test_three_changes_by_hand_are_put_back_at_once_and_are_no_fight(served: World) -> None:
    await fight(served, served.ref(SERVICE), times=3)

    assert app_name(served) == "moorage-runtime"
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")
    assert not told(served)


async def test_the_fourth_within_ten_minutes_is_told_and_left(served: World) -> None:
    await fight(served, served.ref(SERVICE))

    assert app_name(served) == "theirs"
    assert served.condition("TrafficProgrammed") == ("True", "FieldConflict")
    assert "metadata.labels.app.kubernetes.io/name, by gitops-tool" in served.message("TrafficProgrammed")
    assert told(served) == ["FieldConflict"]
    assert served.condition("Ready") == ("True", "Promoted")
    assert served.condition("Available") == ("True", "Serving")
    assert served.traffic() == "3"


async def test_changes_that_lie_farther_apart_are_no_fight(served: World) -> None:
    for _ in range(6):
        await fight(served, served.ref(SERVICE), times=1)
        await sleep(served, 220)
        assert app_name(served) == "moorage-runtime"
    assert not told(served)


async def test_a_fight_costs_one_write_in_two_minutes_and_is_told_without_a_break(served: World) -> None:
    await fight(served, served.ref(SERVICE))
    served.cluster.writes.clear()
    for _ in range(120):
        served.cluster.edit(served.ref(SERVICE), relabel, manager="gitops-tool")
        await served.pass_time(10)
        assert served.condition("TrafficProgrammed") == ("True", "FieldConflict")

    assert 9 <= served.cluster.writes["apply", "Service"] <= 10
    assert told(served) == ["FieldConflict"]
    assert not served.cluster.writes["apply", "ModelDeployment"]


async def test_when_the_other_stops_it_is_put_back_and_no_fight_any_more(served: World) -> None:
    await fight(served, served.ref(SERVICE))

    await sleep(served, 130)
    assert app_name(served) == "moorage-runtime"
    assert served.condition("TrafficProgrammed") == ("True", "FieldConflict")
    await sleep(served, 480)
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")
    served.cluster.writes.clear()
    await sleep(served, 3600)
    assert not served.cluster.writes


async def test_what_is_wanted_anew_is_written_at_once(served: World) -> None:
    await fight(served, served.ref(SERVICE))

    served.apply(service={"port": 8000})
    await served.settle()

    assert served.address
    assert served.address["spec"]["ports"][0]["port"] == 8000
    await fight(served, served.ref(SERVICE), times=1)
    assert app_name(served) == "theirs", "the fight goes on"


async def test_a_rollout_goes_on_over_a_router_whose_table_is_fought_over(served: World) -> None:
    table = served.ref(CONFIG_MAP, routing.NAME)
    await fight(served, table, empty)
    assert served.condition("TrafficProgrammed")[1] == "FieldConflict"
    assert "data" in served.message("TrafficProgrammed")

    served.move_alias("4")
    await served.settle()

    assert served.traffic() == "4"
    assert served.status["stable"]["modelVersion"] == "4"
    await fight(served, table, empty, times=1)
    await sleep(served, 130)
    assert served.traffic() == "4"


@pytest.mark.parametrize(("change", "where"), [(retarget, "spec.ports"), (redirect, "spec.selector")])
async def test_an_address_that_leads_elsewhere_is_not_said_to_answer(served: World, change: Change, where: str) -> None:
    await fight(served, served.ref(SERVICE), change)

    for condition in ("TrafficProgrammed", "Available", "Ready"):
        assert served.condition(condition) == ("False", "FieldConflict")
    assert where in served.message("Ready")
    assert told(served) == ["FieldConflict"]
    await sleep(served, 610)
    assert served.condition("Ready") == ("True", "Promoted")


async def test_what_is_deleted_again_and_again_is_made_again_at_once_and_told(served: World) -> None:
    for _ in range(8):
        served.cluster.remove(served.ref(SERVICE))
        await served.pass_time(1)
        assert served.address

    assert served.condition("TrafficProgrammed") == ("True", "FieldConflict")
    assert "changed or deleted by others" in served.message("TrafficProgrammed")
    assert told(served) == ["FieldConflict"]
    await sleep(served, 610)
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")


async def test_additions_to_a_pod_template_are_changes_too(served: World) -> None:
    deployment = served.ref(DEPLOYMENT, served.revision("3"))
    await fight(served, deployment, restart)

    assert served.condition("RuntimeAvailable") == ("True", "FieldConflict")
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")
    await sleep(served, 130)
    assert not served.of_models(DEPLOYMENT)[0]["spec"]["template"]["metadata"].get("annotations")


async def test_one_fight_delays_nothing_else(served: World) -> None:
    await fight(served, served.ref(SERVICE))
    budget = served.ref(DISRUPTION_BUDGET, served.revision("3"))

    await fight(served, budget, lambda item: item["spec"].update(maxUnavailable=2), times=1)

    (found,) = served.of_models(DISRUPTION_BUDGET)
    assert found["spec"]["maxUnavailable"] == 1


async def test_a_child_that_we_delete_ourselves_is_not_fought_over(served: World) -> None:
    for count in (1, 2) * 5:
        served.apply(replicas=count)
        await served.settle()

    assert served.of_models(DISRUPTION_BUDGET)
    assert served.condition("RuntimeAvailable") == ("True", "Running")


async def test_a_process_that_takes_over_counts_anew(served: World) -> None:
    await fight(served, served.ref(SERVICE))
    served.restart()
    await served.settle()

    assert app_name(served) == "moorage-runtime"
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")


def test_times_that_are_yet_to_come_are_of_a_clock_that_was_put_back() -> None:
    taken = Taken("digest", (START + 600 * SECOND,) * 4)

    assert taken.contest(START) is None
    assert taken.contest(START + 600 * SECOND)


def test_a_rival_is_who_holds_what_is_not_as_desired() -> None:
    desired = {
        "metadata": {"labels": {"app": "ours", "team": "red"}},
        "spec": {"selector": {"app": "ours"}, "ports": [{"port": 80}], "type": "ClusterIP"},
    }
    fields = {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:team": {}, "f:theirs": {}}},
        "f:spec": {"f:selector": {}, "f:type": {}, "f:ports": {'k:{"port":90}': {".": {}, "f:port": {}}}},
    }
    entry = {"manager": "gitops-tool", "operation": "Apply", "fieldsV1": fields}
    ours, status = entry | {"manager": "moorage"}, entry | {"manager": "kcm", "subresource": "status"}
    live = {
        "metadata": {"labels": {"app": "x", "team": "red", "theirs": "x"}, "managedFields": [entry, ours, status]},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 90}], "type": "ClusterIP"},
    }

    found = contests.rival_in(live, desired)

    assert found == Rival(("gitops-tool",), ("metadata.labels.app", "spec.ports", "spec.selector"))
