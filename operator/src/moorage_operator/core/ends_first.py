"""Strategy `recreate`, and a canary that found no room: stable's pods end before the canary's start, and nobody answers meanwhile.

written in the status ──► stable's pods end ──► the canary's are ready ──► it has all requests ──► it is stable
"""

from __future__ import annotations

from moorage_operator.core import state as states
from moorage_operator.core import traffic
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.waiting import World


def is_asked(state: State, spec: Spec) -> bool:
    """Of the present rollout."""
    ends_first = spec.rollout.strategy == "recreate" or state.position.capacity.stable_ended
    return ends_first and state.stable is not None and state.canary is not None


def is_due(state: State, spec: Spec, observed: Observed) -> bool:
    """Not before the status says so: a process that takes over must know why those pods are gone."""
    if not is_asked(state, spec):
        return False
    before = states.read(observed.status)
    return _pair(before) == _pair(state) and is_asked(before, spec)


def as_found(state: State, world: World) -> State:
    """A process may have died after it moved the address, and before it wrote that down. Where stable's pods have ended, nobody
    would answer if the address went back to them.
    """
    canary = state.canary
    if canary and is_asked(state, world.spec) and world.routed.split == {canary.revision: 100}:
        return state.moved(weight=100)
    return state


def answers_alone(state: State, world: World) -> bool:
    """Has the canary all requests, and pods for them, while stable's have ended? Then nothing else may come but that it is stable."""
    stable, canary = state.stable, state.canary
    if not (stable and canary and state.position.weight == 100 and is_asked(state, world.spec)):
        return False
    ready, before = (traffic.ready_pods(world.observed, role.revision) for role in (canary, stable))
    return ready > 0 and not before


def _pair(state: State) -> tuple[str, str]:
    """Who hands over to whom."""
    stable, canary = ((role.revision if role else "") for role in (state.stable, state.canary))
    return stable, canary
