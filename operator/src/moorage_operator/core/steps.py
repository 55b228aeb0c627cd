"""The steps of a rollout: what each needs before it may begin, what it changes, and what it waits for then.

    prepare ──► effect ──► wait ──► next step … ──► everything ──► promoted
    pods ready,  weight,    routers hold it,
    known to     scale      time is up,
    routers                 somebody promotes

Nothing here gives up; `rollout` does, when a step takes too long or shows harm.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from moorage_operator.core import header_routes, judging, names, sizing, strategy, traffic
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.strategy import CanaryScale, HeaderRoute, Judge, Pause, Step
from moorage_operator.core.waiting import Obstacle, WaitsFor, World


def of(spec: Spec, state: State) -> tuple[Step, ...]:
    """All steps, taking over everything included. The first revision, and one that answered until just now, need no others."""
    ends_first = state.position.capacity.stable_ended
    needs_none = state.stable is None or ends_first or (state.canary and state.canary.is_back)
    return (*(() if needs_none else spec.rollout.all_steps), strategy.TO_THE_END)


def begin(state: State, world: World) -> State:
    """At the first step; if the steps were changed under way, the weight stays, and each route that a step still sets."""
    steps = of(world.spec, state)
    routes = header_routes.kept(state.position.routes, steps)
    return at(state, 0, world).moved(hash=strategy.hash_of(steps), scale=None, routes=routes)


def at(state: State, index: int, world: World) -> State:
    """At this step from now on."""
    ready = traffic.ready_pods(world.observed, state.canary.revision) if state.canary else 0
    return state.moved(index=index, started_at=world.now, canary_pods=ready)


def go_on(state: State, world: World) -> tuple[State, Obstacle | None]:
    """As many steps as can be done now, and what the next one waits for; None when the canary has everything."""
    if state.position.hash != strategy.hash_of(of(world.spec, state)):
        state = begin(state, world)
    steps = of(world.spec, state)
    while state.position.index < len(steps):
        if state.position.paused:
            return state, _paused_by_command(state, world)
        step, following = steps[state.position.index], steps[state.position.index + 1 :]
        state = sized(state, world)
        obstacle = _unprepared(step, state, world)
        if obstacle is None:
            state = sized(_with_effect(step, state), world)
            obstacle = _unfinished(step, state, world) or judging.obstacle(state, step, following, world)
        if obstacle:
            return state, obstacle
        state = judging.with_what_was_passed_over(state, step, following, world)
        state = at(state, state.position.index + 1, world)
    return state, None


def sized(state: State, world: World) -> State:
    """With as many pods for the canary as what comes next needs."""
    assert state.canary  # noqa: S101 - for the type checker
    weight, routes = goal(state, world.spec), header_routes.after(state.position.routes, _present(state, world.spec))
    pods = sizing.canary_pods(state, world.spec, world.observed, weight)
    if weight or routes:
        pods = max(pods, min(1, world.spec.fixed_replicas))  # whatever a setCanaryScale says
    if state.canary.is_held_back:
        pods = min(pods, 1)
    is_waking = bool(pods) and _was_put_to_sleep(state, world)
    return state.changed(canary=msgspec.structs.replace(state.canary, replicas=pods, is_waking=is_waking))


def _was_put_to_sleep(state: State, world: World) -> bool:
    """By `replicas: 0`, while it had requests; no pod of it is ready since then. Stable answers for it, but not behind a Gateway."""
    canary, sends = state.canary, state.position.sends_requests and not world.spec.traffic.by_gateway
    if canary is None or not sends or traffic.ready_pods(world.observed, canary.revision):
        return False
    return canary.is_waking or not canary.replicas


def goal(state: State, spec: Spec) -> int:
    """The weight, in percent, that the canary must be able to carry now: what it has, or what the present step gives it."""
    ends_first = state.position.capacity.stable_ended
    if state.stable is None or ends_first or spec.rollout.strategy in ("blueGreen", "recreate"):
        return 100
    return max(state.position.weight, _present(state, spec).set_weight or 0)


def _present(state: State, spec: Spec) -> Step:
    steps = of(spec, state)
    return steps[min(state.position.index, len(steps) - 1)]


def pods_obstacle(state: State, world: World) -> Obstacle | None:
    """Until the canary has the pods that it needs, and every router knows them."""
    canary = state.canary
    assert canary  # noqa: S101 - for the type checker
    ready = traffic.ready_pods(world.observed, canary.revision)
    if not sizing.is_available(world.observed, canary.revision, canary.replicas):
        return Obstacle(WaitsFor.PODS, f"{ready} of {canary.replicas} pods of {canary.revision} are ready")
    if world.routed.endpoints.get(canary.revision, 0) < canary.replicas:
        return Obstacle(WaitsFor.ROUTERS, f"the routers do not know all pods of {canary.revision} yet")
    return None


def _unprepared(step: Step, state: State, world: World) -> Obstacle | None:
    if step.set_header_route and not step.set_header_route.removes:
        return pods_obstacle(state, world)
    if step.set_weight is None:
        return None
    if step.set_weight < state.position.weight:
        return _stable_obstacle(state, world)
    unready = pods_obstacle(state, world) or _strangers(step.set_weight, state, world)
    return unready or judging.baseline_obstacle(state, world)


def _stable_obstacle(state: State, world: World) -> Obstacle | None:
    """Steps that were changed may take requests from the canary; not before stable has somebody to answer them, if only it has."""
    canary, stable = ((role.revision if role else "") for role in (state.canary, state.stable))
    if traffic.ready_pods(world.observed, stable) or not traffic.ready_pods(world.observed, canary):
        return None
    return Obstacle(WaitsFor.PODS, f"no pod of {stable} is ready, which is to get requests again")


def _strangers(weight: int, state: State, world: World) -> Obstacle | None:
    """Where pods share the requests, those of leaving revisions would get some, too."""
    if not world.spec.traffic.shows_weights_by_pods or weight in (0, 100):
        return None
    for role in state.leaving:
        if world.routed.endpoints.get(role.revision):
            return Obstacle(WaitsFor.CLOCK, f"the pods of {role.revision} have to end first", role.scale_down_at)
    return None


def _with_effect(step: Step, state: State) -> State:
    if step.set_weight is not None and step.set_weight != state.position.weight:
        return judging.with_new_ratio(state).moved(weight=step.set_weight)
    if step.set_canary_scale is not None:
        return state.moved(scale=step.set_canary_scale.replicas)
    return state.moved(routes=header_routes.after(state.position.routes, step))


def _unfinished(step: Step, state: State, world: World) -> Obstacle | None:
    match step:
        case Step(set_weight=int(weight)):
            return _routers_obstacle(state, world, f"{weight} %")
        case Step(set_header_route=HeaderRoute(name=name)):
            return _routers_obstacle(state, world, f"the route {name}")
        case Step(pause=Pause() as pause):
            return _pause(pause, state, world)
        case Step(analysis=Judge() as judge):
            until = (state.position.started_at or world.now) + judge.length
            return Obstacle(WaitsFor.CLOCK, "both versions are being judged", until) if world.now < until else None
        case Step(set_canary_scale=CanaryScale()):
            return pods_obstacle(state, world)
    return None


def _routers_obstacle(state: State, world: World, what: str) -> Obstacle | None:
    """Until every router holds what it ought to."""
    if world.routed.holds(state):
        return None
    revision = state.canary.revision if state.canary else ""
    return Obstacle(WaitsFor.ROUTERS, f"the routers are taking up {what} for {revision}")


def _paused_by_command(state: State, world: World) -> Obstacle:
    revision = state.canary.revision if state.canary else ""
    command = names.command(world.observed.owner.name, f"resume@{revision}")
    return Obstacle(WaitsFor.PERSON, f"paused by a command; to go on: {command}")


def _pause(pause: Pause, state: State, world: World) -> Obstacle | None:
    revision = state.canary.revision if state.canary else ""
    if pause.length is None:
        command = names.command(world.observed.owner.name, f"promote@{revision}/{state.position.index}")
        return Obstacle(WaitsFor.PERSON, f"paused until somebody promotes it: {command}")
    until = (state.position.started_at or world.now) + pause.length
    return Obstacle(WaitsFor.CLOCK, "", until) if world.now < until else None


def sentence(state: State, obstacle: Obstacle | None, world: World) -> str:
    """Where a rollout stands, with absolute times only."""
    canary, stable = state.canary, state.stable
    assert canary  # noqa: S101 - for the type checker
    assert stable  # noqa: S101 - the same
    steps = of(world.spec, state)
    place = f"step {state.position.index + 1} of {len(steps)}: " if len(steps) > 1 else ""
    weight = (
        f"{state.position.weight} %{header_routes.in_words(state.position.routes)} to version {canary.model_version}"
    )
    weight += f", the rest to version {stable.model_version}"
    waits = [obstacle.message] if obstacle and obstacle.message else []
    if obstacle and obstacle.until:
        waits.append(f"until {obstacle.until:%Y-%m-%dT%H:%M:%SZ}")
    return "; ".join([place + weight, *waits])


def deadline_of(state: State, obstacle: Obstacle, spec: Spec) -> datetime | None:
    """When a step that machines have to do counts as failed."""
    started = state.position.started_at
    if started is None or not obstacle.has_deadline:
        return None
    return max(started, judging.baseline_end(state, spec) or started) + spec.rollout.progress_deadline
