"""Where the steps of a rollout meet its analysis: when to count, what a sample changes, and whether a step may be followed by more."""

from __future__ import annotations

from datetime import datetime

import msgspec

from moorage_operator.core import analysis, http_route, names
from moorage_operator.core.actions import Measure
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Measured, State
from moorage_operator.core.strategy import Step
from moorage_operator.core.ticks import Arms
from moorage_operator.core.waiting import Obstacle, WaitsFor, World


def arms_of(state: State, spec: Spec) -> Arms | None:
    """Who is compared; None while nobody is: with a first revision, and where both versions never answer at the same time."""
    canary, stable = state.canary, state.stable
    alone = state.position.capacity.stable_ended
    if canary is None or stable is None or canary.is_back or alone or not spec.rollout.is_weighted:
        return None
    return Arms(
        stable=stable.revision,
        canary=canary.revision,
        by_haproxy=spec.traffic.by_haproxy,
        by_gateway=spec.traffic.by_gateway,
        is_sticky=spec.traffic.stickiness.is_set,
        weight=state.position.weight,
    )


def heeded(state: State, world: World) -> tuple[State, Problem | None]:
    """With what has been counted since the last look, and the harm that it shows."""
    arms, sample = arms_of(state, world.spec), world.observed.sample
    if arms is None or sample is None or (state.measured.at and sample.since < state.measured.at):
        # One from before was heeded already: the status was written, but nobody heard of it.
        return state, None
    report = analysis.heed(world.spec.rollout.judged_by, state.analysis, state.measured, sample, arms)
    state = state.changed(analysis=report.judged, measured=report.measured)
    return state, Problem(Reason.ANALYSIS_FAILED, report.harm) if report.harm else None


def alarm(state: State, world: World) -> Obstacle | None:
    """The requests do not come as the weight says: nothing goes on until they do, or somebody acts."""
    arms = arms_of(state, world.spec)
    words = analysis.ratio_alarm(state.measured, arms) if arms else ""
    if not (arms and words):
        return None
    command = names.command(world.observed.owner.name, f"resume@{arms.canary}")
    return Obstacle(WaitsFor.PERSON, f"{words}; abort it, or find out why, and go on with: {command}")


def obstacle(state: State, step: Step, following: tuple[Step, ...], world: World) -> Obstacle | None:
    """Before the canary gets more than it has: it must have been judged after the step's time was up, by enough requests."""
    arms, judged_by = _arms_that_gate(state, step, following, world), world.spec.rollout.judged_by
    if arms is None:
        return None
    since = (state.position.started_at or world.now) + step.dwell
    if state.measured.at is None or state.measured.at < since:
        return Obstacle(WaitsFor.TRAFFIC, "the answers of both versions are being counted", wants_look=True)
    words = _unseen(state, arms, _weight_after(following), world)
    if not words:
        return None
    until = since + judged_by.timeout
    if world.now < until:
        return Obstacle(WaitsFor.TRAFFIC, words, until)
    return _inconclusive(state, words, world)


def _weight_after(following: tuple[Step, ...]) -> int | None:
    return following[0].set_weight if following else None


def _arms_that_gate(state: State, step: Step, following: tuple[Step, ...], world: World) -> Arms | None:
    """None where nothing has to be seen before what follows."""
    arms, weight_after = arms_of(state, world.spec), _weight_after(following)
    gets_more = weight_after is not None and weight_after > state.position.weight
    if arms and analysis.seeing(world.spec.rollout.judged_by, arms.weight) and (gets_more or step.analysis):
        return arms
    return None


def _unseen(state: State, arms: Arms, weight_after: int | None, world: World) -> str:
    judged_by = world.spec.rollout.judged_by
    return analysis.missing(judged_by, state.analysis, weight=arms.weight, last_step=weight_after == 100)


def with_what_was_passed_over(state: State, step: Step, following: tuple[Step, ...], world: World) -> State:
    """Of a step that goes on: it may do so without a verdict, and then that must not be lost."""
    arms, weight_after = _arms_that_gate(state, step, following, world), _weight_after(following)
    words = _unseen(state, arms, weight_after, world) if arms else ""
    return state.changed(measured=msgspec.structs.replace(state.measured, unjudged=words)) if words else state


def _inconclusive(state: State, words: str, world: World) -> Obstacle | None:
    """After rollout.analysis.timeoutSeconds."""
    match world.spec.rollout.judged_by.on_inconclusive:
        case "promote":
            return None
        case "rollback":
            return Obstacle(WaitsFor.TRAFFIC, words, failure=Problem(Reason.INCONCLUSIVE, words))
        case _:
            revision = state.canary.revision if state.canary else ""
            command = names.command(world.observed.owner.name, f"promote@{revision}/{state.position.index}")
            return Obstacle(WaitsFor.PERSON, f"inconclusive: {words}; to go on all the same: {command}")


def baseline_obstacle(state: State, world: World) -> Obstacle | None:
    """Stable alone is measured before the first weight, where a guard needs that."""
    until = baseline_end(state, world.spec)
    if until is None or world.now >= until or state.position.weight:
        return None
    return Obstacle(WaitsFor.CLOCK, "the latency of stable is being measured", until)


def baseline_end(state: State, spec: Spec) -> datetime | None:
    """When it has been measured; None where nobody needs that."""
    baseline = spec.rollout.judged_by.baseline
    if not baseline or arms_of(state, spec) is None or state.canary is None or state.canary.since is None:
        return None
    return state.canary.since + baseline


def with_new_ratio(state: State) -> State:
    """For another weight."""
    return state.changed(measured=msgspec.structs.replace(state.measured, canary_requests=0, requests=0))


def with_verified_weight(state: State, world: World) -> State:
    """Remembers since when the routers hold what they ought to: only requests after that are judged."""
    weight, measured = state.position.weight, state.measured
    if not world.routed.holds(state) or measured.weight == weight:
        return state
    since = measured.since or world.now
    return state.changed(measured=msgspec.structs.replace(measured, weight=weight, weight_at=world.now, since=since))


def measure(state: State, waits: Obstacle | None, world: World) -> Measure | None:
    """What to count from now on."""
    arms = arms_of(state, world.spec)
    if arms is None:
        return None
    judged_by, measured = world.spec.rollout.judged_by, state.measured
    starts = begins_at(measured, world.spec)
    is_cut = measured.weight != arms.weight or (starts is not None and world.now < starts)
    names_of = {"canary": arms.canary, "stable": arms.stable, "namespace": world.observed.owner.namespace}
    return Measure(
        revisions=(arms.stable, arms.canary),
        queries={
            guard.name: _filled(guard.prometheus.query, names_of) for guard in judged_by.guards if guard.prometheus
        },
        interval=judged_by.interval,
        at_once=waits is not None and waits.wants_look,
        is_cut=is_cut,
    )


def begins_at(measured: Measured, spec: Spec) -> datetime | None:
    """When the first weight has been there for initialDelaySeconds, and a Gateway acts by the one of now."""
    if measured.since is None:
        return None
    warm = measured.since + spec.rollout.judged_by.initial_delay
    if not (spec.traffic.by_gateway and measured.weight_at):
        return warm
    return max(warm, measured.weight_at + http_route.SETTLES)


def _filled(query: str, values: dict[str, str]) -> str:
    """With `{{canary}}`, `{{stable}}` and `{{namespace}}` replaced."""
    for name, value in values.items():
        query = query.replace("{{" + name + "}}", value)
    return query
