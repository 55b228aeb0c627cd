"""`rollout.onNoCapacity`: what stable does when a canary's pods find no room beside its own.

    no room ──► for so long ──► written in the status: one pod less, or none ──► those pods have ended ──► next

Stable never has fewer pods than its share of the requests needs. Which share that is, `position.weight` says; before it gives
anything up, the routers have to say so, too. When the canary leaves, its position is forgotten, and stable has all of its pods again.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec

from moorage_operator.core import checks, names, traffic
from moorage_operator.core.capacity import Capacity
from moorage_operator.core.kinds import DEPLOYMENT, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Role, State
from moorage_operator.core.waiting import Obstacle, WaitsFor, World

BEFORE_THE_END = timedelta(seconds=30)
"""With `recreate`: for so long there must be no room before stable's pods end."""

BETWEEN_TWO = timedelta(seconds=10)
"""With `shrinkStable`: time for the scheduler to use a pod's room before the next one is given up."""

_LACKING = re.compile(r"Insufficient ([\w./-]*\w)")
_FREE = "free some, or add a node"


def met(state: State, obstacle: Obstacle | None, world: World) -> State:
    """After a pass of the steps, with what stable gives up for a canary that waits for room."""
    at, spec = state.position.capacity, world.spec
    if state.canary is None or state.stable is None or at.stable_ended:
        return state
    if not _is_asked(spec):
        return state.moved(capacity=Capacity())
    at = msgspec.structs.replace(at, lent_by_stable=min(at.lent_by_stable, _spare(spec, state.position.weight)))
    if obstacle is None or obstacle.waits_for is not WaitsFor.PODS or not lacks_room(state, world.observed):
        return state.moved(capacity=msgspec.structs.replace(at, short_since=None))
    at = msgspec.structs.replace(at, short_since=at.short_since or world.now)
    due = _due(at.short_since, spec)
    if due is None or world.now < due:
        return state.moved(capacity=at)
    if spec.rollout.on_no_capacity == "recreate" and not state.position.sends_requests:
        return state.moved(capacity=msgspec.structs.replace(at, short_since=None, stable_ended=True))
    if at.lent_by_stable < _may_be_lent(state, state.stable, world):
        lent = at.lent_by_stable + 1
        return state.moved(capacity=msgspec.structs.replace(at, lent_by_stable=lent, short_since=world.now))
    return state.moved(capacity=at)


def stable_pods(state: State, spec: Spec) -> int:
    """Where no autoscaler owns the number."""
    return spec.fixed_replicas - min(state.position.capacity.lent_by_stable, _spare(spec, state.position.weight))


def autoscaler_may_shrink(state: State, spec: Spec) -> bool:
    """It knows what stable's pods have to do, and takes one at a time as far as that allows."""
    return spec.rollout.on_no_capacity == "shrinkStable" and state.position.capacity.short_since is not None


def due_at(state: State, spec: Spec) -> datetime | None:
    """When stable gives something up, if there is no room until then."""
    return _due(state.position.capacity.short_since, spec)


def is_coming_back(state: State, world: World) -> bool:
    """Does stable still wait for room that a leaving revision has? Then no other canary may take it."""
    stable = state.stable
    if stable is None or not _is_asked(world.spec) or world.spec.autoscaling:
        return False
    leaving = {role.revision for role in state.leaving}
    some_have_pods = any(pod["metadata"]["labels"].get(names.REVISION) in leaving for pod in world.observed.pods)
    return some_have_pods and traffic.ready_pods(world.observed, stable.revision) < world.spec.fixed_replicas


def lacks_room(state: State, observed: Observed) -> bool:
    """Is the canary short of something that stable's pods hold? Then it helps if some of them end."""
    if state.canary is None or state.stable is None:
        return False
    lacking: set[str] = set()
    for pod in observed.pods_of(state.canary.revision):
        scheduled = checks.condition_of(pod, "PodScheduled")
        if scheduled.get("status") == "False" and not checks.is_ready(pod):
            lacking |= set(_LACKING.findall(str(scheduled.get("message", ""))))
    return bool(lacking & _held_by(observed.child(DEPLOYMENT, state.stable.revision)))


