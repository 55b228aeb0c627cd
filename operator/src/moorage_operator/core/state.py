"""What the status remembers of a rollout, so that any process can go on with it: roles, position, what was refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

import msgspec

from moorage_operator.core import guards, header_routes
from moorage_operator.core.capacity import Capacity
from moorage_operator.core.guards import Verdict
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.notices import Notice
from moorage_operator.core.reasons import Problem
from moorage_operator.core.trial import Experiment

MOST_OUTCOMES = 10
"""As many are kept in `status.history`."""


class Role(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A revision in a role."""

    revision: str
    model_version: str = ""
    since: datetime | None = None
    digest: str = ""
    replicas: int = 0
    """How many pods a canary must have ready for what comes next."""
    salt: str = ""
    """Of a canary: which callers are the first to get it."""
    is_back: bool = False
    """Of a canary: it was stable until just now, and has to prove nothing."""
    is_held_back: bool = False
    """Of a canary: it has one pod only, until that one tells its signature."""
    is_waking: bool = False
    """Of a canary that had requests when somebody scaled all to zero: until the first of its pods is ready again, none can be lost."""
    scale_down_at: datetime | None = None
    """Of a leaving one: its pods end then, or as soon after it as no router sends it anything."""


class Result(StrEnum):
    """How a rollout ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


class Outcome(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One rollout that is over."""

    model_version: str
    revision: str
    result: Result
    at: datetime
    reason: str = ""
    message: str = ""
    registry: Notice | None = None
    """What the registry is told of it (`told`)."""

    @property
    def identity(self) -> tuple[str, Result, datetime]:
        """What stays, whatever becomes of its notice."""
        return self.revision, self.result, self.at

    def noted(self, notice: Notice | None) -> Outcome:
        return msgspec.structs.replace(self, registry=notice)


