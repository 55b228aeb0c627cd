"""The HTTPRoute by which a Gateway of the platform's reaches a ModelDeployment: what it says, and what is made of it.

Gateway API v1, standard channel: https://gateway-api.sigs.k8s.io/reference/spec/. One HTTPRoute has both protocols, because an HTTPRoute
and a GRPCRoute with the same hostname exclude each other: a call by gRPC is known by its content type, and goes to another port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from moorage_operator.core import pods
from moorage_operator.core.kinds import HTTP_ROUTE, Manifest
from moorage_operator.core.routing import Match
from moorage_operator.core.spec import Gateway, ParentRef, Spec

MARK = "gateway"
"""Arm of requests that a Gateway divides: the pod knows its revision."""

SETTLES = timedelta(seconds=10)
"""A Gateway says that it has taken a route before all of its proxies act by it: until then some requests go the way from before."""

_GRPC_TYPES = ("application/grpc", "application/grpc+proto")
_CONTENT_TYPE = "content-type"
_MARKS = "x-moorage-arm"
_NOT_FOR_CALLERS = ("x-moorage-shadow",)

Headers = tuple[tuple[str, str], ...]
"""Names and values that a request must have."""


@dataclass(frozen=True)
class Standing:
    """What the Gateways say of a route."""

    is_taken: bool
    """By all of them, as it is now."""
    was_taken: bool
    """By all of them, as it is now or was before."""
    refusal: str = ""
    """Why one of them does not take it as it is now."""


def over_revisions(wanted: Spec, split: Mapping[str, float], matches: frozenset[Match]) -> Manifest:
    """Divided over the Services of revisions."""
    return _spec(wanted, rules_over(split, matches))


def rules_over(split: Mapping[str, float], matches: frozenset[Match]) -> list[Manifest]:
    """By `split` in percent, and what matches whatever that says; but for cookies, which no rule can tell from others."""
    by_header = [match for match in matches if match.header]
    rules: list[Manifest] = []
    for revision in sorted({match.revision for match in by_header}):
        headers = sorted((match.header, match.value) for match in by_header if match.revision == revision)
        backends = {revision: 100.0}
        rules += _rules(backends, _POD_PORTS, f"{MARK}/match", tuple((header,) for header in headers))
    return [*rules, *_rules(split, _POD_PORTS, MARK)]


def to_address(wanted: Spec, address: str) -> Manifest:
    """To the Service that callers in the cluster know; somebody behind it divides."""
    ports = _Ports(wanted.service.port, wanted.service.grpc_port)
    return _spec(wanted, _rules({address: 100.0}, ports, MARK))


def divides(route: Manifest | None) -> bool:
    """Is it one over revisions?"""
    return route is not None and bool(backends(route).keys() - {route["metadata"]["name"]})


def backends(route: Manifest) -> dict[str, int]:
    """The Services of requests that match nothing, with their weights."""
    rules = route["spec"].get("rules") or [{}]
    found = rules[-1].get("backendRefs") or []
    return {backend["name"]: backend.get("weight", 1) for backend in found if backend.get("weight", 1)}


def matches_of(route: Manifest) -> frozenset[Match]:
    """What goes to a revision whatever the weights."""
    return frozenset(
        Match(backend["name"], header["value"], header["name"])
        for rule in route["spec"].get("rules") or []
        for match in rule.get("matches") or []
        for header in match.get("headers") or []
        for backend in rule.get("backendRefs") or []
        if header["name"] != _CONTENT_TYPE
    )


def standing(route: Manifest) -> Standing:
    """By its status, which each Gateway's controller writes a part of."""
    told = [list(_told_of(parent, route)) for parent in route["spec"].get("parentRefs") or []]
    generation = route["metadata"].get("generation", 1)
    refusals = [words for parts in told for part in parts if (words := _refusal(part, generation))]
    return Standing(
        is_taken=bool(told) and all(any(_accepts(part, generation) for part in parts) for parts in told),
        was_taken=bool(told) and all(any(_accepts(part, 0) for part in parts) for parts in told),
        refusal="; ".join(sorted(set(refusals))),
    )


