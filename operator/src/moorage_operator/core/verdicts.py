"""How the arms of an experiment compare with stable: from what was counted between two looks to an odds ratio and its bounds.

Only requests that were assigned by weight count. An arm or a stable that has another version is compared anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec

from moorage_operator.core import arm_routing, evidence, intervals, ticks
from moorage_operator.core.actions import Measure
from moorage_operator.core.counted import Sample
from moorage_operator.core.evidence import Tick
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Role, State
from moorage_operator.core.trial import Arm, Evidence, Finding, Verdict
from moorage_operator.core.waiting import World

ALPHA = 0.05
"""So often one of all intervals of an experiment may be wrong, however often one looks."""

INTERVAL = timedelta(seconds=60)
"""Between two looks, where no rollout asks for more."""

BASELINE_TICKS = 5
"""So many show how much bad answers come in bursts; they are not judged."""

ERRORS, SLOW, WRONG = "errors", "slow", "wrong"


def measure(state: State, rollout: Measure | None) -> Measure | None:
    """What to count from now on, for a rollout and for the experiment."""
    begun = [arm.revision for arm in state.experiment.arms if arm.has_begun]
    if state.stable is None or not begun:
        return rollout
    if rollout is None:
        rollout = Measure((state.stable.revision,), {}, INTERVAL, at_once=False, is_cut=False)
    revisions = tuple(dict.fromkeys((*rollout.revisions, *begun)))
    return Measure(revisions, rollout.queries, rollout.interval, at_once=rollout.at_once, is_cut=rollout.is_cut)


def heeded(state: State, world: World) -> State:
    """With what has been counted since the last look, and a note of since when the routers hold what is counted next."""
    stable, sample, experiment = state.stable, world.observed.sample, state.experiment
    if stable is None:
        return state
    arms = tuple(_watched(arm, stable, world) for arm in experiment.arms)
    if sample is not None and not (experiment.at and sample.since < experiment.at):
        judged = tuple(_judged(arm, stable, sample, world.spec) for arm in arms)
        if judged != arms:
            arms, experiment = judged, msgspec.structs.replace(experiment, at=sample.until)
    return state.changed(experiment=msgspec.structs.replace(experiment, arms=arms))


def _watched(arm: Arm, stable: Role, world: World) -> Arm:
    if not arm.has_begun:
        return arm
    pair = (arm.revision, stable.revision)
    if arm.compared != pair:
        arm = arm.changed(compared=pair, held_since=None, requests=0, errors=0, verdicts=())
    if not arm.weight or not arm_routing.is_held(world.observed, arm):
        return arm.changed(held_since=None)
    return arm if arm.held_since else arm.changed(held_since=world.now)


def _judged(arm: Arm, stable: Role, sample: Sample, spec: Spec) -> Arm:
    if arm.held_since is None or sample.since < max(arm.held_since, stable.since or arm.held_since):
        return arm
    found = dict(_ticks(arm, stable, sample, spec))
    if not any(tick.canary_requests or tick.stable_requests for tick in found.values()):
        return arm
    before = {item.metric: item.state for item in arm.verdicts}
    alpha = ALPHA / (len(found) * len(spec.arms))
    verdicts = tuple(_verdict(name, _grown(before.get(name, Evidence()), tick), alpha) for name, tick in found.items())
    requests, errors = found[ERRORS].canary_requests, found[ERRORS].canary_bad
    return arm.changed(requests=arm.requests + requests, errors=arm.errors + errors, verdicts=verdicts)


def _ticks(arm: Arm, stable: Role, sample: Sample, spec: Spec) -> Iterator[tuple[str, Tick]]:
    """By metric."""
    who = ticks.Arms(
        stable.revision, arm.revision, by_haproxy=True, by_gateway=False, is_sticky=False, weight=arm.weight
    )
    sides = (arm.name, arm.revision), (ticks.STABLE, stable.revision)
    of_arm, of_stable = (ticks.failed(sample, name, revision, who) for name, revision in sides)
    yield ERRORS, Tick(*of_arm, *of_stable)
    seconds = _threshold(spec, sample, stable)
    if seconds is not None:
        of_arm, of_stable = (ticks.slow(sample, name, revision, seconds, who) for name, revision in sides)
        yield SLOW, Tick(*of_arm, *of_stable)
    of_arm, of_stable = (ticks.wrong(sample, name, revision, who) for name, revision in sides)
    yield WRONG, Tick(*of_arm, *of_stable)


def _threshold(spec: Spec, sample: Sample, stable: Role) -> float | None:
    """Of the first guard that names one, rounded up to an edge of the runtimes' histogram."""
    guards = spec.rollout.judged_by.guards
    named = [guard.latency.max_seconds for guard in guards if guard.latency and guard.latency.max_seconds is not None]
    edges = ticks.edges(sample, stable.revision).values()
    return min((edge for edge in edges if named and edge >= named[0]), default=None)


def _grown(before: Evidence, tick: Tick) -> Evidence:
    """The first ticks say how much stable's bad answers come in bursts; then that is kept."""
    if len(before.baseline) < BASELINE_TICKS:
        baseline = (
            (*before.baseline, (tick.stable_requests, tick.stable_bad)) if tick.stable_requests else before.baseline
        )
        return msgspec.structs.replace(before, baseline=baseline)
    if not (tick.canary_requests and tick.stable_requests):
        return before
    logs = intervals.grown(before.logs, tick, evidence.dispersion(before.baseline))
    return msgspec.structs.replace(
        before,
        requests=before.requests + tick.canary_requests,
        bad=before.bad + tick.canary_bad,
        stable_requests=before.stable_requests + tick.stable_requests,
        stable_bad=before.stable_bad + tick.stable_bad,
        logs=tuple(round(log, 3) for log in logs),
    )


def _verdict(metric: str, state: Evidence, alpha: float) -> Verdict:
    """An arm that is better has fewer bad answers."""
    if not state.requests or not (state.bad or state.stable_bad):
        return Verdict(metric, Finding.NONE, state.requests, state=state)
    found = intervals.of(state.logs, alpha)
    finding = Finding.BETTER if found.is_below_one else Finding.WORSE if found.is_above_one else Finding.NONE
    estimate, low, high = (_in_short(value) for value in (found.estimate, found.low, found.high))
    return Verdict(metric, finding, state.requests, estimate, low, high, state)


def _in_short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
