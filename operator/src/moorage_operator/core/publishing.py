"""A ModelDeployment on a Gateway of the platform's: its HTTPRoute divides the requests, or sends all of them to the address."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from moorage_operator.core import http_route, resources, routing, traffic, writes
from moorage_operator.core.actions import Action
from moorage_operator.core.kinds import HTTP_ROUTE, SERVICE, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State

GRACE = timedelta(seconds=10)
"""For a Gateway to take a new route, before it is a problem that it does not."""


def actions(spec: Spec, observed: Observed, state: State) -> Iterator[Action]:
    """One that divides keeps doing so until somebody else is seen to: changing the router loses no request. Until then it follows the
    rollout, published or not: a Gateway answers with an error what it would send to a Service without pods.
    """
    split = traffic.wanted(state)
    divides = spec.traffic.by_gateway or (
        http_route.divides(live(observed)) and not _address_divides(spec, observed, state)
    )
    if not divides and not spec.traffic.is_published:
        yield from writes.delete(observed, HTTP_ROUTE, observed.owner.name)
    elif split:
        route = _wanted(spec, observed, state) if divides else http_route.to_address(spec, observed.owner.name)
        yield from writes.hold(observed, resources.make_http_route(observed.owner, route))


def _wanted(spec: Spec, observed: Observed, state: State) -> Manifest:
    """Over revisions; where the spec says no more by which Gateways, as it was."""
    split, matches, before = traffic.wanted(state), traffic.wanted_matches(state), live(observed)
    if spec.traffic.is_published or before is None:
        return http_route.over_revisions(spec, split, matches)
    return {**before["spec"], "rules": http_route.rules_over(split, matches)}


def live(observed: Observed) -> Manifest | None:
    return observed.child(HTTP_ROUTE, observed.owner.name)


def problem(spec: Spec, observed: Observed, now: datetime) -> Problem | None:
    """Why callers of the Gateway get no answer from this ModelDeployment, or not as they ought to."""
    if not spec.traffic.is_published:
        return None
    ref = observed.ref(HTTP_ROUTE, observed.owner.name)
    if ref in observed.taken:
        message = f"the HTTPRoute {ref.name} exists and {observed.taken[ref]}: rename the ModelDeployment or remove that HTTPRoute"
        return Problem(Reason.NAME_CONFLICT, message)
    if ref in observed.refused:
        message = f"the HTTPRoute can't be written (has the cluster the Gateway API, {HTTP_ROUTE.api_version}?): {observed.refused[ref]}"
        return Problem(Reason.GATEWAY_REFUSED, message)
    due = grace_until(spec, observed)
    if due is None or now < due:
        return None
    where = http_route.in_words(spec.traffic.gateway, observed.owner.namespace)
    said = _standing(observed)
    if said.refusal:
        return Problem(Reason.GATEWAY_REFUSED, f"the Gateway {where} does not take the HTTPRoute: {said.refusal}")
    if not said.was_taken:
        message = f"no Gateway {where} has taken the HTTPRoute yet: is there one of that name, and a controller for its class?"
        return Problem(Reason.GATEWAY_PENDING, message)
    return None


def grace_until(spec: Spec, observed: Observed) -> datetime | None:
    """Of a new route, which a Gateway may also refuse for a moment, until it has seen its Services."""
    route = live(observed)
    if route is None or not spec.traffic.is_published:
        return None
    return datetime.fromisoformat(route["metadata"]["creationTimestamp"]) + GRACE


def is_taken(spec: Spec, observed: Observed) -> bool:
    """As it is now, wherever it is to be published."""
    return not spec.traffic.is_published or _standing(observed).is_taken


def was_taken(spec: Spec, observed: Observed) -> bool:
    """As it is now or was before: its callers get answers."""
    return not spec.traffic.is_published or _standing(observed).was_taken


def _standing(observed: Observed) -> http_route.Standing:
    route = live(observed)
    return http_route.standing(route) if route else http_route.Standing(is_taken=False, was_taken=False)


def _address_divides(spec: Spec, observed: Observed, state: State) -> bool:
    """Does what the address points to now do what is wanted?"""
    service = observed.child(SERVICE, observed.owner.name)
    if spec.traffic.by_haproxy and routing.port_of(service) is None:
        return False
    return traffic.at_address(observed).holds(state)
