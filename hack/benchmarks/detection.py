"""How soon a worse version is caught, and how often an equal one is put back: the guard of errors beside rules with a threshold.

All of them see the same simulated requests. Each rule begins with the first request of the canary and ends with its verdict.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from benchmarks import figures, streams
from benchmarks.streams import TICK_SECONDS, Rollout, Stream, steady
from moorage_operator.core.analysis import Report
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis

HOURS = 2
EQUAL = 1.0
WORSE = (2.0, 1.5, 1.2)
OUTAGE = range(40, 120)
"""Ticks in which both versions fail five times as often: twenty minutes, after ten."""


def with_outage(tick: int) -> float:
    return 0.05 if tick in OUTAGE else 0.01


STREAMS = {
    "1 % errors, 100 requests/s": Stream(100, steady(0.01)),
    "1 % errors, 5 requests/s": Stream(5, steady(0.01)),
    "0.1 % errors, 100 requests/s": Stream(100, steady(0.001)),
    "1 %, for 20 min 5 % in both; 100 requests/s": Stream(100, with_outage),
}


class Rule(Protocol):
    def sees(self, tick: Tick) -> bool:
        """One more tick; True to put the canary back."""


@dataclass
class Threshold:
    """The canary's success rate over a window, asked for at its end: so many answers below the bound, and it is put back."""

    least: float
    """Of the success rate."""
    minutes: int
    failures: int
    requests: int = 0
    bad: int = 0
    ticks: int = 0

    def sees(self, tick: Tick) -> bool:
        self.requests += tick.canary_requests
        self.bad += tick.canary_bad
        self.ticks += 1
        if self.ticks * TICK_SECONDS < 60 * self.minutes:
            return False
        if self.requests and 1 - self.bad / self.requests < self.least:
            self.failures -= 1
        self.requests = self.bad = self.ticks = 0
        return self.failures <= 0


class Guard:
    """Moorage's, as it is without any setting."""

    def __init__(self) -> None:
        self._rollout = Rollout(Analysis())

    def sees(self, tick: Tick) -> bool:
        return bool(self._rollout.look(streams.failed(tick)).harm)


def rules(base: float) -> dict[str, Rule]:
    """With the bounds of their documents' examples, and fitted: halfway to twice the errors, by somebody who knows stable's rate.

    Argo Rollouts fails with the first measurement beyond failureLimit, Flagger with as many as `threshold`.
    """
    known = 1 - 1.5 * base
    return {
        "Moorage, alpha 1 %": Guard(),
        "Argo Rollouts: 95 % in 5 min, failureLimit 3": Threshold(0.95, 5, 4),
        f"Argo Rollouts, fitted: {_percent(known)} in 5 min, failureLimit 3": Threshold(known, 5, 4),
        "Flagger: 99 % in 1 min, threshold 5": Threshold(0.99, 1, 5),
        f"Flagger, fitted: {_percent(known)} in 1 min, threshold 5": Threshold(known, 1, 5),
    }


@dataclass
class Found:
    """Of one rule in all runs: the looks and the canary's requests until it put the canary back."""

    runs: int = 0
    looks: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)


def measure(stream: Stream, runs: int, hours: float = HOURS) -> dict[str, Found]:
    found = {name: Found() for name in rules(stream.base(0))}
    for seed in range(runs):
        for name, result in until_verdicts(stream, seed, round(hours * 3600 / TICK_SECONDS)).items():
            found[name].runs += 1
            if result:
                found[name].looks.append(result[0])
                found[name].requests.append(result[1])
    return found


def until_verdicts(stream: Stream, seed: int, looks: int) -> dict[str, tuple[int, int] | None]:
    """By rule: after how many looks and requests of the canary, None if it let it through."""
    luck, requests = random.Random(seed), 0  # noqa: S311 - it has to be the same each time
    watching = rules(stream.base(0))
    found: dict[str, tuple[int, int] | None] = dict.fromkeys(watching)
    for look in range(1, looks + 1):
        tick = stream.tick(luck, look - 1)
        requests += tick.canary_requests
        for name in [name for name, rule in watching.items() if rule.sees(tick)]:
            found[name] = look, requests
            del watching[name]
        if not watching:
            break
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


SHORT_HOURS = 0.5
TITLES = [
    "stream",
    "rule",
    "equal, put back in 30 min",
    f"in {HOURS} h",
    *(f"×{times:g}: caught, time, requests" for times in WORSE),
]


def table(runs: int, hours: float = HOURS) -> str:
    return figures.table(TITLES, (row for name, stream in STREAMS.items() for row in _rows(name, stream, runs, hours)))


