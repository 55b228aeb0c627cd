"""What the status remembers of an experiment, so that any process can go on with it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from moorage_operator.core.strategy import Match

NEXT = "-next"
"""After an arm's name: the version that is to take the arm over. The routers know its pods, and send them nothing."""


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """A revision that an arm has, or will have."""

    revision: str
    model_version: str


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

    def changed(self, **changes: object) -> Arm:
        return msgspec.structs.replace(self, **changes)

    @property
    def versions(self) -> Iterator[Version]:
        """That have pods for this arm."""
        if self.revision:
            yield Version(self.revision, self.model_version)
        if self.next:
            yield self.next


class Experiment(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """All arms, in the order in which they came: who comes later moves nobody else's users."""

    arms: tuple[Arm, ...] = ()

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
