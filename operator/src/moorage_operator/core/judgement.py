"""`spec.rollout.analysis` as typed, frozen values: what a new version is judged by."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Literal

import msgspec

from moorage_operator.core.struct import Struct


def _share(percent: str) -> float:
    """ "0.5%" as 0.005. The CRD has checked the form."""
    return float(percent.removesuffix("%")) / 100


class ErrorRate(Struct, frozen=True):
    """Requests that failed, as the caller saw them."""

    tolerate: float = 1.0
    """Odds ratio (canary to stable) above which it is harm."""
    max_odds_ratio: float = 1.5
    max_rate: str = "0.5%"

    @property
    def most(self) -> float:
        return _share(self.max_rate)


class Latency(Struct, frozen=True):
    """Seconds that the slowest `1 - quantile` of the requests may exceed; without `max_seconds`, stable's own quantile."""

    quantile: float = 0.95
    max_seconds: float | None = None


class Disagreement(Struct, frozen=True):
    """Shadowed requests that the canary answered unlike stable."""

    max: str

    @property
    def most(self) -> float:
        return _share(self.max)


class Feedback(Struct, frozen=True):
    """Answers that callers said were wrong."""

    margin: float = 0.0
    """Odds ratio above 1 that is tolerated."""


class Prometheus(Struct, frozen=True):
    """The value of a query; a plain threshold, at least one of the two."""

    query: str
    max: float | None = None
    min: float | None = None


class Guard(Struct, frozen=True):
    """Exactly one of its kinds is set."""

    name: str
    error_rate: ErrorRate | None = None
    latency: Latency | None = None
    disagreement: Disagreement | None = None
    feedback: Feedback | None = None
    prometheus: Prometheus | None = None

    @property
    def hash(self) -> str:
        """Changed under way it begins anew; written in another way it is the same."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:8]


ERRORS = Guard(name="errors", error_rate=ErrorRate())


class Analysis(Struct, frozen=True):
    interval_seconds: int = 15
    initial_delay_seconds: int = 10
    baseline_seconds: int = 300
    min_requests: int = 100
    alpha: float = 0.01
    require: Literal["noHarm", "safe"] = "noHarm"
    timeout_seconds: int = 3600
    on_inconclusive: Literal["pause", "promote", "rollback"] = "pause"
    guards: tuple[Guard, ...] = (ERRORS,)

    @property
    def interval(self) -> timedelta:
        return timedelta(seconds=self.interval_seconds)

    @property
    def initial_delay(self) -> timedelta:
        return timedelta(seconds=self.initial_delay_seconds)

    @property
    def baseline(self) -> timedelta:
        """How long stable alone is measured before the first weight; nothing where no guard needs it."""
        needs = any(guard.latency and guard.latency.max_seconds is None for guard in self.guards)
        return timedelta(seconds=self.baseline_seconds if needs else 0)

    @property
    def timeout(self) -> timedelta:
        return timedelta(seconds=self.timeout_seconds)

    @property
    def prometheus(self) -> tuple[Guard, ...]:
        return tuple(guard for guard in self.guards if guard.prometheus)
