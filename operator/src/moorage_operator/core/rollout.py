"""Which revision plays which role, and when the roles change. One version at a time: the wanted one starts beside the stable
one (or after it, with strategy `recreate`) and takes its place when all of its pods are ready.

         wanted changes                 all pods ready                    scaleDownAt
  stable ───────────────► stable+canary ──────────────► stable (+previous) ─────────► stable
              ▲                │ wanted changes again: the canary is dropped at once
              └────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from moorage_operator.core import checks
from moorage_operator.core.kinds import DEPLOYMENT, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec


class Role(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A revision in a role. `replicas` is how many pods a canary must have ready before it takes over."""

    revision: str
    model_version: str = ""
    since: datetime | None = None
    digest: str = ""
    replicas: int = 0
    scale_down_at: datetime | None = None


class Roles(msgspec.Struct, frozen=True):
    """stable answers, canary is on its way, previous answered until just now and still has its pods."""

    stable: Role | None = None
    canary: Role | None = None
    previous: Role | None = None

    @property
    def all(self) -> tuple[Role, ...]:
        return tuple(role for role in (self.stable, self.previous, self.canary) if role)

    @property
    def revisions(self) -> set[str]:
        """Names of the revisions that have a role."""
        return {role.revision for role in self.all}

    @property
    def newest(self) -> Role | None:
        """The revision that the user wants, as far as is known: the one on its way, else the one that answers."""
        return self.canary or self.stable


@dataclass(frozen=True)
class Wanted:
    """The revision that spec and registry name now."""

    revision: str
    model_version: str


def read(status: Manifest) -> Roles:
    """The roles that the last pass recorded."""
    return msgspec.convert({name: status.get(name) for name in ("stable", "canary", "previous")}, Roles)


def advance(roles: Roles, wanted: Wanted | None, spec: Spec, observed: Observed, now: datetime) -> Roles:
    """The roles after this pass. Without a known wanted revision nothing is replaced, and what is on its way goes on."""
    roles = _expire_previous(roles, now)
    if wanted:
        roles = _pursue(roles, wanted, now)
    if roles.canary is None:
        return roles
    roles = replace_role(roles, canary=_sized(roles.canary, roles.stable, spec, observed))
    if roles.canary and is_available(observed, roles.canary.revision, roles.canary.replicas):
        return _promote(roles, roles.canary, spec, now)
    return roles


def replace_role(roles: Roles, **changes: Role | None) -> Roles:
    return msgspec.structs.replace(roles, **changes)


def is_available(observed: Observed, revision: str, count: int) -> bool:
    """Has the revision `count` pods that run the frozen template and have been ready for minReadySeconds?"""
    deployment = observed.child(DEPLOYMENT, revision)
    if deployment is None:
        return False
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return False
    available = min(int(status.get("availableReplicas", 0)), int(status.get("updatedReplicas", 0)))
    return available >= count


def ready_pods(observed: Observed, revision: str) -> int:
    return sum(checks.is_ready(pod) for pod in observed.pods_of(revision))


def stable_must_end_first(roles: Roles, spec: Spec) -> bool:
    """With strategy `recreate` the old pods end before the new ones start."""
    return spec.rollout.strategy == "recreate" and roles.stable is not None and roles.canary is not None


def deadline_of(roles: Roles, spec: Spec) -> datetime | None:
    """When the revision on its way counts as stalled."""
    if roles.canary is None or roles.canary.since is None:
        return None
    return roles.canary.since + timedelta(seconds=spec.rollout.progress_deadline_seconds)


def _expire_previous(roles: Roles, now: datetime) -> Roles:
    previous = roles.previous
    if previous and (previous.scale_down_at is None or now >= previous.scale_down_at):
        return replace_role(roles, previous=None)
    return roles


def _pursue(roles: Roles, wanted: Wanted, now: datetime) -> Roles:
    if roles.stable and roles.stable.revision == wanted.revision:
        return replace_role(roles, canary=None)
    if roles.canary and roles.canary.revision == wanted.revision:
        return roles
    # Going back to the revision that answered just before: its pods, if they are still there, are the canary's.
    previous = None if roles.previous and roles.previous.revision == wanted.revision else roles.previous
    return replace_role(roles, canary=Role(wanted.revision, wanted.model_version, since=now), previous=previous)


def _sized(canary: Role, stable: Role | None, spec: Spec, observed: Observed) -> Role:
    """How many pods the canary needs: as many as stable has now. It only grows, so that the goal does not run away."""
    if spec.autoscaling is None:
        return msgspec.structs.replace(canary, replicas=spec.fixed_replicas)
    present = observed.replicas(stable.revision) if stable else 0
    needed = max(spec.autoscaling.min_replicas, present, canary.replicas)
    return msgspec.structs.replace(canary, replicas=min(needed, spec.autoscaling.max_replicas))


def _promote(roles: Roles, canary: Role, spec: Spec, now: datetime) -> Roles:
    previous = roles.previous
    if roles.stable:
        leaves_at = now + timedelta(seconds=spec.rollout.scale_down_delay_seconds)
        previous = Role(roles.stable.revision, roles.stable.model_version, scale_down_at=leaves_at)
    stable = Role(canary.revision, canary.model_version, since=now, digest=canary.digest)
    return Roles(stable=stable, canary=None, previous=previous)
