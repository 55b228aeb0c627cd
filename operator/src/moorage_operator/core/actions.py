"""What a pass does to the cluster, as data. `reconcile.apply` is the only code that carries it out, in the order given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage_operator.core.kinds import Manifest, Ref, ref_of
from moorage_operator.core.notices import Errand
from moorage_operator.core.reasons import Reason


@dataclass(frozen=True)
class Apply:
    """Store this object by server-side apply. Without `uid` it is believed not to exist, and is looked for first."""

    manifest: Manifest
    uid: str = ""

    @property
    def ref(self) -> Ref:
        return ref_of(self.manifest)


@dataclass(frozen=True)
class HandOverReplicas:
    """Let another field manager own a Deployment's `spec.replicas`, so that it stays when we stop setting it."""

    deployment: Ref
    replicas: int


@dataclass(frozen=True)
class RestoreTemplate:
    """Replace a Deployment's pod template `seen` by that of `desired`, so that fields which others added to it are gone."""

    seen: Manifest
    desired: Manifest

    @property
    def deployment(self) -> Ref:
        return ref_of(self.desired)


@dataclass(frozen=True)
class Leave:
    """Write nothing: somebody fights over the object, and it is left as others have it for now (`contests`)."""

    desired: Manifest

    @property
    def ref(self) -> Ref:
        return ref_of(self.desired)


@dataclass(frozen=True)
class Delete:
    """Delete just this object, in just this state; without a version in any state."""

    ref: Ref
    uid: str
    resource_version: str


Action = Apply | HandOverReplicas | RestoreTemplate | Leave | Delete


def in_words(action: Action) -> str:
    """What was done, for the log."""
    match action:
        case Apply():
            return f"{'applied' if action.uid else 'created'} {action.ref.kind.name} {action.ref.name}"
        case HandOverReplicas():
            return f"set {action.deployment.name} to {action.replicas} pods for its autoscaler"
        case RestoreTemplate():
            return f"restored the pod template of {action.deployment.name}"
        case Leave():
            return f"left {action.ref.kind.name} {action.ref.name} as others have it"
        case Delete():
            return f"deleted {action.ref.kind.name} {action.ref.name}"


@dataclass(frozen=True)
class Event:
    """Something that happened; `warning` for what somebody should look at."""

    reason: Reason
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Measure:
    """What to count for the analysis of a rollout."""

    revisions: tuple[str, ...]
    queries: Mapping[str, str]
    """For Prometheus, by guard."""
    interval: timedelta
    at_once: bool
    """Look now, and not only when the interval is over."""
    is_cut: bool
    """Forget what was counted so far: the routers did something else, or the canary was just warming up."""


@dataclass(frozen=True)
class Decision:
    """All that one pass does: the writes in order, then events, then the whole status; and when to look again, by the clock."""

    actions: tuple[Action, ...]
    status: Manifest
    events: tuple[Event, ...] = ()
    look_again_at: datetime | None = None
    awaits_routers: bool = False
    """Do routers still have to take something up? Then they are asked more often."""
    measure: Measure | None = None
    errands: tuple[Errand, ...] = ()
    """What to tell registries once the status is written, beside all else."""
