"""Shadowing: a part of stable's requests is copied to the canary by stable's own pods. docs/runtime.md says how, and when they leave it.

It moves no request and nothing waits for it, neither a step nor a revision that leaves.
"""

from __future__ import annotations

from moorage_operator.core import routing, sizing, traffic
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.state import State
from moorage_operator.core.waiting import World


def cast(state: State, world: World) -> State:
    """From when the canary has its pods for as long as one of them is ready."""
    return state.moved(shadow=world.spec.rollout.shadow.percent if _may_be_cast(state, world) else 0)


def _may_be_cast(state: State, world: World) -> bool:
    if state.stable is None or state.canary is None or not world.spec.traffic.by_haproxy:
        return False
    canary = state.canary
    has_begun = bool(state.position.shadow) or sizing.is_available(world.observed, canary.revision, canary.replicas)
    return has_begun and traffic.ready_pods(world.observed, canary.revision) > 0


def as_stored(state: State, observed: Observed) -> Manifest | None:
    """For the status: the share, and whether all routers say that they hold it."""
    if state.canary is None or not state.position.shadow:
        return None
    wanted = routing.Share(state.canary.revision, state.position.shadow * routing.BUCKETS)
    held = observed.router.held.values()
    is_held = bool(held) and all(item is not None and item.shadow == wanted for item in held)
    return {"percent": state.position.shadow, "verified": is_held and not observed.router.unreachable}
