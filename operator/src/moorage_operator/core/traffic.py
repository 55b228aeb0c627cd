"""How requests are to be divided, and what is seen of it.

A split is a map from revisions to percents that sum up to 100; who gets nothing is not in it. A canary with all of the traffic and a
stable revision with all of it look the same, so that promotion moves no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moorage_operator.core import checks, http_route, names, routing
from moorage_operator.core.kinds import HTTP_ROUTE, SERVICE, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.routing import Held, Match
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State

Split = Mapping[str, float]


@dataclass(frozen=True)
class Routed:
    """What all routers hold, as they say themselves; without a router of ours, what the one Service selects, or a Gateway has taken."""

    split: Split | None = None
    """None while they do not agree, or one of them can't be asked."""
    revisions: frozenset[str] = frozenset()
    """Each revision that some router may still send requests to."""
    endpoints: Mapping[str, int] = field(default_factory=dict)
    """Pods of a revision that every router knows."""
    matches: frozenset[Match] | None = frozenset()
    """Requests that go to a revision whatever the split; None as above."""

    def holds(self, state: State) -> bool:
        """Do all routers hold what they ought to?"""
        return self.split == wanted(state) and self.matches == wanted_matches(state)


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


def wanted_matches(state: State) -> frozenset[Match]:
    """The header routes. Where the canary has everything they change nothing, and none are wanted or seen: see above."""
    canary, at = state.canary, state.position
    if canary is None or state.stable is None or at.weight == 100:
        return frozenset()
    return frozenset(Match(canary.revision, route.value, route.header, route.cookie) for route in at.routes)


def routed(spec: Spec, observed: Observed) -> Routed:
    """By who divides the requests now: the route of a Gateway, or what the address points to."""
    route, address = observed.child(HTTP_ROUTE, observed.owner.name), at_address(observed)
    if route is None or not http_route.divides(route):
        return replace(address, split=None, matches=None) if spec.traffic.by_gateway else address
    gateway = _by_gateway(route, observed)
    return replace(gateway, revisions=gateway.revisions | address.revisions)


def at_address(observed: Observed) -> Routed:
    """By where the address points to now: a router or pods."""
    service = observed.child(SERVICE, observed.owner.name)
    if service is None:
        return Routed({}, endpoints=_ready_pods(observed))
    if routing.port_of(service) is None:
        return _by_service(service, observed)
    return _by_routers(observed)


def is_programmed(observed: Observed, state: State) -> bool:
    """Do all routers hold what they ought to, whether or not the address points to them yet?"""
    return _by_routers(observed).holds(state)


def ready_pods(observed: Observed, revision: str) -> int:
    return sum(checks.is_ready(pod) for pod in observed.pods_of(revision))


def _by_routers(observed: Observed) -> Routed:
    view = observed.router
    known = [held for held in view.held.values() if held]
    sent_to = {revision for held in known for revision, share in held.shares.items() if share}
    sent_to |= {match.revision for held in known for match in held.matches}
    if view.told is None or any(held.port != view.port for held in known):
        # One that can't be asked may do anything that it was ever told, and need not know any pod.
        return Routed(None, frozenset(sent_to | _ready_pods(observed).keys()), matches=None)
    splits, matches = [_percents(held) for held in known], {_effective(held) for held in known}
    agreed = splits[0] if all(split == splits[0] for split in splits) else None
    return Routed(agreed, frozenset(sent_to), _fewest(known), matches.pop() if len(matches) == 1 else None)


def _percents(held: Held) -> Split:
    return {revision: share / routing.BUCKETS for revision, share in held.shares.items() if share}


def _effective(held: Held) -> frozenset[Match]:
    return frozenset(match for match in held.matches if held.shares.get(match.revision) != 100 * routing.BUCKETS)


def _fewest(known: list[Held]) -> Mapping[str, int]:
    revisions = {revision for held in known for revision in held.endpoints}
    return {revision: min(held.endpoints.get(revision, 0) for held in known) for revision in revisions}


def _by_gateway(route: Manifest, observed: Observed) -> Routed:
    shares, matches, endpoints = http_route.backends(route), http_route.matches_of(route), _ready_pods(observed)
    named = shares.keys() | {match.revision for match in matches}
    if not http_route.standing(route).is_taken:
        # Until then it may send requests to whatever it was told before.
        return Routed(None, frozenset(named | endpoints.keys()), endpoints, None)
    total = sum(shares.values())
    return Routed({name: 100 * share / total for name, share in shares.items()}, frozenset(named), endpoints, matches)


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
