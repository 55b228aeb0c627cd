"""`GET /state`: what HAProxy holds and has counted, read back from it, in the operator's words. Pure.

Weights and revisions come from HAProxy's map and the number of servers from its statistics; from the table come names, and matches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from moorage_operator.router import pools, split
from moorage_operator.router.pools import Backend
from moorage_operator.router.stats import Counters, Ledger, Pool, Sample
from moorage_operator.router.table import Model
from moorage_operator.router.target import Target


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the document."""


class CanaryState(_Part, frozen=True):
    revision: str
    weight: int
    salt: str


class ArmState(_Part, frozen=True):
    name: str
    revision: str
    weight: int


class MatchState(_Part, frozen=True):
    """Requests whose header or cookie has this value go to this arm."""

    arm: str
    revision: str
    value: str
    header: str
    cookie: str


class ShadowState(_Part, frozen=True):
    revision: str
    weight: int


class CountersState(_Part, frozen=True):
    requests: int
    bad: int
    canceled: int
    connect_errors: int
    response_errors: int
    retries: int


class ModelState(_Part, frozen=True):
    port: int
    stable: str
    canary: CanaryState | None
    arms: tuple[ArmState, ...]
    endpoints: dict[str, int]
    counters: dict[str, CountersState]
    matches: tuple[MatchState, ...] = ()
    shadow: ShadowState | None = None
    problem: str = ""


class State(_Part, frozen=True):
    """`resource_version` is the ConfigMap's whose content HAProxy was seen to hold."""

    started_at: str
    resource_version: str = ""
    models: dict[str, ModelState] = {}
    problem: str = ""


def make(target: Target, sample: Sample, splits: Mapping[str, str], ledger: Ledger) -> dict[str, ModelState]:
    return {
        name: _model(name, model, split.decode(splits[name]), sample.pools, ledger)
        for name, model in target.source.table.models.items()
    }


def holds(target: Target, sample: Sample, splits: Mapping[str, str]) -> bool:
    """HAProxy has this configuration and these splits, all of them and no others."""
    return sample.worker.structure == target.structure and splits == target.splits


def _model(name: str, model: Model, row: split.Row, found: Mapping[str, Pool], ledger: Ledger) -> ModelState:
    revisions = _revisions(model, row)
    endpoints = {revision: _servers_up(name, role, found) for role, revision in revisions.items()}
    missing = sorted(revision for revision, count in endpoints.items() if not count)
    return ModelState(
        port=model.port,
        stable=row.stable,
        canary=CanaryState(revision=row.canary.revision, weight=row.canary.weight, salt=row.canary_salt)
        if row.canary
        else None,
        arms=tuple(
            ArmState(name=arm.name, revision=share.revision, weight=share.weight)
            for arm, share in zip(model.arms, row.arms, strict=True)
        ),
        endpoints=endpoints,
        counters=_counters(name, model, ledger),
        matches=_matches(model, revisions),
        shadow=ShadowState(revision=row.shadow.revision, weight=row.shadow.weight) if row.shadow else None,
        problem="; ".join(f"no server of {revision} can be reached" for revision in missing),
    )


def _revisions(model: Model, row: split.Row) -> dict[str, str]:
    """By role."""
    canary = {pools.CANARY: row.canary.revision} if row.canary else {}
    return {pools.STABLE: row.stable} | canary | {
        arm.name: share.revision for arm, share in zip(model.arms, row.arms, strict=True)
    }  # fmt: skip


def _matches(model: Model, revisions: Mapping[str, str]) -> tuple[MatchState, ...]:
    """From the table: they are part of the structure, which HAProxy was seen to run. One for a canary that is not there sends nothing."""
    return tuple(
        MatchState(
            arm=arm, revision=revisions[arm], value=condition.value, header=condition.header, cookie=condition.cookie
        )
        for arm, condition in model.conditions()
        if arm in revisions
    )


def _servers_up(name: str, role: str, found: Mapping[str, Pool]) -> int:
    return sum(server.up for server in found[Backend(name, role, "http").name].servers)


def _counters(name: str, model: Model, ledger: Ledger) -> dict[str, CountersState]:
    """HTTP and gRPC together."""
    sums: dict[str, Counters] = defaultdict(Counters)
    for role in pools.roles(model):
        sums[role] = ledger.total(Backend(name, role, "http").name) + ledger.total(Backend(name, role, "grpc").name)
    return {role: msgspec.convert(counters, CountersState, from_attributes=True) for role, counters in sums.items()}
