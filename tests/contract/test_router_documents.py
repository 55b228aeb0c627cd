"""Operator and router read what the other one writes: the table in the ConfigMap, and the agent's answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from moorage_operator.core import routing, spec
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.router_plan import AGENT_PORT, METRICS_PORT
from moorage_operator.core.state import Position, Role, State
from moorage_operator.router import report, settings, table

STABLE, CANARY = Role("fraud-v3-11111111", "3"), Role("fraud-v4-22222222", "4", salt="a1b2c3d4")


def row(state: State, **traffic: Any) -> Manifest | None:
    manifest = {"spec": {"model": {"name": "m", "version": "1"}, "traffic": traffic}}
    return routing.row(spec.parse(manifest), state, 10000)


ROWS = {
    "stable alone": row(State(stable=STABLE)),
    "a first revision": row(State(canary=CANARY)),
    "a canary without a weight": row(State(stable=STABLE, canary=CANARY)),
    "a canary": row(State(stable=STABLE, canary=CANARY, position=Position(weight=25))),
    "a canary with everything": row(State(stable=STABLE, canary=CANARY, position=Position(weight=100))),
    "a key in a header": row(State(stable=STABLE), stickiness={"header": "X-User.id_1"}),
    "a key in a cookie": row(State(stable=STABLE), stickiness={"cookie": "session"}),
}


@pytest.mark.parametrize("made", ROWS.values(), ids=ROWS)
def test_the_agent_takes_what_the_operator_writes(made: Manifest) -> None:
    document = routing.data(routing.Ports({"fraud": 10000}), {"fraud": made})[routing.TABLE]
    model = table.parse(document).models["fraud"]
    assert model.port == 10000
    assert model.stable == made["stable"]


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
    )
    answer = msgspec.json.encode(report.State(started_at="now", resource_version="7", models={"fraud": model}))
    state = msgspec.json.decode(answer, type=routing.AgentState)
    held = routing.held(state, "fraud")
    assert state.resource_version == "7"
    assert held
    assert held.shares == {"fraud-v3-11111111": 6000, "fraud-v5-33333333": 2000, "fraud-v4-22222222": 2000}
    assert held.endpoints == {"fraud-v3-11111111": 3, "fraud-v4-22222222": 2}
    assert held.port == 10000
    assert routing.held(state, "other") is None


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


def test_lost_ports_are_read_from_the_services() -> None:
    service = {
        "metadata": {"name": "fraud"},
        "spec": {
            "selector": {"app.kubernetes.io/component": "router"},
            "ports": [{"port": 80, "targetPort": 10007}],
        },
    }
    pods = {"metadata": {"name": "churn"}, "spec": {"selector": {}, "ports": [{"port": 80, "targetPort": "http"}]}}
    ports = routing.read_ports(None, [service, pods])
    assert ports.of == {"fraud": 10007}
    assert ports.next == 10008
