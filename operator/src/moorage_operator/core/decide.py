"""The decision of one pass: `decide(spec, observed, platform, now) → Decision`. Pure; the same world gives the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from moorage_operator.core import checks, conditions, revisions, rollout, scaling, status
from moorage_operator.core.actions import Action, Apply, Decision, Delete, Event, RestoreTemplate
from moorage_operator.core.compare import describe_difference, was_applied
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import DEPLOYMENT
from moorage_operator.core.observed import Observed
from moorage_operator.core.plan import Plan, pinned_digests
from moorage_operator.core.platform import Platform
from moorage_operator.core.reasons import STILL_WAITING, Problem, Reason
from moorage_operator.core.registry import ModelVersion
from moorage_operator.core.revisions import Revision
from moorage_operator.core.rollout import Roles, Wanted
from moorage_operator.core.spec import Spec

_NOT_ASKED = (Reason.REGISTRY_NOT_DECLARED, Reason.POLICY_DENIED)
"""Problems for which no registry is asked. Else nothing is written before it has answered this process: what the process before
it made without living to record it (pods of a new version, a moved address) would be undone, and made again, without end."""


def decide(spec: Spec, observed: Observed, platform: Platform, now: datetime) -> Decision:
    """What to write now, what to say, and when to look again. `now` has whole seconds and a time zone."""
    version, problem = resolve(spec, observed, platform)
    known = known_revisions(spec, observed, version)
    wanted = wanted_revision(spec, observed, platform, known, version)
    before = rollout.read(observed.status)
    target = Wanted(wanted.name, wanted.model.version) if wanted and _may_proceed(problem) else None
    is_held = spec.suspend or (observed.answer is None and not (problem and problem.reason in _NOT_ASKED))
    roles = before if is_held else rollout.advance(before, target, spec, observed, now)
    if wanted:
        known.setdefault(wanted.name, wanted)
    digests = pinned_digests(observed, roles)
    facts = Facts(spec, observed, roles, version, problem, wanted.name if wanted else "", now)
    found = conditions.all_of(facts)
    actions = () if is_held else Plan(spec, observed, roles, known, digests).actions()
    happened = (
        *_role_events(before, roles),
        *_drift_events(observed, actions),
        *_condition_events(observed, found),
        *_resolution_event(facts, next(item for item in found if item.type == "ModelResolved")),
    )
    return Decision(actions, status.make(facts, found, digests), happened, _look_again_at(roles, spec, observed, now))


def is_momentous(observed: Observed, decision: Decision) -> bool:
    """Does it move traffic away from a revision, or end anything? Then it must rest on live reads, not on an index."""
    before, after = observed.status.get("stable") or {}, decision.status.get("stable") or {}
    moves = bool(before) and after.get("revision") != before["revision"]
    return moves or any(isinstance(action, Delete) or _scales_to_zero(observed, action) for action in decision.actions)


def resolve(spec: Spec, observed: Observed, platform: Platform) -> tuple[ModelVersion | None, Problem | None]:
    """The wanted version, as far as it is known, and what stands in the way. Both, when the registry is down."""
    registry = spec.model.registry.name
    if registry not in platform.registries:
        declared = ", ".join(sorted(platform.registries)) or "none"
        message = f"the registry {registry} is not declared in the operator's chart (declared: {declared})"
        return None, Problem(Reason.REGISTRY_NOT_DECLARED, message)
    refusal = platform.policy.refusal(spec)
    if refusal:
        return None, Problem(Reason.POLICY_DENIED, refusal)
    answer = observed.answer
    if answer is None:
        known = _known_version(spec, observed)
        return known, _said_before(spec, observed, known)
    version = answer.version
    if version is None and answer.problem and answer.problem.reason is Reason.REGISTRY_UNREACHABLE:
        version = _known_version(spec, observed)
    return version, answer.problem


def known_revisions(spec: Spec, observed: Observed, version: ModelVersion | None) -> dict[str, Revision]:
    """All frozen revisions; one whose ControllerRevision was deleted by hand is read back from its Deployment."""
    known = observed.frozen_revisions()
    roles = rollout.read(observed.status)
    for role in (roles.stable, roles.canary, roles.previous):
        deployment = observed.child(DEPLOYMENT, role.revision) if role else None
        if role and deployment and role.revision not in known:
            model = ModelVersion(spec.model.name, role.model_version, "", "")
            if version and version.version == role.model_version:
                model = version
            known[role.revision] = revisions.from_deployment(deployment, model, number=_next_number(known))
    return known


def wanted_revision(
    spec: Spec, observed: Observed, platform: Platform, known: dict[str, Revision], version: ModelVersion | None
) -> Revision | None:
    """The revision for spec and version: the frozen one if it was made before, else a new one with today's defaults."""
    if version is None:
        return None
    name = revisions.name_of(observed.owner, spec, version)
    if name in known:
        return known[name]
    return revisions.make(observed.owner, spec, version, number=_next_number(known), platform=platform)


