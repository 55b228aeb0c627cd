"""What a pass tells as Kubernetes Events: only what happened, each with the thing's name and its new value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from moorage_operator.core import (
    arm_status,
    checks,
    conditions,
    conflicts,
    gate,
    header_routes,
    names,
    no_capacity,
    status,
    told,
)
from moorage_operator.core.actions import Action, Apply, Event, RestoreTemplate
from moorage_operator.core.compare import describe_difference, was_applied
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import EVENT, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import STILL_WAITING, Reason
from moorage_operator.core.state import Outcome, Result, State


def make(observed: Observed, event: Event, now: datetime) -> Manifest:
    """Named by what happened to which state of the ModelDeployment: told again after a crash, it is the same Event."""
    owner = observed.owner
    regarding = owner.reference() | {"namespace": owner.namespace, "resourceVersion": observed.resource_version}
    for key in ("controller", "blockOwnerDeletion"):
        del regarding[key]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {
            "name": names.event_name(owner.name, owner.uid, observed.resource_version, event.reason, event.message),
            "namespace": owner.namespace,
        },
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": "moorage.dev/operator",
        "reportingInstance": "moorage-operator",
        "action": "Reconcile",
        "reason": event.reason,
        "note": event.message[:1024],
        "type": "Warning" if event.warning else "Normal",
        "regarding": regarding,
    }


def of_pass(before: State, facts: Facts, found: list[Condition], actions: Iterable[Action]) -> Iterator[Event]:
    """`before` is the state that the last pass left, `found` and `actions` are what this one makes of it."""
    of_conditions = list(_of_conditions(facts.observed, found))
    # A condition says more: what to do, too.
    said = {event.reason for event in of_conditions}
    yield from _of_command(before, facts.state)
    yield from (event for event in _of_roles(before, facts.state) if event.reason not in said)
    yield from arm_status.events(before, facts.state)
    yield from _of_signature(facts)
    yield from told.events(before, facts.state)
    yield from _of_drift(facts.observed, actions)
    yield from of_conditions
    yield from conflicts.events(facts)
    yield from _of_resolution(facts, next(item for item in found if item.type == "ModelResolved"))


def _of_command(before: State, after: State) -> Iterator[Event]:
    if after.command and after.command != before.command:
        if after.command.refused:
            yield Event(
                Reason.COMMAND_REFUSED, f"{names.COMMAND}={after.command.text}: {after.command.refused}", warning=True
            )
        else:
            yield Event(Reason.COMMAND_DONE, f"{names.COMMAND}={after.command.text}")


def _of_roles(before: State, after: State) -> Iterator[Event]:
    began = after.canary and (before.canary is None or before.canary.revision != after.canary.revision)
    if began and after.canary:
        yield Event(
            Reason.REVISION_CREATED, f"{after.canary.revision} is starting (version {after.canary.model_version})"
        )
    elif after.canary and after.stable and after.position.weight != before.position.weight:
        yield Event(Reason.WEIGHT_SET, f"{after.position.weight} % of the requests go to {after.canary.revision}")
    unjudged = after.measured.unjudged
    if after.canary and unjudged and unjudged != before.measured.unjudged:
        what = f"{after.canary.revision} goes on without a verdict (onInconclusive: promote)"
        yield Event(Reason.INCONCLUSIVE, f"{what}: {unjudged}", warning=True)
    if after.canary and after.position.routes != before.position.routes:
        yield Event(Reason.ROUTES_SET, f"{header_routes.told(after.position.routes)} to {after.canary.revision}")
    given_up = no_capacity.told(before, after)
    if given_up:
        yield Event(Reason.MADE_ROOM, given_up, warning=after.position.capacity.stable_ended)
    old = {outcome.identity for outcome in before.history}
    for outcome in reversed(after.history):
        if outcome.identity not in old:
            yield _of_outcome(outcome)
    for gone in sorted(before.revisions - after.revisions):
        yield Event(Reason.REVISION_RETIRED, f"the pods of {gone} end")


def _of_signature(facts: Facts) -> Iterator[Event]:
    """When a canary goes on although its signature is not compatible, or is not known."""
    words, canary = gate.told(facts.state, facts.world), facts.state.canary
    before = facts.observed.status.get("canary", {}).get("signature", "")
    if canary and words not in ("", gate.COMPATIBLE, before):
        yield Event(Reason.SIGNATURE_PASSED_OVER, f"the signature of version {canary.model_version} is {words}")


def _of_outcome(outcome: Outcome) -> Event:
    of_version = f"{outcome.revision} (version {outcome.model_version})"
    match outcome.result:
        case Result.PROMOTED:
            words = f"{outcome.revision} answers now (version {outcome.model_version})"
            unjudged = f"; {outcome.message}" if outcome.message else ""
            return Event(Reason.PROMOTED, f"{words}{unjudged}", warning=bool(unjudged))
        case Result.ROLLED_BACK:
            return Event(Reason.ROLLED_BACK, f"{of_version} was put back: {outcome.message}", warning=True)
        case Result.ABORTED:
            return Event(Reason.ABORTED, f"the rollout of {of_version} was ended: {outcome.message}")
        case Result.SUPERSEDED:
            return Event(Reason.SUPERSEDED, f"the rollout of {of_version} was ended: {outcome.message}")


def _of_drift(observed: Observed, actions: Iterable[Action]) -> Iterator[Event]:
    for action in actions:
        if isinstance(action, RestoreTemplate):
            yield Event(
                Reason.DRIFT_REPAIRED,
                f"put back {action.deployment.kind.name} {action.deployment.name}: fields added to its pod template",
            )
        live = observed.children.get(action.ref) if isinstance(action, Apply) else None
        if isinstance(action, Apply) and live and was_applied(action.manifest, live):
            where = describe_difference(action.manifest, live)
            yield Event(Reason.DRIFT_REPAIRED, f"put back {action.ref.kind.name} {action.ref.name}: {where}")


def _of_conditions(observed: Observed, found: list[Condition]) -> Iterator[Event]:
    """One event for each problem when it appears; its end is told by what follows."""
    before = {item["type"]: item for item in observed.status.get("conditions", [])}
    said: set[Reason] = set()
    for condition in found:
        was = before.get(condition.type, {})
        if condition.type in ("Reconciling", "Stalled", "Available") or condition.reason in said:
            continue
        if condition.reason is Reason.FIELD_CONFLICT:  # told for each child
            continue
        if condition.status != "True" and was.get("reason") != condition.reason and _worth_telling(condition.reason):
            said.add(condition.reason)
            yield Event(condition.reason, condition.message, warning=True)


def _of_resolution(facts: Facts, resolved: Condition) -> Iterator[Event]:
    """When the registry names another version, and when it names the same one again after a problem."""
    said = facts.observed.status
    was = checks.condition_of({"status": said}, "ModelResolved")
    is_known = said.get("model") == status.model_of(facts) and was.get("reason") in (Reason.RESOLVED, Reason.RESOLVING)
    if resolved.is_true and not is_known:
        yield Event(Reason.VERSION_RESOLVED, resolved.message)


def _worth_telling(reason: Reason) -> bool:
    return conditions.is_problem(reason) or reason in STILL_WAITING
