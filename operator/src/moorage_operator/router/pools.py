"""Which backends there are, by name, and which servers each should have. Pure.

A backend is a model's arm, asked by weight or by match, in one protocol. Revisions are not in the names: a promotion changes
servers, which HAProxy does at run time, and no backend, which would be a reload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moorage_operator.router.endpoints import PROTOCOLS, Address, Endpoints, Protocol
from moorage_operator.router.table import MATCH_SUFFIX, Model, Table

STABLE = "stable"
CANARY = "canary"
FALLBACK = "fallback"


@dataclass(frozen=True, order=True)
class Backend:
    """`role` is stable, canary, an arm's name, one of the latter with `-match`, or fallback."""

    model: str
    role: str
    protocol: Protocol

    @property
    def name(self) -> str:
        """HAProxy's name for it; injective, as no part may hold a colon."""
        return f"{self.model}:{self.role}:{self.protocol}"


Pools = Mapping[Backend, frozenset[Address]]


def roles(model: Model) -> dict[str, str]:
    """Each role with its revision, stable first: in this order servers change. The canary has its place even while there is none."""
    canary = model.canary.revision if model.canary else ""
    arms = {CANARY: canary} | {arm.name: arm.revision for arm in model.arms}
    matched = {f"{arm}{MATCH_SUFFIX}": arms[arm] for arm, _ in model.conditions()}
    return {STABLE: model.stable, FALLBACK: model.stable, **arms, **matched}


def arm_of(role: str) -> str:
    """The arm that a role stands for, without the way in which a request got there."""
    return role.removesuffix(MATCH_SUFFIX)


def make(table: Table, endpoints: Endpoints) -> Pools:
    return {
        Backend(name, role, protocol): endpoints.get((revision, protocol), frozenset())
        for name, model in table.models.items()
        for role, revision in roles(model).items()
        for protocol in PROTOCOLS
    }
