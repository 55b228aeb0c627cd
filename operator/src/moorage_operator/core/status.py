"""The whole `status`, computed in one go: what was observed, never what is about to be wanted. No counters, no relative times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from moorage_operator.core import arm_status, checks, gate, http_route, names, shadow, state, struct, traffic
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.pins import Pin
from moorage_operator.core.reasons import Reason
from moorage_operator.core.state import Role
from moorage_operator.core.waiting import WaitsFor


def make(facts: Facts, found: list[Condition], pinned: dict[str, Pin]) -> Manifest:
    """`status` as it is stored. Equal facts give an equal status, so that an unchanged one is not written."""
    observed, after = facts.observed, facts.state
    ready = next(item for item in found if item.type == "Ready")
    stable = after.stable
    status: dict[str, Any] = {
        "observedGeneration": observed.generation,
        "replicas": _pods(facts, stable.revision) if stable else 0,
        "selector": f"{names.DEPLOYMENT}={observed.owner.name}",
        "phase": phase_of(facts, found),
        "message": ready.message,
        "url": url_of(facts),
        "model": model_of(facts),
        "stable": _role(facts, stable, pinned),
        "canary": _canary(facts, after.canary, pinned),
        "weights": _weights(facts),
        "experiment": arm_status.as_stored(facts),
        "shadow": shadow.as_stored(after, observed),
        **state.position_as_stored(after),
        "pausedUntil": _paused_until(facts),
        "leaving": _list(after.leaving),
        "rejected": _list(after.rejected),
        "history": _list(after.history),
        "command": msgspec.to_builtins(after.command) if after.command else None,
        "analysis": _list(after.analysis),
        "measured": struct.plain(after.measured) or None,
        "undo": msgspec.to_builtins(after.undo) if after.undo else None,
        "conditions": [_stored(item, observed, facts.now) for item in found],
    }
    return {name: value for name, value in status.items() if value is not None}


def make_invalid(observed: Observed, complaint: str, now: datetime) -> Manifest:
    """The status of a spec that this operator can't read: what runs is still told, and stays as it is."""
    message = f"the stored spec does not fit this operator: {complaint}; upgrade the CRD and the operator together"
    found = [
        Condition(kind, "True" if kind == "Stalled" else "False", Reason.INVALID_SPEC, message)
        for kind in ("Ready", "Stalled")
    ]
    kept = [
        item
        for item in observed.status.get("conditions", [])
        if item["type"] not in ("Ready", "Stalled", "Reconciling")
    ]
    stored = [_stored(item, observed, now) for item in found]
    changes = {"observedGeneration": observed.generation, "phase": "Degraded", "message": message}
    return observed.status | changes | {"conditions": [*stored, *kept]}


def phase_of(facts: Facts, found: list[Condition]) -> str:
    """Derived from the conditions, never set by hand."""
    by_type = {item.type: item for item in found}
    obstacle = facts.progress.obstacle
    if facts.spec.suspend or (obstacle and obstacle.waits_for is WaitsFor.PERSON):
        return "Paused"
    if by_type["Ready"].is_true:
        return "Healthy"
    return "Degraded" if "Stalled" in by_type else "Progressing"


def url_of(facts: Facts) -> str:
    """Of the Gateway, where there is one: from there all callers get an answer."""
    if facts.spec.traffic.is_published:
        return http_route.url(facts.spec.traffic.gateway)
    port = facts.spec.service.port
    owner = facts.observed.owner
    return f"http://{owner.name}.{owner.namespace}.svc" + ("" if port == 80 else f":{port}")


def model_of(facts: Facts) -> Manifest | None:
    """The last answer of the registry; kept while it is silent, so that a restarted operator knows it as well."""
    if facts.version is None:
        return facts.observed.status.get("model")
    model = facts.spec.model
    return {
        "name": model.name,
        "registry": model.registry.name,
        "version": facts.version.version,
        "runID": facts.version.run_id,
        "source": facts.version.source,
    } | ({"alias": model.alias} if model.alias else {})


def _canary(facts: Facts, role: Role | None, pinned: dict[str, Pin]) -> Manifest | None:
    stored, signature = _role(facts, role, pinned), gate.told(facts.state, facts.world)
    return stored | {"signature": signature} if stored and signature else stored


def _role(facts: Facts, role: Role | None, pinned: dict[str, Pin]) -> Manifest | None:
    if role is None:
        return None
    digest = pinned[role.revision].digest if role.revision in pinned else ""
    stored: Manifest = msgspec.to_builtins(msgspec.structs.replace(role, digest=digest))
    return stored | {"readyReplicas": traffic.ready_pods(facts.observed, role.revision)}


def _list(items: tuple[msgspec.Struct, ...]) -> list[Manifest] | None:
    return [struct.plain(item) for item in items] or None


def _weights(facts: Facts) -> Manifest | None:
    """The canary's, in percent: as asked for, and as all routers say that they hold it; and those of the arms."""
    canary, split = facts.state.canary, facts.world.routed.split
    arms = arm_status.weights(facts)
    of_arms = {"arms": arms} if arms else {}
    if canary is None or facts.state.stable is None:
        return of_arms or None
    weights: Manifest = {"desired": facts.state.position.weight, "verified": split == traffic.wanted(facts.state)}
    return weights | of_arms | ({"applied": round(split.get(canary.revision, 0))} if split is not None else {})


def _paused_until(facts: Facts) -> str | None:
    obstacle = facts.progress.obstacle
    if facts.state.canary is None or obstacle is None or obstacle.waits_for is not WaitsFor.CLOCK:
        return None
    until: str | None = msgspec.to_builtins(obstacle.until)
    return until


def _pods(facts: Facts, revision: str) -> int:
    return len(facts.observed.pods_of(revision))


def _stored(condition: Condition, observed: Observed, now: datetime) -> Manifest:
    """With its times: lastTransitionTime moves only when the status does."""
    before = checks.condition_of({"status": observed.status}, condition.type)
    same = before.get("status") == condition.status
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": str(condition.reason),
        "message": condition.message[: checks.MAX_MESSAGE * 2],
        "lastTransitionTime": before["lastTransitionTime"] if same else msgspec.to_builtins(now),
        "observedGeneration": observed.generation,
    }
