"""Which revision plays which role, and when the roles change: the state machine of a rollout. Read `steps` for what happens between
the first pod of a canary and all of the traffic.

        wanted changes            steps done, routers verified            scaleDownAt, and no router sends it anything
  stable ────────────► stable+canary ──────────────► stable+leaving ──────────────────────────────► stable
              ▲            │  │                            ▲
              │            │  └── gives up: leaves, and is rejected ──► stable+leaving
              └────────────┘ wanted changes again: leaves at once; the next one begins when no router knows it any more
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage_operator.core import (
    arm_routing,
    checks,
    ends_first,
    gate,
    http_route,
    judging,
    no_capacity,
    rejections,
    shadow,
    steps,
)
from moorage_operator.core.kinds import DEPLOYMENT
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.signatures import Signature
from moorage_operator.core.state import Measured, Position, Result, Role, State
from moorage_operator.core.waiting import Obstacle, WaitsFor, World


@dataclass(frozen=True)
class Wanted:
    """The revision that spec and registry name now."""

    revision: str
    model_version: str
    signature: Signature | None = None
    """As far as the registry tells it."""


@dataclass(frozen=True)
class Progress:
    """The state after a pass, and what its canary waits for; nothing if there is none."""

    state: State
    obstacle: Obstacle | None = None


def advance(state: State, wanted: Wanted | None, world: World) -> Progress:
    """Without a known wanted revision nothing is replaced, and what is on its way goes on."""
    known, state = state.canary, ends_first.as_found(state, world)
    if wanted:
        state = _pursue(state, wanted, world)
    if state.canary is None:
        progress = Progress(state)
    elif known and known.revision == state.canary.revision:
        progress = _go_on(state, world)
    else:
        # Written down before anything moves: who takes over from a process that dies must know whose traffic it finds.
        waiting = Obstacle(WaitsFor.PODS, f"{state.canary.revision} is starting")
        progress = Progress(steps.sized(state, world), waiting)
    return Progress(shadow.cast(_without_departed(progress.state, world), world), progress.obstacle)


def _go_on(state: State, world: World) -> Progress:
    state = gate.let_go(state, world)
    state, harm = judging.heeded(state, world)
    alarm = judging.alarm(state, world)
    after, obstacle = (state, alarm) if alarm else steps.go_on(state, world)
    if ends_first.answers_alone(state, world):
        # Who waits for the last pod or router, and gives up then, sends all to nobody.
        obstacle = None
    after = judging.with_verified_weight(no_capacity.met(after, obstacle, world), world)
    failure = gate.refusal(state, world) or harm or _failure(after, obstacle, world)
    if failure and after.stable:
        return Progress(put_back(after, failure, world, Result.ROLLED_BACK))
    return Progress(after, obstacle) if obstacle else Progress(_promoted(after, world))


def _without_departed(state: State, world: World) -> State:
    """A revision keeps its pods until its time is up and no router sends it anything any more."""
    arms = state.experiment.versions
    staying = tuple(
        role
        for role in state.leaving
        if (role.scale_down_at and world.now < role.scale_down_at)
        or role.revision in world.routed.revisions
        or (role.revision not in arms and arm_routing.still_sent_to(world.observed, role.revision))
    )
    return state if staying == state.leaving else state.changed(leaving=staying)


def _pursue(state: State, wanted: Wanted, world: World) -> State:
    still = (item for item in state.rejected if not rejections.is_open_again(item, world.spec))
    state = state.changed(rejected=tuple(item for item in still if item.revision == wanted.revision))
    if state.canary and state.canary.revision == wanted.revision:
        return state
    if ends_first.answers_alone(state, world):
        state = _promoted(state, world)
    elif state.canary:
        instead = Problem(Reason.SUPERSEDED, f"{wanted.revision} is wanted instead")
        state = _withdrawn(state, Result.SUPERSEDED, timedelta(), world, instead)
    if state.stable and state.stable.revision == wanted.revision:
        return state
    if state.has_rejected(wanted.revision) or not _is_alone(state, world) or no_capacity.is_coming_back(state, world):
        return state
    return _begun(state, wanted, world)


def _is_alone(state: State, world: World) -> bool:
    """Do all routers send everything to stable? Only then another canary begins: the one before may still be in them."""
    arms = state.experiment.versions.keys() - {role.revision for role in state.leaving}
    return state.stable is None or world.routed.revisions - arms <= {state.stable.revision}


def _begun(state: State, wanted: Wanted, world: World) -> State:
    """Going back to a revision that has not left yet: its pods, if they are still there, are the canary's."""
    left = next((role for role in state.leaving if role.revision == wanted.revision), None)
    salt = hashlib.sha256(f"{world.observed.owner.uid} {wanted.revision} {world.now}".encode()).hexdigest()[:8]
    is_back = left is not None and left.is_back
    canary = Role(wanted.revision, wanted.model_version, since=world.now, salt=salt, is_back=is_back)
    leaving = tuple(role for role in state.leaving if role is not left)
    state = state.changed(position=Position(), analysis=(), measured=Measured())
    begun = steps.begin(state.changed(canary=canary, leaving=leaving), world)
    failure = gate.refusal(begun, world, wanted.signature)
    if failure:  # before it has any pod: there is nothing to take down
        state = state.with_outcome(canary, Result.ROLLED_BACK, world.now, failure)
        return state.changed(rejected=(rejections.of(canary, failure, world.spec),))
    return gate.held_back(begun, world, wanted.signature)


