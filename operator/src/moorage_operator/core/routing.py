"""What the routers of a namespace are told, in one ConfigMap, and what their agents answer. docs/router.md has both documents.

The ConfigMap also says which port of the router belongs to which ModelDeployment, because a port that was given once must not be
given to another one while somebody's connection is still open to it: the next one is always taken, until all have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from moorage_operator.core import arm_rows, names
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Position, Role, State

NAME = "moorage-router"
"""Of the ConfigMap, the Deployment and all else that a namespace's router consists of."""

TABLE, PORTS = "router.json", "ports.json"
TIMEOUT_SECONDS = 60
"""Twice what a runtime gives one request: it is the one that says what was wrong."""

FIRST_PORT, LAST_PORT = 10000, 19999
CANARY = "canary"
BUCKETS = arm_rows.BUCKETS
"""Parts of a percent-in-10,000: the routers count weights in 1/10,000."""


class Ports(msgspec.Struct, frozen=True):
    """Which ModelDeployment has which port of the router, and which is given next."""

    of: dict[str, int] = {}
    next: int = FIRST_PORT


class Share(msgspec.Struct, frozen=True):
    """`weight` in 1/10,000."""

    revision: str
    weight: int


class Match(msgspec.Struct, frozen=True):
    """Requests whose header or cookie has just this value: a router sends them to one revision, whatever the weights say."""

    revision: str
    value: str
    header: str = ""
    cookie: str = ""


@dataclass(frozen=True)
class HeldArm:
    """An arm of an experiment, as a router has it; `weight` in 1/10,000."""

    revision: str
    weight: int
    matches: frozenset[Match] = frozenset()


@dataclass(frozen=True)
class Held:
    """What one router holds for one ModelDeployment, as its agent reads it from HAProxy."""

    shares: Mapping[str, int]
    """In 1/10,000 of what the arms leave, of stable and canary; those with 0 included."""
    endpoints: Mapping[str, int]
    """Pods of each revision that it can reach."""
    port: int
    problem: str = ""
    matches: frozenset[Match] = frozenset()
    shadow: Share | None = None
    """Where copies of stable's requests go."""
    arms: Mapping[str, HeldArm] = field(default_factory=dict)


@dataclass(frozen=True)
class RouterView:
    """The namespace's router as one ModelDeployment sees it. `held` has an entry for each router pod that is ready."""

    port: int | None = None
    held: Mapping[str, Held | None] = field(default_factory=dict)
    """None where a router does not know the ModelDeployment yet."""
    unreachable: tuple[str, ...] = ()
    """Router pods that are ready and do not answer, in words."""
    problem: str = ""
    """Why there is no router pod at all that is ready."""
    refused: str = ""
    """Why no router is told what this ModelDeployment wants now, if its own parser would refuse it."""

    @property
    def has_pods(self) -> bool:
        """Is there a router pod that is ready?"""
        return bool(self.held or self.unreachable)

    @property
    def told(self) -> list[Held] | None:
        """What each router holds; None where one of them does not say, or there is none."""
        known = [held for held in self.held.values() if held]
        return None if self.unreachable or not known or len(known) < len(self.held) else known


def row(spec: Spec, state: State, port: int) -> Manifest | None:
    """One ModelDeployment in the table; None while it has no revision. A first revision has the address from the beginning."""
    answering = state.stable or state.canary
    if answering is None:
        return None
    found: Manifest = {"port": port, "stable": answering.revision, "timeoutSeconds": TIMEOUT_SECONDS}
    if state.stable and state.canary:
        found |= _of_canary(state.canary, state.position)
    if state.stable:
        found |= arm_rows.of(state.experiment)
    stickiness = {"header": spec.traffic.stickiness.header, "cookie": spec.traffic.stickiness.cookie}
    if any(stickiness.values()):
        found["stickiness"] = {name: value for name, value in stickiness.items() if value}
    return found


def _of_canary(canary: Role, at: Position) -> Manifest:
    found: Manifest = {"canary": {"revision": canary.revision, "weight": at.weight * BUCKETS, "salt": canary.salt}}
    if at.routes:
        found["matches"] = [{"arm": CANARY} | msgspec.to_builtins(route) for route in at.routes]
    if at.shadow:
        found["shadow"] = {"revision": canary.revision, "percent": at.shadow}
    return found


