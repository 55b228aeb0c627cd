"""`spec.experiment` as typed, frozen values: versions that answer a part of the requests beside the stable one."""

from __future__ import annotations

from typing import Literal

from moorage_operator.core.needs import Resources
from moorage_operator.core.strategy import Match
from moorage_operator.core.struct import Struct


class ArmModel(Struct, frozen=True):
    """Of the registered model that spec.model names; exactly one of them is set."""

    alias: str = ""
    version: str = ""


class Arm(Struct, frozen=True):
    """One version under test. `weight` is in percent of all requests."""

    name: str
    model: ArmModel
    weight: int
    replicas: int | None = None
    """Without it, as many as the weight asks for."""
    resources: Resources | None = None
    """Without them, those of the spec."""
    match: Match = Match()
    """Requests that get this arm whatever the weights say."""


class Experiment(Struct, frozen=True):
    arms: tuple[Arm, ...]
    winner: Literal["report", "promote"] = "report"