def _rows(name: str, stream: Stream, runs: int, hours: float) -> Iterator[list[str]]:
    equal, *worse = (measure(replace(stream, worse=times), runs, hours) for times in (EQUAL, *WORSE))
    for rule in equal:
        soon = [looks for looks in equal[rule].looks if looks * TICK_SECONDS <= SHORT_HOURS * 3600]
        alarms = [f"{100 * len(looks) / runs:.0f} %" for looks in (soon, equal[rule].looks)]
        yield [name, rule, *alarms, *(_caught(found[rule]) for found in worse)]


def _caught(found: Found) -> str:
    """The share; and the medians over all runs, if at least half of them ended."""
    share = f"{100 * len(found.looks) / found.runs:.0f} %"
    if 2 * len(found.looks) < found.runs:
        return share
    never = [math.inf] * (found.runs - len(found.looks))
    looks, requests = (statistics.median([*map(float, values), *never]) for values in (found.looks, found.requests))
    return share if math.isinf(looks) else f"{share}, {_duration(looks)}, {figures.rounded(requests)}"


def _duration(looks: float) -> str:
    seconds = looks * TICK_SECONDS
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min"


RATES, TIMES = (20, 100, 500), (2.0, 3.0, 5.0, 10.0)
TRAFFIC_TITLES = [
    "requests/s",
    *(f"×{times:g} errors: put back after" for times in TIMES),
    "equal: safe after, at 10 % of the requests",
    "at 25 %",
]


def traffic(runs: int) -> str:
    """With 1 % errors at stable; how long the guard of errors needs to put a worse canary back, and to show that an equal one is safe."""
    rows = []
    for rps in RATES:
        harm = [looks_until(Stream(rps, steady(0.01), worse=times), Verdict.HARM, runs) for times in TIMES]
        safe = [
            looks_until(Stream(rps, steady(0.01), weight=steady(share)), Verdict.SAFE, runs) for share in (0.1, 0.25)
        ]
        rows.append([str(rps), *map(_median, [*harm, *safe])])
    return figures.table(TRAFFIC_TITLES, rows)


def quiet(runs: int) -> str:
    """With an equal canary; by its rate of errors, how many of its requests show that it is safe."""
    rows = []
    for rate in (0.0, 0.0005, 0.001, 0.002, 0.01):
        needed = [_requests_to_safe(Stream(50, steady(rate)), seed) for seed in range(runs)]
        found = statistics.median(needed)
        rows.append([_percent(rate), f"not in {HOURS} h" if math.isinf(found) else figures.rounded(found)])
    return figures.table(["errors of both", "requests of the new version until it is safe"], rows)


def looks_until(stream: Stream, verdict: Verdict, runs: int) -> list[float]:
    most = HOURS * 3600 // TICK_SECONDS
    return [_first(streams.looks(stream, Analysis(), seed), verdict, most) for seed in range(runs)]


def _first(reports: Iterable[tuple[Tick, Report]], verdict: Verdict, most: int) -> float:
    for number, (_, report) in enumerate(reports, start=1):
        if report.judged[0].verdict is verdict:
            return number
        if number == most:
            break
    return math.inf


def _requests_to_safe(stream: Stream, seed: int) -> float:
    requests = 0
    for number, (tick, report) in enumerate(streams.looks(stream, Analysis(), seed), start=1):
        requests += tick.canary_requests
        if report.judged[0].verdict is Verdict.SAFE:
            return requests
        if number * TICK_SECONDS >= HOURS * 3600:
            break
    return math.inf


def _median(looks: Sequence[float]) -> str:
    found = statistics.median(looks)
    return f"not in {HOURS} h" if math.isinf(found) else _duration(found)


def bursts(runs: int) -> str:
    """Equal canaries, 20 requests a second with 1 % errors, for an hour; put back without and with 20 looks at stable before."""
    rows = []
    for burst in (1, 3, 5):
        stream = Stream(20, steady(0.01), burst=burst)
        shares = [sum(_is_put_back(stream, seed, looks) for seed in range(runs)) / runs for looks in (0, 20)]
        rows.append([str(burst), *(f"{100 * share:.1f} %" for share in shares)])
    return figures.table(["errors at a time", "put back though equal", "with 20 looks at stable before"], rows)


def _is_put_back(stream: Stream, seed: int, looks_before: int) -> bool:
    luck, rollout = random.Random(seed), Rollout(Analysis())  # noqa: S311 - it has to be the same each time
    alone = replace(stream, weight=steady(0.0))
    for number in range(looks_before):
        rollout.look(streams.failed(alone.tick(luck, number)), 0)
    return any(rollout.look(streams.failed(stream.tick(luck, number))).harm for number in range(3600 // TICK_SECONDS))
