"""Header routes: requests with a certain header or cookie that get the canary whatever its weight. They last as long as the rollout.

A step sets or removes one; the status remembers those that are set; the routers call them matches.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from moorage_operator.core.strategy import HeaderRoute, Step


class Route(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One that is set: the requests whose header or cookie has just this value."""

    name: str
    value: str
    header: str = ""
    cookie: str = ""


Routes = tuple[Route, ...]


def after(routes: Routes, step: Step) -> Routes:
    """With what the step sets, in place of the one of that name, or without what it removes."""
    asked = step.set_header_route
    if asked is None:
        return routes
    others = tuple(route for route in routes if route.name != asked.name)
    return others if asked.removes else (*others, _route(asked))


def kept(routes: Routes, steps: Iterable[Step]) -> Routes:
    """When steps are changed under way: those that one of the new steps sets as well."""
    asked = [step.set_header_route for step in steps if step.set_header_route]
    still_set = [_route(item) for item in asked if not item.removes]
    return tuple(route for route in routes if route in still_set)


def in_words(routes: Routes) -> str:
    """What gets the canary besides its weight; empty if nothing does."""
    return "".join(f" and the route {route.name}" for route in routes)


def told(routes: Routes) -> str:
    """The same, as the beginning of a sentence."""
    sources = [f"{route.header or 'the cookie ' + route.cookie}: {route.value}" for route in routes]
    return f"requests with {', or '.join(sources)} go" if routes else "no requests go by a header or a cookie"


def _route(asked: HeaderRoute) -> Route:
    return Route(asked.name, asked.match.value, asked.match.header, asked.match.cookie)