def url(gateway: Gateway) -> str:
    """By the first hostname; a listener that is called or numbered like HTTPS is taken to be one."""
    parent = gateway.parent_refs[0]
    is_https = parent.port == 443 or parent.section_name.startswith("https")
    port = "" if parent.port in (None, 80, 443) else f":{parent.port}"
    return f"{'https' if is_https else 'http'}://{gateway.hostnames[0]}{port}"


def in_words(gateway: Gateway, namespace: str) -> str:
    return ", ".join(f"{parent.namespace or namespace}/{parent.name}" for parent in gateway.parent_refs)


@dataclass(frozen=True)
class _Ports:
    """Of the Services behind a rule."""

    http: int
    grpc: int


_POD_PORTS = _Ports(pods.HTTP_PORT, pods.GRPC_PORT)


def _spec(wanted: Spec, rules: list[Manifest]) -> Manifest:
    gateway = wanted.traffic.gateway
    return {
        "parentRefs": [_parent(parent) for parent in gateway.parent_refs],
        "hostnames": list(gateway.hostnames),
        "rules": rules,
    }


def _parent(parent: ParentRef) -> Manifest:
    found: Manifest = {"group": HTTP_ROUTE.group, "kind": "Gateway", "name": parent.name}
    optional = {"namespace": parent.namespace, "sectionName": parent.section_name, "port": parent.port}
    return found | {name: value for name, value in optional.items() if value}


def _rules(
    split: Mapping[str, float], ports: _Ports, mark: str, conditions: tuple[Headers, ...] = ((),)
) -> list[Manifest]:
    """Two: calls by gRPC, and the rest. More conditions win over fewer, so their order does not matter."""
    by_grpc = [_match((*headers, (_CONTENT_TYPE, kind))) for headers in conditions for kind in _GRPC_TYPES]
    return [
        _rule(by_grpc, split, ports.grpc, mark),
        _rule([_match(headers) for headers in conditions], split, ports.http, mark),
    ]


def _rule(matches: list[Manifest], split: Mapping[str, float], port: int, mark: str) -> Manifest:
    header = {"set": [{"name": _MARKS, "value": mark}], "remove": list(_NOT_FOR_CALLERS)}
    return {
        "matches": matches,
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}],
        "backendRefs": [
            {"group": "", "kind": "Service", "name": service, "port": port, "weight": round(share)}
            for service, share in sorted(split.items())
        ],
    }


def _match(headers: Headers) -> Manifest:
    match: Manifest = {"path": {"type": "PathPrefix", "value": "/"}}
    conditions = [{"type": "Exact", "name": name, "value": value} for name, value in headers]
    return match | ({"headers": conditions} if conditions else {})


def _told_of(parent: Manifest, route: Manifest) -> Iterator[Manifest]:
    wanted = _identity(parent, route)
    for part in route.get("status", {}).get("parents") or []:
        if _identity(part["parentRef"], route) == wanted:
            yield part


def _identity(parent: Manifest, route: Manifest) -> tuple[object, ...]:
    namespace = parent.get("namespace") or route["metadata"]["namespace"]
    return namespace, parent["name"], parent.get("sectionName") or "", parent.get("port")


def _accepts(part: Manifest, generation: int) -> bool:
    conditions = {item["type"]: item for item in part.get("conditions") or []}
    accepted, resolved = conditions.get("Accepted", {}), conditions.get("ResolvedRefs", {})
    is_current: bool = accepted.get("observedGeneration", 0) >= generation
    return is_current and accepted.get("status") == "True" and resolved.get("status") != "False"


def _refusal(part: Manifest, generation: int) -> str:
    for condition in part.get("conditions") or []:
        matters = condition["type"] in ("Accepted", "ResolvedRefs") and condition.get("status") == "False"
        if matters and condition.get("observedGeneration", 0) >= generation:
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ""
