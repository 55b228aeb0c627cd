"""Simulated requests of a rollout, as routers and runtimes would have counted them, and the operator's own judgement of them.

`hack/bench detection`, `power` and `alarms` measure with them, and the tests of the statistics rest on them. No clock and no
cluster: luck has a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_operator.core import analysis, spec
from moorage_operator.core.analysis import Report
from moorage_operator.core.counted import Name, Sample
from moorage_operator.core.evidence import Tick
from moorage_operator.core.judgement import Analysis
from moorage_operator.core.state import Judged, Measured
from moorage_operator.core.ticks import Arms

TICK_SECONDS = 15
STABLE, CANARY = "v3", "v4"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
EDGE = "0.2"

Counts = Mapping[Name, float]


def binomial(luck: random.Random, trials: int, probability: float) -> int:
    """By the gaps between hits: quick where hits are few."""
    if probability > 0.5:
        return trials - binomial(luck, trials, 1 - probability)
    if probability <= 0.0:
        return 0
    hits, at, scale = 0, 0, math.log1p(-probability)
    while (at := at + 1 + int(math.log(1 - luck.random()) / scale)) <= trials:
        hits += 1
    return hits


def steady(value: float) -> Callable[[int], float]:
    """The same in each tick."""
    return lambda tick: value


TENTH = steady(0.1)


@dataclass(frozen=True)
class Stream:
    """Requests of both versions; `base` and `weight` (a share) may differ from tick to tick."""

    rps: float
    base: Callable[[int], float]
    """The share of stable's requests that are bad."""
    worse: float = 1.0
    """How many times as many of the canary's are."""
    weight: Callable[[int], float] = TENTH
    burst: int = 1
    """So many errors come at a time."""

    def tick(self, luck: random.Random, number: int) -> Tick:
        requests, weight, base = round(self.rps * TICK_SECONDS), self.weight(number), self.base(number)
        at_canary = binomial(luck, requests, weight)
        at_stable = requests - at_canary
        bad = self._bad(luck, at_canary, min(1.0, base * self.worse))
        return Tick(at_canary, bad, at_stable, self._bad(luck, at_stable, base))

    def _bad(self, luck: random.Random, requests: int, rate: float) -> int:
        if self.burst == 1:
            return binomial(luck, requests, rate)
        return self.burst * binomial(luck, requests // self.burst, rate)


def failed(tick: Tick) -> Counts:
    """As routers count it."""
    return {
        ("router", "canary", "requests"): tick.canary_requests,
        ("router", "canary", "bad"): tick.canary_bad,
        ("router", "stable", "requests"): tick.stable_requests,
        ("router", "stable", "bad"): tick.stable_bad,
    }


def slow(tick: Tick) -> Counts:
    """As the histograms of the runtimes count it: what is bad took longer than 0.2 s."""
    return {
        (CANARY, "seconds", "canary", "v2", EDGE): tick.canary_requests - tick.canary_bad,
        (CANARY, "seconds", "canary", "v2", "+Inf"): tick.canary_requests,
        (STABLE, "seconds", "stable", "v2", EDGE): tick.stable_requests - tick.stable_bad,
        (STABLE, "seconds", "stable", "v2", "+Inf"): tick.stable_requests,
    }


def unlike(tick: Tick) -> Counts:
    """Shadows of stable's requests: those at the canary count."""
    return {
        (STABLE, "shadow", CANARY, "disagree"): tick.canary_bad,
        (STABLE, "shadow", CANARY, "agree"): tick.canary_requests - tick.canary_bad,
    }


def wrong(tick: Tick) -> Counts:
    """Callers' words on answers."""
    return {
        (CANARY, "feedback", CANARY, "canary", "wrong"): tick.canary_bad,
        (CANARY, "feedback", CANARY, "canary", "right"): tick.canary_requests - tick.canary_bad,
        (STABLE, "feedback", STABLE, "stable", "wrong"): tick.stable_bad,
        (STABLE, "feedback", STABLE, "stable", "right"): tick.stable_requests - tick.stable_bad,
    }


def paired(canary_wrong: int, stable_wrong: int, both_wrong: int = 0) -> Counts:
    """Labels of requests that both answered."""
    return {
        (STABLE, "pairs", CANARY, "canary_wrong"): canary_wrong,
        (STABLE, "pairs", CANARY, "stable_wrong"): stable_wrong,
        (STABLE, "pairs", CANARY, "both_wrong"): both_wrong,
    }


def asking(*kinds: dict[str, Any]) -> Analysis:
    """For guards of these kinds, as in a manifest."""
    guards_of = [{"name": f"guard-{number}"} | kind for number, kind in enumerate(kinds)]
    manifest = {"spec": {"model": {"name": "m", "version": "1"}, "rollout": {"analysis": {"guards": guards_of}}}}
    return spec.parse(manifest).rollout.judged_by


class Rollout:
    """One that is judged, sample after sample."""

    def __init__(self, asked: Analysis, *, judged: tuple[Judged, ...] = (), measured: Measured | None = None) -> None:
        self._asked = asked
        self.judged = judged
        self.measured = measured or Measured()
        self._looks = 0

    def look(self, counts: Counts, weight: float = 0.1) -> Report:
        """`weight` as a share; 0 is before the first one."""
        since = BEGIN + timedelta(seconds=TICK_SECONDS * self._looks)
        sample = Sample(since, since + timedelta(seconds=TICK_SECONDS), counts)
        report = analysis.heed(self._asked, self.judged, self.measured, sample, arms(weight))
        self.judged, self.measured = report.judged, report.measured
        self._looks += 1
        return report


def arms(weight: float) -> Arms:
    return Arms(STABLE, CANARY, by_haproxy=True, by_gateway=False, is_sticky=False, weight=round(100 * weight))


def looks(
    stream: Stream, asked: Analysis, seed: int, kind: Callable[[Tick], Counts] = failed
) -> Iterator[tuple[Tick, Report]]:
    """Without an end."""
    luck, rollout = random.Random(seed), Rollout(asked)  # noqa: S311 - it has to be the same each time
    number = 0
    while True:
        tick = stream.tick(luck, number)
        yield tick, rollout.look(kind(tick), stream.weight(number))
        number += 1