def _may_proceed(problem: Problem | None) -> bool:
    """A registry that is silent does not take back what it said before."""
    return problem is None or problem.reason in (Reason.REGISTRY_UNREACHABLE, Reason.RESOLVING)


def _known_version(spec: Spec, observed: Observed) -> ModelVersion | None:
    """The last answer of the registry to the same question, from the status."""
    model = observed.status.get("model") or {}
    asked = (spec.model.name, spec.model.registry.name, spec.model.alias)
    if asked != (model.get("name"), model.get("registry"), model.get("alias", "")):
        return None
    if spec.model.version and spec.model.version != model.get("version"):
        return None
    return ModelVersion(model["name"], model["version"], model.get("runID", ""), model.get("source", ""))


def _said_before(spec: Spec, observed: Observed, known: ModelVersion | None) -> Problem | None:
    """What was said of this spec stands until the registry has answered: that the operator was restarted is no news."""
    before = checks.condition_of({"status": observed.status}, "ModelResolved")
    is_current = before.get("observedGeneration") == observed.generation
    if is_current and before["status"] == "True" and known:
        return None
    if is_current and before["status"] != "True" and before["reason"] in Reason.__members__.values():
        return Problem(Reason(before["reason"]), before["message"])
    return Problem(Reason.RESOLVING, f"asking the registry {spec.model.registry.name} for {spec.model.ref}")


def _next_number(known: dict[str, Revision]) -> int:
    return max((revision.number for revision in known.values()), default=0) + 1


def _look_again_at(roles: Roles, spec: Spec, observed: Observed, now: datetime) -> datetime | None:
    """The next moment at which the clock alone changes the decision."""
    if spec.suspend:
        return None
    moments = [rollout.deadline_of(roles, spec), roles.previous.scale_down_at if roles.previous else None]
    moments.append(scaling.metrics_due_at(observed, roles) if spec.autoscaling else None)
    return min((moment for moment in moments if moment and moment > now), default=None)


def _scales_to_zero(observed: Observed, action: Action) -> bool:
    if not isinstance(action, Apply) or action.ref.kind is not DEPLOYMENT:
        return False
    return action.manifest["spec"].get("replicas") == 0 and observed.replicas(action.ref.name) > 0


def _role_events(before: Roles, after: Roles) -> Iterator[Event]:
    promoted = after.stable and (before.stable is None or before.stable.revision != after.stable.revision)
    began = after.canary and (before.canary is None or before.canary.revision != after.canary.revision)
    if began and after.canary:
        yield Event(
            Reason.REVISION_CREATED, f"{after.canary.revision} is starting (version {after.canary.model_version})"
        )
    if promoted and after.stable:
        yield Event(Reason.PROMOTED, f"{after.stable.revision} answers now (version {after.stable.model_version})")
    for role in (before.canary, before.previous):
        if role and role.revision not in after.revisions:
            yield Event(Reason.REVISION_RETIRED, f"the pods of {role.revision} end")


def _drift_events(observed: Observed, actions: tuple[Action, ...]) -> Iterator[Event]:
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


def _condition_events(observed: Observed, found: list[Condition]) -> Iterator[Event]:
    """One event for each problem when it appears; its end is told by what follows."""
    before = {item["type"]: item for item in observed.status.get("conditions", [])}
    told: set[Reason] = set()
    for condition in found:
        was = before.get(condition.type, {})
        if condition.type in ("Reconciling", "Stalled", "Available") or condition.reason in told:
            continue
        if condition.status != "True" and was.get("reason") != condition.reason and _worth_telling(condition.reason):
            told.add(condition.reason)
            yield Event(condition.reason, condition.message, warning=True)


def _resolution_event(facts: Facts, resolved: Condition) -> Iterator[Event]:
    """When the registry names another version, and when it names the same one again after a problem."""
    told = facts.observed.status
    was = checks.condition_of({"status": told}, "ModelResolved")
    is_known = told.get("model") == status.model_of(facts) and was.get("reason") in (Reason.RESOLVED, Reason.RESOLVING)
    if resolved.is_true and not is_known:
        yield Event(Reason.VERSION_RESOLVED, resolved.message)


def _worth_telling(reason: Reason) -> bool:
    return conditions.is_problem(reason) or reason in STILL_WAITING