def _failure(state: State, obstacle: Obstacle | None, world: World) -> Problem | None:
    """Why the canary has to be put back now."""
    canary = state.canary
    assert canary  # noqa: S101 - for the type checker
    if obstacle and obstacle.failure:
        return obstacle.failure
    pods = world.observed.pods_of(canary.revision)
    problem = checks.problem_of(world.observed.child(DEPLOYMENT, canary.revision), pods)
    detail = f": {problem.message}" if problem else ""
    if state.position.sends_requests and canary.replicas:
        if not canary.is_waking and not any(checks.is_ready(pod) or checks.is_out_of_sight(pod) for pod in pods):
            return Problem(Reason.CANARY_LOST, f"no pod of {canary.revision} is ready any more{detail}")
        if checks.is_crash_looping(pods):
            return Problem(Reason.CANARY_CRASHES, f"pods of {canary.revision} crash again and again{detail}")
    deadline = steps.deadline_of(state, obstacle, world.spec) if obstacle else None
    if obstacle and deadline and world.now >= deadline:
        seconds = world.spec.rollout.progress_deadline_seconds
        what = f"no progress within {seconds} s (rollout.progressDeadlineSeconds): {obstacle.message}{detail}"
        return Problem(Reason.PROGRESS_DEADLINE_EXCEEDED, what)
    return None


def put_back(state: State, failure: Problem, world: World, result: Result) -> State:
    """The canary gets nothing from now on, and is not tried again."""
    canary = state.canary
    assert canary  # noqa: S101 - for the type checker
    # Stable has no pods, or not all of them, and may need the canary's place.
    needs_room = ends_first.is_asked(state, world.spec) or state.position.capacity.lent_by_stable
    delay = 0 if needs_room else world.spec.rollout.abort_scale_down_delay_seconds
    state = _withdrawn(state, result, timedelta(seconds=delay), world, failure)
    return state.changed(rejected=(rejections.of(canary, failure, world.spec),))


def _withdrawn(state: State, result: Result, delay: timedelta, world: World, why: Problem) -> State:
    """Without the canary, in one move: it gets nothing from now on."""
    canary = state.canary
    assert canary  # noqa: S101 - for the type checker
    leaving = Role(canary.revision, canary.model_version, scale_down_at=_leaves_at(delay, world))
    if state.stable:
        state = state.with_outcome(canary, result, world.now, why)
    return state.changed(canary=None, position=Position(), leaving=(*state.leaving, leaving))


def _promoted(state: State, world: World) -> State:
    """By pointer: nothing is started, and no request moves, because the routers already send all of them there."""
    canary = state.canary
    assert canary  # noqa: S101 - for the type checker
    unjudged = state.measured.unjudged
    why = Problem(Reason.INCONCLUSIVE, f"promoted without a verdict: {unjudged}") if unjudged else None
    state = state.with_outcome(canary, Result.PROMOTED, world.now, why)
    leaving = state.leaving
    if state.stable:
        leaves_at = _leaves_at(timedelta(seconds=world.spec.rollout.scale_down_delay_seconds), world)
        before = Role(state.stable.revision, state.stable.model_version, scale_down_at=leaves_at, is_back=True)
        leaving = (*leaving, before)
    stable = Role(canary.revision, canary.model_version, since=world.now, digest=canary.digest)
    return state.changed(stable=stable, canary=None, leaving=leaving, position=Position())


def _leaves_at(delay: timedelta, world: World) -> datetime:
    """When pods that get nothing from now on may end."""
    return world.now + (max(delay, http_route.SETTLES) if world.spec.traffic.by_gateway else delay)