def read_rows(config_map: Manifest | None) -> dict[str, Manifest]:
    """What each ModelDeployment has in the table, as it is stored; nothing of one that is lost or broken."""
    try:
        return msgspec.json.decode((config_map or {}).get("data", {}).get(TABLE, ""), type=_Table).models
    except msgspec.MsgspecError:
        return {}


def read_ports(config_map: Manifest | None, services: Iterable[Manifest]) -> Ports:
    """As the ConfigMap says; one that is lost or broken is made anew from what the Services point to.

    Nobody knows then which ports were freed a moment ago. They were given just before or after those that are in use: the next is
    taken from the other side of the range.
    """
    text = (config_map or {}).get("data", {}).get(PORTS, "")
    try:
        return msgspec.json.decode(text, type=Ports)
    except msgspec.MsgspecError:
        found = {service["metadata"]["name"]: port for service in services if (port := port_of(service))}
        count = LAST_PORT + 1 - FIRST_PORT
        return Ports(found, FIRST_PORT + (max(found.values()) - FIRST_PORT + count // 2) % count) if found else Ports()


def port_of(service: Manifest | None) -> int | None:
    """The router's port that a Service points to; None if it points to pods of models, or is not there."""
    if service is None or service["spec"].get("selector", {}).get(names.APP_COMPONENT) != names.ROUTER:
        return None
    target = service["spec"]["ports"][0].get("targetPort")
    return target if isinstance(target, int) else None


def allocated(ports: Ports, wanted: Iterable[str]) -> Ports:
    """With a port for each of the wanted, and no other."""
    of = {name: port for name in sorted(wanted) if (port := ports.of.get(name))}
    following = ports.next
    for name in sorted(wanted):
        while name not in of:
            candidate = following if following <= LAST_PORT else FIRST_PORT
            following = candidate + 1
            if candidate not in of.values():
                of[name] = candidate
    return Ports(of, following)


def data(ports: Ports, rows: Mapping[str, Manifest]) -> dict[str, str]:
    """Content of the ConfigMap; equal tables are equal texts."""
    return {
        TABLE: msgspec.json.encode({"models": rows}, order="sorted").decode(),
        PORTS: msgspec.json.encode(ports, order="sorted").decode(),
    }


class _Table(msgspec.Struct, frozen=True):
    models: dict[str, dict[str, Any]] = {}


class _Counters(msgspec.Struct, frozen=True):
    requests: int = 0
    bad: int = 0


class _Arm(Share, frozen=True):
    name: str = ""


class _Match(Match, frozen=True):
    arm: str = CANARY


class _Model(msgspec.Struct, frozen=True, rename="camel"):
    """What we read of an agent's answer; an agent of another version may say more."""

    port: int
    stable: str
    canary: Share | None = None
    arms: tuple[_Arm, ...] = ()
    matches: tuple[_Match, ...] = ()
    shadow: Share | None = None
    endpoints: dict[str, int] = {}
    counters: dict[str, _Counters] = {}
    """By arm, of requests that were assigned by weight; `…-match` and `fallback` are counted apart."""
    problem: str = ""


class AgentState(msgspec.Struct, frozen=True, rename="camel"):
    """`GET /state` of a router's agent."""

    started_at: str = ""
    resource_version: str = ""
    models: dict[str, _Model] = {}
    problem: str = ""


def held(state: AgentState, name: str) -> Held | None:
    """What the router holds for the ModelDeployment of that name."""
    model = state.models.get(name)
    if model is None:
        return None
    shares = {model.stable: 100 * BUCKETS}
    if model.canary:
        # A canary that is stable by now has all of it.
        shares[model.stable] -= model.canary.weight
        shares[model.canary.revision] = shares.get(model.canary.revision, 0) + model.canary.weight
    arms = {arm.name: HeldArm(arm.revision, arm.weight, _matches(model, arm.name)) for arm in model.arms}
    return Held(shares, model.endpoints, model.port, model.problem, _matches(model, CANARY), model.shadow, arms)


def _matches(model: _Model, arm: str) -> frozenset[Match]:
    found = (match for match in model.matches if match.arm == arm)
    return frozenset(Match(match.revision, match.value, match.header, match.cookie) for match in found)
