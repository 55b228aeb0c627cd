"""A rollout in a few words, for tables: its world, its state, and what a pass makes of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_operator.core import names, rollout, spec, steps, strategy
from moorage_operator.core.counted import Sample
from moorage_operator.core.header_routes import Route
from moorage_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, Manifest, Ref
from moorage_operator.core.observed import Observed
from moorage_operator.core.pods import DIGEST_KEY, SIGNATURE_KEY
from moorage_operator.core.revisions import Owner
from moorage_operator.core.rollout import Progress, Wanted
from moorage_operator.core.routing import Match
from moorage_operator.core.state import Judged, Measured, Position, Rejected, Role, State
from moorage_operator.core.traffic import Routed
from moorage_operator.core.waiting import World

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = Owner("payments", "fraud", "uid-1")
STEPS = [{"setWeight": 25}, {"pause": {"duration": "1m"}}, {"setWeight": 50}, {"pause": {}}]
STABLE, CANARY, NEXT = Wanted("fraud-v3", "3"), Wanted("fraud-v4", "4"), Wanted("fraud-v5", "5")


@dataclass(frozen=True)
class A:
    """A world in a few words. `ready` are pods of each revision; `split` is what the routers hold."""

    steps: list[Any] = field(default_factory=lambda: STEPS)
    replicas: int = 3
    router: str = "replicas"
    ready: dict[str, int] = field(default_factory=lambda: {"fraud-v3": 3})
    crashing: str = ""
    split: dict[str, int] | None = field(default_factory=lambda: {"fraud-v3": 100})
    known: dict[str, int] | None = None
    """Pods that the routers know; all that are ready, if not said."""
    at: int = 0
    weight: int = 0
    scale: int | None = None
    routes: tuple[Route, ...] = ()
    matches: frozenset[Match] | None = frozenset()
    """Header routes that the routers hold."""
    shadow: int = 0
    ago: int = 0
    """Seconds since the step began."""
    paused: bool = False
    judged: bool = True
    """Have the counters been looked at just now?"""
    seen: tuple[Judged, ...] = ()
    measured: Measured | None = None
    sample: Sample | None = None
    wants: Wanted | None = CANARY
    canary: str = "fraud-v4"
    signatures: dict[str, str] = field(default_factory=dict)
    """Those that are pinned, of each revision."""
    leaving: tuple[Role, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    traffic: dict[str, Any] = field(default_factory=dict)
    """More of spec.traffic."""
    options: dict[str, Any] = field(default_factory=dict)
    """More of spec.rollout."""

    @property
    def world(self) -> World:
        manifest: dict[str, Any] = {"model": {"name": "detector", "alias": "champion"}, "replicas": self.replicas}
        manifest |= {"rollout": {"steps": self.steps} | self.options, "traffic": {"router": self.router} | self.traffic}
        children: dict[Ref, Manifest] = {}
        for revision, count in self.ready.items():
            status = {"observedGeneration": 1, "updatedReplicas": count, "availableReplicas": count}
            children[Ref(DEPLOYMENT, "payments", revision)] = {
                "metadata": {"generation": 1},
                "spec": {"replicas": count},
                "status": status,
            }
        for revision, signature in self.signatures.items():
            pin = {DIGEST_KEY: "sha256:0", SIGNATURE_KEY: signature}
            children[Ref(CONFIG_MAP, "payments", revision)] = {"data": pin}
        pods = tuple(self._pod(name, number) for name, count in self.ready.items() for number in range(count))
        observed = Observed(owner=OWNER, generation=1, children=children, pods=pods, sample=self.sample)
        revisions = frozenset(self.split if self.split is not None else {"fraud-v3", "fraud-v4"})
        known = self.ready if self.known is None else self.known
        routed = Routed(self.split, revisions | {match.revision for match in self.matches or ()}, known, self.matches)
        return World(spec.parse({"spec": manifest}), observed, routed, NOW)

    @property
    def state(self) -> State:
        canary = None
        if self.canary:
            canary = Role(
                self.canary, self.canary[-1], since=NOW, salt="s", replicas=1 if self.weight or self.routes else 0
            )
        state = State(
            stable=Role("fraud-v3", "3"),
            canary=canary,
            leaving=self.leaving,
            rejected=self.rejected,
        )
        if not canary:
            return state
        digest = strategy.hash_of(steps.of(self.world.spec, state))
        started = NOW - timedelta(seconds=self.ago)
        measured = self.measured or Measured(at=NOW if self.judged and not self.sample else None, weight=self.weight)
        position = Position(self.at, digest, started, self.weight, self.scale, self.routes, self.shadow, self.paused)
        return state.changed(position=position, measured=measured, analysis=self.seen)

    def _pod(self, revision: str, number: int) -> Manifest:
        ready = {"type": "Ready", "status": "True"}
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}} if revision == self.crashing else {}
        status = {"conditions": [ready], "containerStatuses": [{"name": "serve", "state": waiting}]}
        return {"metadata": {"name": f"{revision}-{number}", "labels": {names.REVISION: revision}}, "status": status}

    def after(self) -> Progress:
        return rollout.advance(self.state, self.wants, self.world)


def both(canary: int, stable: int = 3) -> dict[str, int]:
    return {"fraud-v3": stable, "fraud-v4": canary}


def split(canary: int) -> dict[str, int]:
    return {"fraud-v3": 100 - canary, "fraud-v4": canary}
