"""One function a condition: what is observed, as status, reason and message. Pure sentences; nothing here decides anything."""

from __future__ import annotations

from moorage_operator.core import (
    checks,
    conflicts,
    header_routes,
    judging,
    names,
    no_capacity,
    pins,
    publishing,
    scaling,
    steps,
    traffic,
)
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import DEPLOYMENT, HTTP_ROUTE, SERVICE
from moorage_operator.core.reasons import STILL_WAITING, Problem, Reason
from moorage_operator.core.routing import RouterView
from moorage_operator.core.state import Rejected, Role
from moorage_operator.core.waiting import WaitsFor


def all_of(facts: Facts) -> list[Condition]:
    """Every condition, in the order in which a person reads them."""
    resolved, running = model_resolved(facts), conflicts.marked(runtime_available(facts), facts)
    programmed, available = traffic_programmed(facts), is_available(facts)
    ready = is_ready(facts, resolved, running, programmed, available)
    found = [ready, available, resolved, running, programmed]
    if facts.spec.autoscaling:
        found.append(conflicts.marked(scaling.scaling_active(facts), facts))
    stalled = is_stalled(facts, ready, running)
    if stalled:
        found.append(stalled)
    elif not ready.is_true and not facts.spec.suspend:
        found.append(Condition("Reconciling", "True", ready.reason, ready.message))
    return found


def model_resolved(facts: Facts) -> Condition:
    ref = facts.spec.model.ref
    if facts.problem and facts.problem.reason in (Reason.REGISTRY_UNREACHABLE, Reason.RESOLVING):
        return Condition("ModelResolved", "Unknown", facts.problem.reason, facts.problem.message)
    if facts.problem:
        return Condition("ModelResolved", "False", facts.problem.reason, facts.problem.message)
    version = facts.version.version if facts.version else "?"
    return Condition("ModelResolved", "True", Reason.RESOLVED, f"{ref} is version {version}")


def runtime_available(facts: Facts) -> Condition:
    """About the newest revision: the one on its way, else the stable one."""
    role = facts.state.newest
    if role is None:
        return Condition("RuntimeAvailable", "Unknown", Reason.NOT_STARTED, "no revision has been started yet")
    deployment = facts.observed.child(DEPLOYMENT, role.revision)
    found = checks.problem_of(deployment, facts.observed.pods_of(role.revision)) or _digests_differ(
        facts, role.revision
    )
    refused = _refused(facts, role.revision)
    if refused or found:
        problem = refused or found
        assert problem is not None  # noqa: S101 - for the type checker
        no_room = problem.reason in (Reason.INSUFFICIENT_GPU, Reason.UNSCHEDULABLE)
        helps = no_capacity.hint(facts.state, facts.world) if no_room else ""
        return Condition("RuntimeAvailable", "False", problem.reason, problem.message + helps)
    ready = traffic.ready_pods(facts.observed, role.revision)
    needed = role.replicas or _count(facts, role.revision)
    message = f"{ready} of {needed} pods of {role.revision} are ready"
    if ready >= needed:
        return Condition("RuntimeAvailable", "True", Reason.RUNNING, message)
    return Condition("RuntimeAvailable", "Unknown", Reason.STARTING, message)


def traffic_programmed(facts: Facts) -> Condition:
    return conflicts.marked(_traffic_programmed(facts), facts)