class Rejected(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A revision that is not tried again until spec or alias change, or somebody asks for it. `trial` is a hash of what it was tried by."""

    model_version: str
    revision: str
    reason: str
    message: str = ""
    trial: str = ""


class Command(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The last command that was heard; `refused` says why nothing was done."""

    text: str
    at: datetime
    refused: str = ""


class Undo(msgspec.Struct, frozen=True, rename="camel"):
    """Somebody went back to `revision`; it holds as long as spec and registry name `instead_of`."""

    revision: str
    instead_of: str


class Position(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where the rollout of a canary stands. `weight`, in percent, is what the routers are asked to hold."""

    index: int = 0
    hash: str = ""
    started_at: datetime | None = None
    """When this step began; a deadline or a pause counts from here."""
    weight: int = 0
    scale: int | None = None
    """Pods that a setCanaryScale asks for, whatever the weight."""
    routes: header_routes.Routes = ()
    """What goes to the canary whatever its weight."""
    shadow: int = 0
    """Percent of stable's requests that are copied to the canary."""
    paused: bool = False
    """By a command."""
    capacity: Capacity = Capacity()
    canary_pods: int = 0
    """Those that were ready when this step began."""

    @property
    def sends_requests(self) -> bool:
        """Does the canary get any that somebody waits for?"""
        return bool(self.weight or self.routes)


class Judged(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One guard, as `status.analysis` has it. `harm` and `safe` are e-values."""

    guard: str
    verdict: Verdict
    message: str
    harm: float = 1.0
    safe: float = 1.0
    canary_requests: int = 0
    state: guards.State = guards.State()


class Measured(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is remembered of the analysis beside the guards' own evidence."""

    at: datetime | None = None
    """End of the last sample."""
    weight: int = 0
    """The last one that all routers were seen to hold."""
    weight_at: datetime | None = None
    """When they were first seen to hold it."""
    since: datetime | None = None
    """When they were first seen to hold one for this canary."""
    canary_requests: int = 0
    requests: int = 0
    """Since the weight was set last: do they come as the weight says?"""
    restarts: int = 0
    """Of pods and routers whose counters have begun anew."""
    unjudged: str = ""
    """What had not been seen when the canary got more all the same, because onInconclusive says so."""
    baseline: tuple[tuple[int, int], ...] = ()
    """Stable's requests and errors in the ticks before the first weight."""
    latencies: dict[str, int] = {}
    """Stable's requests before any threshold was taken from them, by the edges of its histogram, each with all that were faster."""


class State(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """stable answers, canary is on its way, leaving ones answered until just now and still have their pods."""

    stable: Role | None = None
    canary: Role | None = None
    leaving: tuple[Role, ...] = ()
    position: Position = Position()
    rejected: tuple[Rejected, ...] = ()
    history: tuple[Outcome, ...] = ()
    command: Command | None = None
    undo: Undo | None = None
    analysis: tuple[Judged, ...] = ()
    """Of the canary; of the last one while there is none."""
    measured: Measured = Measured()
    experiment: Experiment = Experiment()

    @property
    def roles(self) -> tuple[Role, ...]:
        """What answers comes first, whatever is done to all; then the canary, and the arms that share no revision with any of them."""
        found = tuple(role for role in (self.stable, *self.leaving, self.canary) if role)
        others = self.experiment.versions.keys() - {role.revision for role in found}
        return (*found, *(role for role in self._arms if role.revision in others))

    @property
    def _arms(self) -> Iterator[Role]:
        for name, version in self.experiment.versions.items():
            yield Role(name, version.model_version, replicas=self.experiment.pods(name))

    @property
    def revisions(self) -> set[str]:
        """Names of the revisions that have a role."""
        return {role.revision for role in self.roles}

    @property
    def newest(self) -> Role | None:
        """The revision that the user wants, as far as is known: the one on its way, else the one that answers."""
        return self.canary or self.stable

    def has_rejected(self, revision: str) -> bool:
        return any(item.revision == revision for item in self.rejected)

    def changed(self, **changes: object) -> State:
        return msgspec.structs.replace(self, **changes)

    def moved(self, **changes: object) -> State:
        """With another position."""
        return self.changed(position=msgspec.structs.replace(self.position, **changes))

    def with_outcome(self, role: Role, result: Result, now: datetime, why: Problem | None = None) -> State:
        """Newest first."""
        reason, message = (why.reason, why.message) if why else ("", "")
        outcome = Outcome(role.model_version, role.revision, result, now, reason, message)
        return self.changed(history=(outcome, *self.history)[:MOST_OUTCOMES])


_STORED = (
    "stable",
    "canary",
    "leaving",
    "rejected",
    "history",
    "command",
    "undo",
    "analysis",
    "measured",
    "experiment",
)


def read(status: Manifest) -> State:
    """The state that the last pass recorded."""
    stored = {name: status[name] for name in _STORED if name in status}
    position = {
        "index": status.get("currentStepIndex", 0),
        "hash": status.get("currentStepHash", ""),
        "startedAt": status.get("stepStartedAt"),
        "canaryPods": status.get("canaryPodsAtStepStart", 0),
        "weight": status.get("weights", {}).get("desired", 0),
        "scale": status.get("canaryScale"),
        "routes": status.get("headerRoutes", ()),
        "shadow": status.get("shadow", {}).get("percent", 0),
        "paused": status.get("paused", False),
        "capacity": status.get("capacity", {}),
    }
    return msgspec.convert(stored | {"position": position}, State)


def position_as_stored(state: State) -> Manifest:
    """The fields of the status that say where a rollout stands; none while there is no rollout."""
    if state.canary is None:
        return {}
    at = state.position
    stored = {
        "currentStepIndex": at.index,
        "currentStepHash": at.hash,
        "stepStartedAt": msgspec.to_builtins(at.started_at),
        "canaryPodsAtStepStart": at.canary_pods or None,
        "canaryScale": at.scale,
        "headerRoutes": [msgspec.to_builtins(route) for route in at.routes] or None,
        "paused": at.paused or None,
        "capacity": msgspec.to_builtins(at.capacity) or None,
    }
    return {name: value for name, value in stored.items() if value is not None}
