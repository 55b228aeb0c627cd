"""How soon the guards of latency and of feedback put a worse version back, by simulation; that of errors: `detection`."""

from __future__ import annotations

import functools
import itertools
import math
import random
import statistics
from typing import Protocol

from benchmarks import figures, streams
from benchmarks.alarms import RIGHT, SLOW
from benchmarks.streams import Rollout, Stream, binomial, steady
from moorage_operator.core import evidence

HOURS = 2
MOST_LOOKS = HOURS * 3600 // streams.TICK_SECONDS
SLOWER = (1.1, 1.2, 1.5)
LATENCIES = statistics.NormalDist(sigma=0.6)
"""The logarithm of a request's time."""

PAIRS_A_LOOK = 50
ALONE = math.log(1 / RIGHT.alpha)
"""What one test has to show where it is the only one."""


def slower(times: float) -> Stream:
    """Stable's slowest 5 % are above the edge."""
    edge = LATENCIES.inv_cdf(0.95)
    slow = 1 - LATENCIES.cdf(edge - math.log(times))
    return Stream(100, steady(0.05), worse=slow / 0.05)


def looks_until_slow(times: float, seed: int) -> float:
    reports = itertools.islice(streams.looks(slower(times), SLOW, seed, streams.slow), MOST_LOOKS)
    return next((number for number, (_, report) in enumerate(reports, start=1) if report.harm), math.inf)


def latency(runs: int) -> str:
    """With 100 requests a second, 10 % of them at the new version."""
    rows = []
    for times in SLOWER:
        found = statistics.median(looks_until_slow(times, seed) for seed in range(runs))
        rows.append([f"{100 * (times - 1):.0f} %", f"{found * streams.TICK_SECONDS:.0f} s"])
    return figures.table(["slower by", f"put back after, median of {runs} rollouts"], rows)


def pairs_until_harm(seed: int, *, alone: bool = False) -> float:
    """Two points less accurate, 6 % of the requests answered rightly by just one; `alone`, without the guard's other test."""
    luck, rollout = random.Random(seed), Rollout(RIGHT)  # noqa: S311 - it has to be the same each time
    pairs = of_canary = of_stable = 0
    found = False
    while not found:
        wrong = binomial(luck, PAIRS_A_LOOK, 0.04), binomial(luck, PAIRS_A_LOOK, 0.02)
        pairs, of_canary, of_stable = pairs + PAIRS_A_LOOK, of_canary + wrong[0], of_stable + wrong[1]
        harm = rollout.look(streams.paired(*wrong)).harm
        found = evidence.paired(of_canary, of_stable) >= ALONE if alone else bool(harm)
    return pairs


def labels_until_harm(weight: float, seed: int, *, alone: bool = False) -> float:
    """Two points less accurate than 90 %, with labels of either version's requests."""
    stream = Stream(20, steady(0.1), worse=1.2, weight=steady(weight))
    alternatives = evidence.harm_alternatives(1.0)
    products = (0.0,) * len(alternatives)
    labels = 0
    for tick, report in streams.looks(stream, RIGHT, seed, streams.wrong):
        labels += tick.canary_requests + tick.stable_requests
        if alone:
            products = evidence.grown(products, evidence.odds_ratio(tick, 1.0, alternatives))
        if (evidence.log_e(products) >= ALONE) if alone else report.harm:
            break
    return labels


class UntilHarm(Protocol):
    def __call__(self, seed: int, *, alone: bool = False) -> float:
        """How many labels it takes."""


def labels_at(weight: float) -> UntilHarm:
    return functools.partial(labels_until_harm, weight)


WAYS: dict[str, UntilHarm] = {
    "labelled pairs": pairs_until_harm,
    "labels, 50 % of the requests": labels_at(0.5),
    "labels, 10 % of the requests": labels_at(0.1),
}
FEEDBACK_TITLES = ["labels of", "the guard", "if it had only this test"]


def feedback(runs: int) -> str:
    rows = []
    for name, until_harm in WAYS.items():
        found = (statistics.median(until_harm(seed, alone=alone) for seed in range(runs)) for alone in (False, True))
        rows.append([name, *map(figures.rounded, found)])
    return figures.table(FEEDBACK_TITLES, rows)