def hint(state: State, world: World) -> str:
    """What is done about it, or what would help; to follow what the scheduler says."""
    canary, stable, at = state.canary, state.stable, state.position.capacity
    if canary is None or stable is None or not lacks_room(state, world.observed):
        return ""
    mode = world.spec.rollout.on_no_capacity
    if at.stable_ended:
        return f"; the pods of {stable.revision} end to make room"
    if mode == "wait" or (mode == "recreate" and state.position.sends_requests):
        return f"; {_FREE}" + ("" if mode != "wait" else ", or set rollout.onNoCapacity")
    if mode == "recreate" and (due := due_at(state, world.spec)):
        return f"; the pods of {stable.revision} end at {due:%Y-%m-%dT%H:%M:%SZ} to make room"
    if world.spec.autoscaling:
        return f"; {stable.revision} gives up pods as far as its autoscaler allows"
    has = stable_pods(state, world.spec)
    if at.lent_by_stable < _spare(world.spec, state.position.weight):
        return f"; {stable.revision}, which has {has}, gives up one at a time"
    return (
        f"; {stable.revision} needs its {has} for its {100 - state.position.weight} %: {_FREE}, or take smaller steps"
    )


def told(before: State, after: State) -> str:
    """What stable has just given up; empty if nothing."""
    was, now = before.position.capacity, after.position.capacity
    if after.canary is None or after.stable is None:
        return ""
    stable, canary = after.stable.revision, after.canary.revision
    if now.stable_ended and not was.stable_ended:
        what = (
            f"the pods of {stable} end, because there is no room for those of {canary} (rollout.onNoCapacity: recreate)"
        )
        return f"{what}: nobody is answered until these are ready"
    if now.lent_by_stable > was.lent_by_stable:
        return f"{stable} gives up a pod to make room for {canary} (rollout.onNoCapacity: shrinkStable)"
    return ""


def _is_asked(spec: Spec) -> bool:
    """Where weights are shown by pods, a pod less is another weight."""
    if spec.rollout.on_no_capacity == "shrinkStable":
        return spec.rollout.strategy == "canary" and not spec.traffic.shows_weights_by_pods
    return spec.rollout.on_no_capacity == "recreate" and spec.rollout.strategy != "recreate"


def _due(since: datetime | None, spec: Spec) -> datetime | None:
    if since is None or not _is_asked(spec):
        return None
    return since + (BEFORE_THE_END if spec.rollout.on_no_capacity == "recreate" else BETWEEN_TWO)


def _spare(spec: Spec, weight: int) -> int:
    """Pods of stable that its share does not need; one stays in any case."""
    count = spec.fixed_replicas
    needed = max(-(-count * (100 - weight) // 100), min(count, 1))
    return count - needed if spec.rollout.on_no_capacity == "shrinkStable" and not spec.autoscaling else 0


def _may_be_lent(state: State, stable: Role, world: World) -> int:
    """By what the routers hold, and only when all that was given up has ended and all that is left is ready."""
    left = stable_pods(state, world.spec)
    pods = [pod for pod in world.observed.pods if pod["metadata"]["labels"].get(names.REVISION) == stable.revision]
    if not (world.observed.replicas(stable.revision) == len(pods) == left == sum(map(checks.is_ready, pods))):
        return 0
    return _spare(world.spec, state.position.weight) if world.routed.holds(state) else 0


def _held_by(deployment: Manifest | None) -> set[str]:
    """Names of the resources that its pods reserve."""
    pod = (deployment or {}).get("spec", {}).get("template", {}).get("spec", {})
    containers = [*pod.get("initContainers", []), *pod.get("containers", [])]
    parts = [
        container.get("resources", {}).get(part, {}) for container in containers for part in ("limits", "requests")
    ]
    return {name for part in parts for name in part}
