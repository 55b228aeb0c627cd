"""The Services that callers know: the one stable address, and the preview of a blue-green rollout."""

from __future__ import annotations

from collections.abc import Iterator

from moorage_operator.core import names, resources, routing, traffic, writes
from moorage_operator.core.actions import Action
from moorage_operator.core.kinds import SERVICE, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State


def actions(spec: Spec, observed: Observed, state: State) -> Iterator[Action]:
    """The address first: it may have to leave a canary that fails."""
    address = _address(spec, observed, state)
    if address:
        yield from writes.hold(observed, address)
    preview = names.preview(observed.owner.name)
    if _has_preview(spec, state) and state.canary:
        yield from writes.hold(observed, resources.make_preview_service(observed.owner, spec, state.canary.revision))
    else:
        yield from writes.delete(observed, SERVICE, preview)


def _address(spec: Spec, observed: Observed, state: State) -> Manifest | None:
    """To pods of models, to stable's alone where a Gateway divides; or to the router, when all router pods know what to do with what
    comes."""
    split = traffic.wanted(state)
    if not split:
        return None
    live = observed.child(SERVICE, observed.owner.name)
    if spec.traffic.by_gateway:
        answering = state.stable or state.canary
        return resources.make_stable_service(observed.owner, spec, (answering.revision,)) if answering else None
    if spec.traffic.by_haproxy:
        port = observed.router.port or routing.port_of(live)
        if live is None and port is None:
            return None
        is_there = live is None or routing.port_of(live) is not None
        if port and (is_there or traffic.is_programmed(observed, state)):
            return resources.make_routed_service(observed.owner, spec, port)
    return resources.make_stable_service(observed.owner, spec, tuple(split))


def _has_preview(spec: Spec, state: State) -> bool:
    strategy = spec.rollout
    return strategy.strategy == "blueGreen" and strategy.blue_green.preview_service and state.stable is not None
