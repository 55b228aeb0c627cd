"""What is told of an experiment: its part of the status, and what happened to its arms as events."""

from __future__ import annotations

from collections.abc import Iterator

from moorage_operator.core import arm_routing, struct, traffic
from moorage_operator.core.actions import Event
from moorage_operator.core.facts import Facts
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.reasons import Reason
from moorage_operator.core.state import State
from moorage_operator.core.trial import Arm, Finding, Verdict


def as_stored(facts: Facts) -> Manifest | None:
    """`status.experiment`."""
    experiment = facts.state.experiment
    if not experiment.arms and not experiment.winner:
        return None
    return struct.plain(experiment) | {"arms": [_arm(arm, facts) for arm in experiment.arms]}


def _arm(arm: Arm, facts: Facts) -> Manifest:
    return struct.plain(arm) | {
        "readyReplicas": traffic.ready_pods(facts.observed, arm.revision) if arm.revision else 0
    }


def weights(facts: Facts) -> list[Manifest] | None:
    """In percent of all requests: as asked for, and as all routers say that they hold it."""
    return [_weight(arm, facts) for arm in facts.state.experiment.arms] or None


def _weight(arm: Arm, facts: Facts) -> Manifest:
    asked = {item.name: item.weight for item in facts.spec.arms}
    applied = arm_routing.applied(facts.observed, arm.name)
    is_held = arm_routing.is_held(facts.observed, arm) if arm.revision else applied == 0
    weight: Manifest = {"name": arm.name, "desired": asked.get(arm.name, 0)}
    weight |= {"applied": applied} if applied is not None else {}
    return weight | {"verified": is_held and arm.weight == weight["desired"]}


def events(before: State, after: State) -> Iterator[Event]:
    known = {arm.name: arm for arm in before.experiment.arms}
    for arm in after.experiment.arms:
        yield from _of_arm(known.pop(arm.name, Arm(arm.name)), arm)
    won = after.experiment.winner
    if won and won != before.experiment.winner:
        what = f"the arm {won.arm} has won: version {won.model_version} is wanted instead of {won.instead_of}"
        yield Event(Reason.ARM_WON, f"{what}, as long as spec and registry name that")
    for name in known:
        yield Event(Reason.WEIGHT_SET, f"the arm {name} is no more: no requests go to it")


def _of_arm(before: Arm, after: Arm) -> Iterator[Event]:
    present = {version.revision for version in before.versions}
    for version in after.versions:
        if version.revision not in present:
            what = f"{version.revision} is starting for the arm {after.name} (version {version.model_version})"
            yield Event(Reason.REVISION_CREATED, what)
    if after.weight != before.weight or (after.weight and after.revision != before.revision):
        what = f"{after.weight} % of the requests go to the arm {after.name}, {after.revision}"
        yield Event(Reason.WEIGHT_SET, what)
    if after.problem and not before.problem:
        yield Event(Reason.ARM_IN_TROUBLE, f"the arm {after.name}: {after.problem}", warning=True)
    known = {item.metric: item.verdict for item in before.verdicts}
    for item in after.verdicts:
        if item.verdict is not Finding.NONE and item.verdict is not known.get(item.metric):
            yield Event(Reason.ARM_JUDGED, f"the arm {after.name}, {after.revision}, is {_in_words(item)}")


def _in_words(item: Verdict) -> str:
    low, high = (f"{bound:g}" if bound is not None else "?" for bound in (item.low or 0.0, item.high))
    odds = f"the odds ratio to stable is {item.estimate:g} ({low} to {high})"
    return f"{item.verdict} in {item.metric}: {odds}, after {item.requests:,} requests"
