"""How requests are to be divided, and what is seen of it.

A split is a map from revisions to percents that sum up to 100; who gets nothing is not in it. A canary with all of the traffic and a
stable revision with all of it look the same, so that promotion moves no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage_operator.core import checks, names, routing
from moorage_operator.core.kinds import SERVICE, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.routing import Held
from moorage_operator.core.state import State

Split = Mapping[str, float]


@dataclass(frozen=True)
class Routed:
    """What all routers hold, as they say themselves; without a router of ours, what the one Service selects."""

    split: Split | None = None
    """None while they do not agree, or one of them can't be asked."""
    revisions: frozenset[str] = frozenset()
    """Each revision that some router may still send requests to."""
    endpoints: Mapping[str, int] = field(default_factory=dict)
    """Pods of a revision that every router knows."""


def wanted(state: State) -> Split:
    """What the routers ought to hold. A first revision has the address from the beginning."""
    answering = state.stable or state.canary
    if answering is None:
        return {}
    weight = state.position.weight if state.stable and state.canary else 0
    shares = {answering.revision: 100 - weight}
    if state.canary and weight:
        shares[state.canary.revision] = weight
    return {revision: share for revision, share in shares.items() if share}


def routed(observed: Observed) -> Routed:
    """By where the address points to now: a router or pods."""
    service = observed.child(SERVICE, observed.owner.name)
    if service is None:
        return Routed({}, endpoints=_ready_pods(observed))
    if routing.port_of(service) is None:
        return _by_service(service, observed)
    return _by_routers(observed)


def is_programmed(observed: Observed, split: Split) -> bool:
    """Do all routers hold this split, whether or not the address points to them yet?"""
    return _by_routers(observed).split == split


def ready_pods(observed: Observed, revision: str) -> int:
    return sum(checks.is_ready(pod) for pod in observed.pods_of(revision))


def _by_routers(observed: Observed) -> Routed:
    view = observed.router
    known = [held for held in view.held.values() if held]
    sent_to = {revision for held in known for revision, share in held.shares.items() if share}
    if view.unreachable or not known or len(known) < len(view.held) or any(held.port != view.port for held in known):
        # One that can't be asked may do anything that it was ever told, and need not know any pod.
        return Routed(None, frozenset(sent_to | _ready_pods(observed).keys()))
    splits = [_percents(held) for held in known]
    agreed = splits[0] if all(split == splits[0] for split in splits) else None
    return Routed(agreed, frozenset(sent_to), _fewest(known))


def _percents(held: Held) -> Split:
    return {revision: share / routing.BUCKETS for revision, share in held.shares.items() if share}


def _fewest(known: list[Held]) -> Mapping[str, int]:
    revisions = {revision for held in known for revision in held.endpoints}
    return {revision: min(held.endpoints.get(revision, 0) for held in known) for revision in revisions}


def _by_service(service: Manifest, observed: Observed) -> Routed:
    """Its selector names one revision, or (while pods of two are to share the requests) none."""
    endpoints = _ready_pods(observed)
    selected = service["spec"].get("selector", {}).get(names.REVISION)
    if selected:
        return Routed({selected: 100}, frozenset({selected}), endpoints)
    return Routed(_shares(endpoints), frozenset(endpoints), endpoints)


def _ready_pods(observed: Observed) -> dict[str, int]:
    revisions = {pod["metadata"]["labels"].get(names.REVISION, "") for pod in observed.pods} - {""}
    return {revision: ready_pods(observed, revision) for revision in revisions}


def _shares(endpoints: Mapping[str, int]) -> Split | None:
    """Each ready pod gets as much as any other; None where that is no whole percent."""
    total = sum(endpoints.values())
    if not total or any(100 * count % total for count in endpoints.values()):
        return None
    return {revision: 100 * count // total for revision, count in endpoints.items() if count}
