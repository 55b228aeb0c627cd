"""What the status remembers of an experiment, so that any process can go on with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

import msgspec

from moorage_operator.core.strategy import Match

NEXT = "-next"
"""After an arm's name: the version that is to take the arm over. The routers know its pods, and send them nothing."""


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """A revision that an arm has, or will have."""

    revision: str
    model_version: str


class Finding(StrEnum):
    """What is shown of an arm, against stable."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "noDifferenceShown"


class Evidence(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What has been counted of one metric: a restarted operator goes on from here."""

    requests: int = 0
    bad: int = 0
    stable_requests: int = 0
    stable_bad: int = 0
    logs: tuple[float, ...] = ()
    """Log-likelihoods of the odds ratios of `intervals.GRID`."""
    baseline: tuple[tuple[int, int], ...] = ()
    """Stable's requests and bad answers in the first ticks, which are not judged."""


class Verdict(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Of one metric. `estimate`, `low` and `high` are odds ratios of a bad answer, arm to stable."""

    metric: str
    verdict: Finding
    requests: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    state: Evidence = Evidence()


class Arm(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One version under test. `weight`, in percent, is what the routers are asked to hold."""

    name: str
    revision: str = ""
    """None while nobody knows what its model is."""
    model_version: str = ""
    weight: int = 0
    replicas: int = 0
    match: Match | None = None
    """Requests that the routers are asked to send there whatever the weights."""
    next: Version | None = None
    """Takes the arm over when its pods are ready and all routers know them."""
    has_begun: bool = False
    """From when it was ready first, it has its share; where it has lost its pods, stable answers instead."""
    problem: str = ""
    compared: tuple[str, str] = ("", "")
    """Its revision and stable's, that what follows is about."""
    held_since: datetime | None = None
    """From when all routers have been seen to hold it as it is: only requests after that are judged."""
    requests: int = 0
    errors: int = 0
    verdicts: tuple[Verdict, ...] = ()

    def changed(self, **changes: object) -> Arm:
        return msgspec.structs.replace(self, **changes)

    @property
    def versions(self) -> Iterator[Version]:
        """That have pods for this arm."""
        if self.revision:
            yield Version(self.revision, self.model_version)
        if self.next:
            yield self.next


class Winner(msgspec.Struct, frozen=True, rename="camel"):
    """An arm that was shown to be better: its version is wanted as long as spec and registry name `instead_of`."""

    arm: str
    revision: str
    model_version: str
    instead_of: str


class Experiment(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """All arms, in the order in which they came: who comes later moves nobody else's users."""

    arms: tuple[Arm, ...] = ()
    since: datetime | None = None
    at: datetime | None = None
    """End of the last sample that was judged."""
    winner: Winner | None = None

    @property
    def versions(self) -> dict[str, Version]:
        """By revision; two arms may have the same."""
        return {version.revision: version for arm in self.arms for version in arm.versions}

    def of(self, revision: str) -> tuple[Arm, ...]:
        """The arms that need pods of a revision."""
        return tuple(arm for arm in self.arms if revision in [version.revision for version in arm.versions])

    def pods(self, revision: str) -> int:
        """That the arms need of a revision, all together."""
        return sum(arm.replicas for arm in self.of(revision))