def _traffic_programmed(facts: Facts) -> Condition:
    owner = facts.observed.owner
    held = facts.observed.taken.get(facts.observed.ref(SERVICE, owner.name))
    if held:
        message = f"the Service {owner.name} exists and {held}: rename the ModelDeployment or remove that Service"
        return Condition("TrafficProgrammed", "False", Reason.NAME_CONFLICT, message)
    wanted = traffic.wanted(facts.state)
    if not wanted:
        return Condition("TrafficProgrammed", "Unknown", Reason.PENDING, "there is no revision to send traffic to yet")
    alarm = judging.alarm(facts.state, facts.world)
    if alarm:
        return Condition("TrafficProgrammed", "False", Reason.SAMPLE_RATIO_MISMATCH, alarm.message)
    shares = ", ".join(f"{share:g} % to {revision}" for revision, share in wanted.items())
    if facts.state.canary and facts.state.position.routes:
        shares += f"{header_routes.in_words(facts.state.position.routes)} to {facts.state.canary.revision}"
    if facts.spec.traffic.by_haproxy and facts.observed.router.refused:
        message = f"the router can't be told what is wanted: {facts.observed.router.refused}"
        return Condition("TrafficProgrammed", "False", Reason.ROUTER_REFUSED, message)
    unpublished = publishing.problem(facts.spec, facts.observed, facts.now)
    if unpublished:
        return Condition("TrafficProgrammed", "False", unpublished.reason, unpublished.message)
    if facts.world.routed.holds(facts.state) and publishing.is_taken(facts.spec, facts.observed):
        return Condition("TrafficProgrammed", "True", Reason.PROGRAMMED, f"the address sends {shares}")
    if facts.spec.traffic.by_haproxy and not facts.world.routed.holds(facts.state):
        return _router_pending(facts.observed.router, shares)
    return Condition("TrafficProgrammed", "Unknown", Reason.PENDING, f"the address is to send {shares}")


def _router_pending(router: RouterView, shares: str) -> Condition:
    if router.problem:
        return Condition("TrafficProgrammed", "False", Reason.ROUTER_UNAVAILABLE, router.problem)
    if router.unreachable:
        message = f"{'; '.join(router.unreachable)}; its weights stay as they are, and no new one counts as set"
        return Condition("TrafficProgrammed", "False", Reason.ROUTER_UNREACHABLE, message)
    if not router.held:
        return Condition("TrafficProgrammed", "Unknown", Reason.PENDING, "the namespace's router is starting")
    problems = sorted({held.problem for held in router.held.values() if held and held.problem})
    message = "; ".join([f"the routers are to send {shares}", *problems])
    return Condition("TrafficProgrammed", "Unknown", Reason.PENDING, message)


