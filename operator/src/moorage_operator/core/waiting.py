"""What a rollout is decided by, and what it waits for: the words that its steps and its judgement share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from moorage_operator.core import routing, traffic
from moorage_operator.core.kinds import SERVICE
from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import Problem
from moorage_operator.core.spec import Spec


class WaitsFor(StrEnum):
    """Whose turn it is."""

    PODS = "pods"
    ROUTERS = "routers"
    CLOCK = "clock"
    TRAFFIC = "traffic"
    PERSON = "person"


@dataclass(frozen=True)
class Obstacle:
    """What a step waits for, and what to say of it."""

    waits_for: WaitsFor
    message: str
    until: datetime | None = None
    failure: Problem | None = None
    """Why there is nothing to wait for: the canary has to be put back."""
    wants_look: bool = False
    """Do the counters have to be looked at now?"""

    @property
    def has_deadline(self) -> bool:
        """Machines have to be done in time; people need not."""
        return self.waits_for in (WaitsFor.PODS, WaitsFor.ROUTERS)


@dataclass(frozen=True)
class World:
    """What a rollout is decided by."""

    spec: Spec
    observed: Observed
    routed: traffic.Routed
    now: datetime

    @property
    def is_behind_router(self) -> bool:
        """Does the address point to a router of ours?"""
        return routing.port_of(self.observed.child(SERVICE, self.observed.owner.name)) is not None
