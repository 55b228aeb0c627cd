"""The decision of one pass: `decide(spec, observed, platform, now) → Decision`. Pure; the same world gives the same answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from moorage_operator.core import (
    arm_revisions,
    arm_routing,
    checks,
    clock,
    commands,
    conditions,
    events,
    judging,
    leftovers,
    no_capacity,
    pins,
    publishing,
    revisions,
    rollout,
    scaling,
    state,
    status,
    steps,
    told,
    traffic,
    verdicts,
    winner,
)
from moorage_operator.core.actions import Action, Apply, Decision, Delete
from moorage_operator.core.facts import Facts
from moorage_operator.core.kinds import DEPLOYMENT, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.plan import Plan
from moorage_operator.core.platform import Platform
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelVersion
from moorage_operator.core.revisions import Revision
from moorage_operator.core.rollout import Progress, Wanted
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.waiting import WaitsFor, World

_NOT_ASKED = (Reason.REGISTRY_NOT_DECLARED, Reason.POLICY_DENIED)
"""Problems for which no registry is asked. Else nothing is written before it has answered this process: what the process before
it made without living to record it (pods of a new version, a moved address) would be undone, and made again, without end."""


def decide(spec: Spec, observed: Observed, platform: Platform, now: datetime) -> Decision:
    """What to write now, what to say, and when to look again. `now` has whole seconds and a time zone."""
    version, problem = resolve(spec, observed, platform)
    known = known_revisions(spec, observed, version)
    named = revisions.chosen(observed.owner, spec, version, known=known, platform=platform) if version else None
    world = World(spec, observed, traffic.routed(spec, observed), now)
    before = clock.seen_at(state.read(observed.status), now)
    current, wanted = winner.wanted(before, named, world, known=known, platform=platform)
    is_held = spec.suspend or (observed.answer is None and not (problem and problem.reason in _NOT_ASKED))
    heard = current if is_held else commands.obey(observed.command, current, world, wanted=_name(wanted), kept=known)
    heard, wanted = _undone(heard, wanted, known)
    # What somebody went back to, or an arm that won, is not what the registry has answered for.
    signature = version.signature if version and wanted is named else None
    target = Wanted(wanted.name, wanted.model.version, signature) if wanted and _may_proceed(problem) else None
    if wanted:
        known.setdefault(wanted.name, wanted)
    progress = _held(current, world) if is_held else rollout.advance(heard, target, world)
    if not is_held and not (problem and problem.reason in _NOT_ASKED):
        progress = replace(progress, state=arm_revisions.advance(progress.state, _name(named), known, platform, world))
    facts = Facts(world, progress, version, problem, _name(wanted))
    after = told.noted(before, facts, known, platform)
    facts = replace(facts, progress=replace(progress, state=after))
    pinned = pins.pinned(observed, after)
    found = conditions.all_of(facts)
    actions = () if is_held else Plan(spec, observed, after, known, pinned).actions()
    programmed = next(item for item in found if item.type == "TrafficProgrammed")
    obstacle = progress.obstacle
    awaits = not programmed.is_true or (obstacle is not None and obstacle.waits_for is WaitsFor.ROUTERS)
    awaits = awaits or not arm_routing.is_programmed(observed, after)
    return Decision(
        actions,
        status.make(facts, found, pinned),
        tuple(events.of_pass(before, facts, found, actions)),
        _look_again_at(progress, world),
        awaits_routers=awaits and spec.traffic.by_haproxy,
        measure=None if is_held else verdicts.measure(after, judging.measure(after, obstacle, world)),
        errands=() if is_held else told.errands(after, observed.owner, platform),
    )


def _name(wanted: Revision | None) -> str:
    return wanted.name if wanted else ""


def _undone(heard: State, wanted: Revision | None, known: dict[str, Revision]) -> tuple[State, Revision | None]:
    """Somebody went back to a kept revision: that one is wanted, until spec or registry name another than they did then."""
    undo = heard.undo
    if undo is None or wanted is None:
        return heard, wanted
    if wanted.name != undo.instead_of or undo.revision not in known:
        return heard.changed(undo=None), wanted
    return heard, known[undo.revision]


def _held(before: State, world: World) -> Progress:
    """Nothing moves, and what was said last time stays true."""
    if before.canary is None:
        return Progress(before)
    return Progress(before, judging.alarm(before, world) or steps.go_on(before, world)[1])


def is_momentous(observed: Observed, decision: Decision) -> bool:
    """Does it move traffic away from a revision, or end anything? Then it must rest on live reads, not on an index."""
    before, after = (_traffic_in(item) for item in (observed.status, decision.status))
    moves = before != after and before[0] is not None
    return moves or any(isinstance(action, Delete) or _scales_to_zero(observed, action) for action in decision.actions)


def _traffic_in(status: Manifest) -> tuple[Any, ...]:
    stable, canary = (status.get(role, {}).get("revision") for role in ("stable", "canary"))
    weight, routes = status.get("weights", {}).get("desired", 0), status.get("headerRoutes", [])
    arms = status.get("experiment", {}).get("arms", [])
    by_arm = [(arm["name"], arm["revision"], arm.get("weight"), arm.get("match")) for arm in arms if "revision" in arm]
    return stable, canary if weight or routes else None, weight, routes, status.get("capacity", {}), by_arm


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
    for role in state.read(observed.status).roles:
        deployment = observed.child(DEPLOYMENT, role.revision)
        if deployment and role.revision not in known:
            model = ModelVersion(spec.model.name, role.model_version, "", "")
            if version and version.version == role.model_version:
                model = version
            known[role.revision] = revisions.from_deployment(deployment, model, number=revisions.next_number(known))
    return known


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


def _look_again_at(progress: Progress, world: World) -> datetime | None:
    """The next moment at which the clock alone changes the decision."""
    if world.spec.suspend:
        return None
    after, obstacle = progress.state, progress.obstacle
    moments = [role.scale_down_at for role in after.leaving] + [*map(leftovers.lost_at, world.observed.pods)]
    moments.append(publishing.grace_until(world.spec, world.observed))
    moments += [moment for contest in world.observed.contests.values() for moment in contest.moments]
    if after.canary:
        moments += [judging.begins_at(after.measured, world.spec), no_capacity.due_at(after, world.spec)]
    if obstacle:
        moments += [obstacle.until, steps.deadline_of(after, obstacle, world.spec)]
    if world.spec.autoscaling:
        moments.append(scaling.metrics_due_at(world.observed, after))
    return min((moment for moment in moments if moment and moment > world.now), default=None)


def _scales_to_zero(observed: Observed, action: Action) -> bool:
    if not isinstance(action, Apply) or action.ref.kind is not DEPLOYMENT:
        return False
    return action.manifest["spec"].get("replicas") == 0 and observed.replicas(action.ref.name) > 0
