"""Random histories of one ModelDeployment end well; with a fault in the operator, some end badly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from history import Experimenting, History
from moorage_operator import errors
from moorage_operator.core import (
    compare,
    decide,
    gate,
    no_capacity,
    plan,
    resources,
    rollout,
    sizing,
    state,
    steps,
    told,
    waiting,
)
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.strategy import Pause

pytestmark = pytest.mark.timeout(900)
"""They take half a minute each where nothing else runs, those that are RARE three."""

TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestExperimenting = Experimenting.TestCase
TestExperimenting.settings = TestHistory.settings


def address_of_the_first(make: Any) -> Any:
    first: dict[str, str] = {}
    return lambda owner, spec, revision: make(owner, spec, first.setdefault(owner.uid, revision))


def pause_that_never_ends(pause: Pause, state: State, world: waiting.World) -> waiting.Obstacle:
    until = world.now + (pause.length or timedelta())
    return waiting.Obstacle(waiting.WaitsFor.CLOCK, "", until)


def harm_that_is_not_seen(state: State, obstacle: waiting.Obstacle | None, world: waiting.World) -> Problem | None:
    found = FAILURE(state, obstacle, world)
    return None if found and found.reason is Reason.CANARY_LOST else found


def pods_that_end_by_the_clock(state: State, world: waiting.World) -> State:
    return state.changed(leaving=tuple(role for role in state.leaving if world.now < (role.scale_down_at or world.now)))


def pods_by_the_wanted_weight(state: State, spec: Spec) -> int:
    return -(-spec.fixed_replicas * (100 - state.position.weight) // 100)


FAILURE = rollout._failure
NOTHING = staticmethod(lambda *_: ())
Fault = tuple[Any, str, Any]
FAULTS: dict[str, Fault | list[Fault]] = {
    "what is there never counts as right": (compare, "holds", lambda *_, **__: False),
    "drift is not seen": (compare, "holds", lambda *_, **__: True),
    "a field that was taken out stays": (compare, "with_hash", lambda desired: desired),
    "what others add to a pod template stays": (compare, "has_foreign_template_fields", lambda *_: False),
    "pods that are not ready get the traffic": [
        (steps, "pods_obstacle", lambda *_: None),
        (rollout, "_failure", lambda *_: None),
    ],
    "ready pods never get the traffic": (sizing, "is_available", lambda *_: False),
    "the pods of the revision before stay for ever": (rollout, "_without_departed", lambda state, _: state),
    "a restart forgets who is stable": (state, "read", lambda _: state.State()),
    "the registry is not told how rollouts end": (told, "errands", NOTHING),
    "old pods never end": (plan.Plan, "_retire", NOTHING),
    "old revisions are never deleted": (plan.Plan, "_forget", NOTHING),
    "callers get what they can't use": (gate, "refusal", lambda *_: None),
    "stable gives up pods that it needs": (no_capacity, "_spare", lambda spec, _: max(spec.fixed_replicas - 1, 0)),
    "an autoscaler outlives its revision": (plan, "_ONLY_WITH_TRAFFIC", (None,)),
    "a timed pause never ends": (steps, "_pause", pause_that_never_ends),
    "the progress deadline never comes": (steps, "deadline_of", lambda *_: None),
    "nobody looks again when a time is up": (decide, "_look_again_at", lambda *_: None),
    "a canary keeps its weight after losing its pods": (rollout, "_failure", harm_that_is_not_seen),
    "pods end before the routers have left them": (rollout, "_without_departed", pods_that_end_by_the_clock),
    "stable shrinks before the weight has moved": (no_capacity, "stable_pods", pods_by_the_wanted_weight),
    "a canary gets more than its pods can carry": (sizing, "canary_pods", lambda *_: 1),
    "the address stays where it was first": (
        resources,
        "make_stable_service",
        address_of_the_first(resources.make_stable_service),
    ),
}
"""What is replaced in the operator's code, and by what: it is to be wrong itself, which no fake around it can do."""


RARE = ("pods that are not ready get the traffic", "stable gives up pods that it needs")
"""Two safeguards have to fail, or much has to come together, and it takes minutes of histories to meet them."""


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.long] if fault in RARE else []) for fault in FAULTS]
)
def test_some_history_ends_badly_with(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = FAULTS[fault]
    for where, name, wrong in patches if isinstance(patches, list) else [patches]:
        monkeypatch.setattr(where, name, wrong)
    first = settings(
        TestHistory.settings, max_examples=300, phases=[Phase.generate], database=None, report_multiple_bugs=False
    )

    with pytest.raises((AssertionError, errors.ClusterError)):
        run_state_machine_as_test(History, settings=first)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(10))
def test_a_thousand_more_histories_end_well(number: int) -> None:
    """Each `number` is a seed of its own: the same number makes the same histories."""
    machine = seed(number)(type("Seeded", (History,), {}))
    run_state_machine_as_test(
        machine, settings=settings(TestHistory.settings, max_examples=1000, derandomize=False, database=None)
    )