def is_available(facts: Facts) -> Condition:
    target = facts.state.stable or facts.state.canary
    ready = traffic.ready_pods(facts.observed, target.revision) if target else 0
    programmed = traffic_programmed(facts)
    if programmed.status == "False" and not _still_answers(programmed, facts):
        return Condition("Available", "False", programmed.reason, programmed.message)
    if facts.world.is_behind_router and not facts.observed.router.has_pods:
        return Condition("Available", "False", Reason.ROUTER_UNAVAILABLE, "no pod of the namespace's router is ready")
    if not publishing.was_taken(facts.spec, facts.observed):
        return Condition("Available", "False", Reason.PENDING, "no Gateway has taken the HTTPRoute yet")
    if target and ready:
        return Condition("Available", "True", Reason.SERVING, f"{target.revision} answers")
    if facts.spec.replicas == 0:
        return Condition("Available", "False", Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    ended = " since stable's have ended to make room" if facts.state.position.capacity.stable_ended else ""
    return Condition("Available", "False", Reason.NO_READY_PODS, f"no pod is ready to answer{ended}")


def _still_answers(programmed: Condition, facts: Facts) -> bool:
    """Routers that can't be told anything new go on with what they have."""
    has_row = programmed.reason is Reason.ROUTER_REFUSED and any(facts.observed.router.held.values())
    return has_row or programmed.reason in (Reason.ROUTER_UNREACHABLE, Reason.SAMPLE_RATIO_MISMATCH)


def is_ready(
    facts: Facts, resolved: Condition, running: Condition, programmed: Condition, available: Condition
) -> Condition:
    """Available, and the wanted revision is the stable one. The reason of a False is the first that stands in the way."""
    stable = facts.state.stable
    if facts.spec.suspend and not (stable and available.is_true and stable.revision == facts.wanted):
        return Condition(
            "Ready", "False", Reason.SUSPENDED, "spec.suspend is true: nothing is changed until it is false"
        )
    as_wanted = programmed.reason is not Reason.ROUTER_REFUSED
    if stable and available.is_true and stable.revision == facts.wanted and as_wanted:
        return Condition("Ready", "True", Reason.PROMOTED, f"{stable.revision} answers all requests")
    if resolved.status != "True" and not (facts.wanted and resolved.reason is Reason.REGISTRY_UNREACHABLE):
        return Condition("Ready", "False", resolved.reason, resolved.message)
    refused = next((item for item in facts.state.rejected if item.revision == facts.wanted), None)
    if refused and facts.state.stable:
        return Condition("Ready", "False", Reason.ROLLED_BACK, _of_rejected(refused, facts.state.stable, facts))
    # What is wrong with the pods says more than that the router is not there yet; but a name that is taken ends it all.
    order = (programmed, running) if programmed.reason is Reason.NAME_CONFLICT else (running, programmed)
    for condition in order:
        if condition.status == "False":
            return Condition("Ready", "False", condition.reason, condition.message)
    if facts.state.canary and facts.state.stable:
        waits_for_person = facts.progress.obstacle and facts.progress.obstacle.waits_for is WaitsFor.PERSON
        reason = Reason.PAUSED if waits_for_person else Reason.PROGRESSING
        return Condition("Ready", "False", reason, steps.sentence(facts.state, facts.progress.obstacle, facts.world))
    reason = available.reason if available.reason is Reason.SCALED_TO_ZERO else Reason.PROGRESSING
    return Condition("Ready", "False", reason, running.message if reason is Reason.PROGRESSING else available.message)


def is_stalled(facts: Facts, ready: Condition, running: Condition) -> Condition | None:
    """Nothing more will happen until somebody acts (kstatus): a problem that does not pass, or the progress deadline."""
    if ready.is_true or facts.spec.suspend:
        return None
    if is_problem(ready.reason) and ready.reason not in STILL_WAITING:
        return Condition("Stalled", "True", ready.reason, ready.message)
    obstacle = facts.progress.obstacle
    deadline = steps.deadline_of(facts.state, obstacle, facts.spec) if obstacle else None
    if obstacle and deadline and facts.now >= deadline:
        seconds = facts.spec.rollout.progress_deadline_seconds
        lacks = running.message if obstacle.waits_for is WaitsFor.PODS else ready.message
        message = f"not ready within {seconds} s (rollout.progressDeadlineSeconds): {lacks}"
        return Condition("Stalled", "True", Reason.PROGRESS_DEADLINE_EXCEEDED, message)
    return None


def is_problem(reason: Reason) -> bool:
    return reason not in (
        Reason.PROGRESSING,
        Reason.PAUSED,
        Reason.RESOLVING,
        Reason.STARTING,
        Reason.PENDING,
        Reason.NOT_STARTED,
        Reason.SCALED_TO_ZERO,
    )


def _of_rejected(refused: Rejected, stable: Role, facts: Facts) -> str:
    again = names.command(facts.observed.owner.name, f"retry@{refused.revision}")
    return (
        f"version {refused.model_version} was put back, version {stable.model_version} answers: {refused.message}. "
        f"To try it again: {again}; else move the alias or change the spec"
    )


def _digests_differ(facts: Facts, revision: str) -> Problem | None:
    digests = pins.reported_digests(facts.observed.pods_of(revision))
    if len(digests) < 2:
        return None
    message = (
        f"pods of {revision} fetched {len(digests)} different sets of files: somebody changed the version's artifacts"
    )
    return Problem(Reason.DIGEST_MISMATCH, message)


def _refused(facts: Facts, revision: str) -> Problem | None:
    for ref, words in facts.observed.refused.items():
        if ref.kind is not HTTP_ROUTE and ref.name in (revision, facts.observed.owner.name):
            return Problem(Reason.CHILD_REFUSED, f"{ref.kind.name} {ref.name}: {words}")
    for ref, words in facts.observed.taken.items():
        if ref.name == revision:
            return Problem(Reason.NAME_CONFLICT, f"the {ref.kind.name} {ref.name} exists and {words}: remove it")
    return None


def _count(facts: Facts, revision: str) -> int:
    return facts.observed.replicas(revision) if facts.spec.autoscaling else facts.spec.fixed_replicas
