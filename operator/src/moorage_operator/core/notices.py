"""What a registry is told of a rollout that has ended: what the status remembers of it, and the errands that carry it there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """How far an errand is."""

    PENDING = "Pending"
    DONE = "Done"
    SKIPPED = "Skipped"
    """There was nothing to do any more: the version is gone, somebody has moved the alias, a newer outcome counts."""
    FAILED = "Failed"
    """Given up: the registry says no, and would say it again."""


class Notice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Of one outcome: who is told, and what has come of it. A stage is None where that errand was never to be done."""

    name: str
    """The registry."""
    model: str
    tags: Stage | None = None
    alias: str = ""
    alias_back_to: str = ""
    """The version that the alias is to name again."""
    alias_move: Stage | None = None
    problem: str = ""
    """Why something failed."""

    def changed(self, **changes: object) -> Notice:
        return msgspec.structs.replace(self, **changes)


@dataclass(frozen=True)
class Tagging:
    """Make these tags of a model version so; None removes one."""

    registry: str
    model: str
    version: str
    tags: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class AliasMove:
    """Let the alias name `to` again, if it names `away_from`."""

    registry: str
    model: str
    alias: str
    away_from: str
    to: str


Errand = Tagging | AliasMove


@dataclass(frozen=True)
class Report:
    """What has come of an errand; `problem` if it failed."""

    stage: Stage
    problem: str = ""
