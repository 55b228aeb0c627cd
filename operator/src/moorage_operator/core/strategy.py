"""`spec.rollout` as typed, frozen values: how a new version takes over."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Literal

import msgspec

from moorage_operator.core import durations
from moorage_operator.core.judgement import Analysis
from moorage_operator.core.struct import Struct


class Pause(Struct, frozen=True):
    """Without a duration it waits for somebody to promote."""

    duration: str | int = ""

    @property
    def length(self) -> timedelta | None:
        return durations.parse(self.duration) if self.duration != "" else None


class CanaryScale(Struct, frozen=True):
    """How many pods the canary has, whatever its weight; or again as many as its weight asks for."""

    replicas: int | None = None
    match_traffic_weight: bool = False


class Judge(Struct, frozen=True):
    """The step `analysis`: look at both versions for so long before going on."""

    duration: str | int

    @property
    def length(self) -> timedelta:
        return durations.parse(self.duration)


class Match(Struct, frozen=True):
    """Requests whose header or cookie has just this value; without anything: none."""

    header: str = ""
    cookie: str = ""
    value: str = ""


class HeaderRoute(Struct, frozen=True):
    """Requests that get the canary whatever its weight."""

    name: str
    match: Match = Match()

    @property
    def removes(self) -> bool:
        """Does it take the route of that name away?"""
        return self.match == Match()


class Step(Struct, frozen=True):
    """Exactly one of them is set."""

    set_weight: int | None = None
    pause: Pause | None = None
    set_canary_scale: CanaryScale | None = None
    set_header_route: HeaderRoute | None = None
    analysis: Judge | None = None

    @property
    def dwell(self) -> timedelta:
        """How long it takes at least."""
        if self.analysis:
            return self.analysis.length
        return (self.pause.length if self.pause else None) or timedelta()


class BlueGreen(Struct, frozen=True):
    auto_promote: bool = True
    preview_service: bool = True


class Shadow(Struct, frozen=True):
    """Of stable's requests, so many are copied to the canary; 0 is none."""

    percent: int = 0


class Rollback(Struct, frozen=True):
    """What else happens when a version is put back by itself."""

    move_alias_back: bool = False


class Rollout(Struct, frozen=True):
    strategy: Literal["canary", "blueGreen", "recreate"] = "canary"
    steps: tuple[Step, ...] = ()
    signature: Literal["compatible", "any"] = "compatible"
    """Must callers of the stable version be able to use a new one?"""
    blue_green: BlueGreen = BlueGreen()
    analysis: Analysis | None = None
    shadow: Shadow = Shadow()
    on_no_capacity: Literal["wait", "shrinkStable", "recreate"] = "wait"
    progress_deadline_seconds: int = 600
    scale_down_delay_seconds: int = 30
    abort_scale_down_delay_seconds: int = 30
    rollback: Rollback = Rollback()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """What is written in the spec, or meant by the strategy; taking everything over comes last and is in none."""
        if self.strategy == "blueGreen":
            return () if self.blue_green.auto_promote else (Step(set_weight=0), Step(pause=Pause()))
        return self.steps if self.strategy == "canary" else ()

    @property
    def is_weighted(self) -> bool:
        """Do both versions answer at the same time, so that they can be compared?"""
        return self.strategy == "canary" and bool(self.steps)

    @property
    def judged_by(self) -> Analysis:
        """Who says nothing of analysis is watched over all the same, by a guard that asks for no number of requests."""
        if self.analysis:
            return self.analysis
        has_step = any(step.analysis for step in self.steps)
        return Analysis() if has_step else Analysis(min_requests=0)

    @property
    def progress_deadline(self) -> timedelta:
        return timedelta(seconds=self.progress_deadline_seconds)


TO_THE_END = Step(set_weight=100)
"""Follows the last step: the canary gets everything, and is promoted when the routers hold that."""


def hash_of(steps: tuple[Step, ...]) -> str:
    """Changed steps begin anew; a step that is written in another way is the same."""
    return hashlib.sha256(msgspec.json.encode(steps)).hexdigest()[:8]
