"""Operator and router read what the other one writes: the table in the ConfigMap, and the agent's answer."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
import yaml

import documents
from moorage_operator import errors
from moorage_operator.core import routing, spec
from moorage_operator.core.header_routes import Route
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.router_plan import AGENT_PORT, METRICS_PORT
from moorage_operator.core.state import Position, Role, State
from moorage_operator.core.strategy import Match
from moorage_operator.core.trial import NEXT, Arm, Experiment, Version
from moorage_operator.router import report, settings, table

BETA = Route("testers", 'it\'s a "beta"', header="X-Group")
STAFF = Route("staff", "yes", cookie="staff")
STABLE, CANARY = Role("fraud-v3-11111111", "3"), Role("fraud-v4-22222222", "4", salt="a1b2c3d4")

ARMS = Experiment(
    (
        Arm("challenger", "fraud-v5-33333333", "5", 20, match=Match(header="X-Group", value='it\'s a "beta"')),
        Arm("0", "fraud-v6-44444444", "6", 79, match=Match(cookie="staff", value="yes")),
        Arm("the-same", "fraud-v3-11111111", "3", 0, next=Version("fraud-v7-55555555", "7")),
        Arm("a" * 40),
    )
)


def row(state: State, **traffic: Any) -> Manifest | None:
    manifest = {"spec": {"model": {"name": "m", "version": "1"}, "traffic": traffic}}
    return routing.row(spec.parse(manifest), state, 10000)


ROWS = {
    "stable alone": row(State(stable=STABLE)),
    "a first revision": row(State(canary=CANARY)),
    "a canary without a weight": row(State(stable=STABLE, canary=CANARY)),
    "a canary": row(State(stable=STABLE, canary=CANARY, position=Position(weight=25))),
    "a canary with everything": row(State(stable=STABLE, canary=CANARY, position=Position(weight=100))),
    "header routes": row(State(stable=STABLE, canary=CANARY, position=Position(routes=(BETA, STAFF)))),
    "a shadow": row(State(stable=STABLE, canary=CANARY, position=Position(shadow=100))),
    "arms": row(State(stable=STABLE, experiment=ARMS)),
    "arms beside a canary": row(State(stable=STABLE, canary=CANARY, position=Position(weight=25), experiment=ARMS)),
    "arms that have no revision yet": row(State(stable=STABLE, experiment=Experiment((Arm("challenger"),)))),
    "arms before there is a stable revision": row(State(canary=CANARY, experiment=ARMS)),
    "a key in a header": row(State(stable=STABLE), stickiness={"header": "X-User.id_1"}),
    "a key in a cookie": row(State(stable=STABLE), stickiness={"cookie": "session"}),
}


@pytest.mark.parametrize("made", ROWS.values(), ids=ROWS)
def test_the_agent_takes_what_the_operator_writes(made: Manifest) -> None:
    document = routing.data(routing.Ports({"fraud": 10000}), {"fraud": made})[routing.TABLE]
    model = table.parse(document).models["fraud"]
    assert model.port == 10000
    assert model.stable == made["stable"]


def test_routes_and_shadows_are_the_canarys() -> None:
    made = row(State(stable=STABLE, canary=CANARY, position=Position(routes=(BETA, STAFF), shadow=10)))
    document = routing.data(routing.Ports(), {"fraud": made or {}})[routing.TABLE]
    model = table.parse(document).models["fraud"]
    assert [(arm, condition.header, condition.cookie, condition.value) for arm, condition in model.conditions()] == [
        ("canary", "X-Group", "", 'it\'s a "beta"'),
        ("canary", "", "staff", "yes"),
    ]
    assert model.shadow
    assert (model.shadow.revision, model.shadow.weight) == (CANARY.revision, 1000)


def test_arms_keep_their_places_and_what_takes_one_over_comes_last_with_nothing() -> None:
    made = row(State(stable=STABLE, canary=CANARY, position=Position(weight=25), experiment=ARMS))
    model = table.parse(routing.data(routing.Ports(), {"fraud": made or {}})[routing.TABLE]).models["fraud"]
    assert [(arm.name, arm.revision, arm.weight) for arm in model.arms] == [
        ("challenger", "fraud-v5-33333333", 2000),
        ("0", "fraud-v6-44444444", 7900),
        ("the-same", "fraud-v3-11111111", 0),
        ("the-same-next", "fraud-v7-55555555", 0),
    ]
    assert [(arm, condition.header or condition.cookie) for arm, condition in model.conditions()] == [
        ("challenger", "X-Group"),
        ("0", "staff"),
    ]
    assert model.salt == "experiment"


def test_the_bounds_of_the_crd_are_those_of_the_agent() -> None:
    crd = yaml.safe_load((documents.REPOSITORY / "crds/modeldeployments.moorage.dev.yaml").read_text())
    rollout = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["rollout"]
    match = rollout["properties"]["steps"]["items"]["properties"]["setHeaderRoute"]["properties"]["match"]["properties"]
    for value in ("b", "b" * 256, "ä: b, c;'\"\\ {}", "", "b" * 257, "b\nc", "b\x7f", "\x00"):
        _same(match["value"], value, Route("r", value, header="h"))
    for name in ("x", "X-Group.id_1", "h" * 127, "", "h" * 128, "x group", "-x", "x:y", "x\n"):
        _same(match["header"], name, Route("r", "v", header=name))
        _same(match["cookie"], name, Route("r", "v", cookie=name))


def test_no_arm_of_the_crd_has_a_name_that_the_router_refuses() -> None:
    crd = yaml.safe_load((documents.REPOSITORY / "crds/modeldeployments.moorage.dev.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    arm = spec["experiment"]["properties"]["arms"]["items"]
    assert all(f"'{name}'" in arm["x-kubernetes-validations"][0]["rule"] for name in table.RESERVED_ARMS)
    assert f"'{table.MATCH_SUFFIX}'" in arm["x-kubernetes-validations"][0]["rule"]
    assert f"'{NEXT}'" in arm["x-kubernetes-validations"][0]["rule"]
    steps = spec["rollout"]["properties"]["steps"]["items"]["properties"]
    of_step, of_arm = (
        item["match"]["properties"] for item in (steps["setHeaderRoute"]["properties"], arm["properties"])
    )
    assert of_step == of_arm
    for name in ("a", "0", "a-b", "a" * 40, "", "-a", "a-", "A", "a_b", "a.b"):
        fits = len(name) <= 40 and re.search(arm["properties"]["name"]["pattern"].replace("$", r"\Z"), name) is not None
        made = row(State(stable=STABLE, experiment=Experiment((Arm(name, STABLE.revision, "3"),))))
        try:
            table.parse(routing.data(routing.Ports(), {"fraud": made or {}})[routing.TABLE])
            taken = True
        except errors.TableRefused:
            taken = False
        assert fits == taken, name


def _same(schema: Manifest, text: str, route: Route) -> None:
    """Does the API server take the text just where the agent does?"""
    fits = len(text) <= schema["maxLength"] and re.search(schema["pattern"].replace("$", r"\Z"), text) is not None
    made = row(State(stable=STABLE, canary=CANARY, position=Position(routes=(route,))))
    try:
        table.parse(routing.data(routing.Ports(), {"fraud": made or {}})[routing.TABLE])
        taken = True
    except errors.TableRefused:
        taken = False
    assert fits == taken, text


def test_a_model_without_a_revision_is_not_in_the_table() -> None:
    assert row(State()) is None


def test_the_operator_reads_what_the_agent_answers() -> None:
    counters = report.CountersState(requests=1, bad=0, canceled=0, connect_errors=0, response_errors=0, retries=0)
    model = report.ModelState(
        port=10000,
        stable="fraud-v3-11111111",
        canary=report.CanaryState(revision="fraud-v4-22222222", weight=2500, salt="a1b2c3d4"),
        arms=(report.ArmState(name="challenger", revision="fraud-v5-33333333", weight=2000),),
        endpoints={"fraud-v3-11111111": 3, "fraud-v4-22222222": 2},
        counters={"stable": counters},
        matches=(
            report.MatchState(arm="canary", revision="fraud-v4-22222222", value="beta", header="x-group", cookie=""),
            report.MatchState(arm="challenger", revision="fraud-v5-33333333", value="yes", header="", cookie="staff"),
        ),
        shadow=report.ShadowState(revision="fraud-v4-22222222", weight=1000),
    )
    answer = msgspec.json.encode(report.State(started_at="now", resource_version="7", models={"fraud": model}))
    state = msgspec.json.decode(answer, type=routing.AgentState)
    held = routing.held(state, "fraud")
    testers = routing.Match("fraud-v5-33333333", "yes", cookie="staff")
    assert state.resource_version == "7"
    assert held
    assert held.shares == {"fraud-v3-11111111": 7500, "fraud-v4-22222222": 2500}
    assert held.arms == {"challenger": routing.HeldArm("fraud-v5-33333333", 2000, frozenset([testers]))}
    assert held.endpoints == {"fraud-v3-11111111": 3, "fraud-v4-22222222": 2}
    assert held.port == 10000
    assert held.matches == {routing.Match("fraud-v4-22222222", "beta", header="x-group")}
    assert held.shadow == routing.Share("fraud-v4-22222222", 1000)
    assert routing.held(state, "other") is None


def test_an_agent_that_tells_less_holds_no_match_and_no_shadow() -> None:
    answer = b'{"models": {"fraud": {"port": 10000, "stable": "fraud-v3-11111111"}}}'
    held = routing.held(msgspec.json.decode(answer, type=routing.AgentState), "fraud")
    assert held
    assert (held.matches, held.shadow) == (frozenset(), None)


def test_no_model_gets_a_port_of_the_router_itself() -> None:
    own = settings.load({}).own_ports
    assert own == {AGENT_PORT, METRICS_PORT}
    assert not own & set(range(routing.FIRST_PORT, routing.LAST_PORT + 1))


def test_a_port_is_not_given_again_before_all_others() -> None:
    ports = routing.allocated(routing.Ports(), ["a", "b"])
    assert ports.of == {"a": 10000, "b": 10001}
    ports = routing.allocated(ports, ["b", "c"])
    assert ports.of == {"b": 10001, "c": 10002}
    last = routing.allocated(routing.Ports({"b": 10000}, routing.LAST_PORT + 1), ["b", "c"])
    assert last.of == {"b": 10000, "c": 10001}


def a_service(name: str, port: int) -> dict[str, Any]:
    """One that points to the router."""
    selector = {"app.kubernetes.io/component": "router"}
    return {"metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": port}]}}


def test_lost_ports_are_read_from_the_services() -> None:
    pods = {"metadata": {"name": "churn"}, "spec": {"selector": {}, "ports": [{"port": 80, "targetPort": "http"}]}}
    assert routing.read_ports(None, [a_service("fraud", 10007), pods]).of == {"fraud": 10007}
    assert routing.read_ports(None, [pods]) == routing.Ports()


@pytest.mark.parametrize("first", [10000, 14000, 15000, 19997])
def test_a_port_that_was_freed_just_before_the_ports_were_lost_is_not_given_again_soon(first: int) -> None:
    before = routing.allocated(routing.Ports(next=first), ["a", "b", "gone"])
    lost = routing.read_ports(None, [a_service(name, before.of[name]) for name in ("a", "b")])
    newcomers = [f"n{number}" for number in range(100)]

    after = routing.allocated(lost, ["a", "b", *newcomers])

    assert (after.of["a"], after.of["b"]) == (before.of["a"], before.of["b"])
    assert before.of["gone"] not in after.of.values()
    assert all(routing.FIRST_PORT <= port <= routing.LAST_PORT for port in after.of.values())
