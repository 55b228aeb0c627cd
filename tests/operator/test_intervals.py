"""The interval of an odds ratio holds the true one as often as it says, however often one looks and whenever one stops."""

from __future__ import annotations

import math
import random

import pytest

from moorage_operator.core import evidence, intervals
from moorage_operator.core.evidence import Logs, Tick

ALPHA = 0.05
RUNS, TICKS = 300, 80


def a_tick(chance: random.Random, ratio: float, number: int) -> Tick:
    """Rates and weights drift; the arm's odds are always `ratio` times stable's."""
    rate = 0.05 * (1 + math.sin(number / 7)) + 0.02
    odds = ratio * rate / (1 - rate)
    arm, stable = (10, 90) if number % 20 < 10 else (40, 60)
    bad = [sum(chance.random() < p for _ in range(n)) for n, p in ((arm, odds / (1 + odds)), (stable, rate))]
    return Tick(arm, bad[0], stable, bad[1])


def is_held(interval: intervals.Interval, ratio: float) -> bool:
    return (interval.low or 0.0) <= ratio <= (interval.high or math.inf)


@pytest.mark.parametrize("ratio", [1.0, 0.6, 1.83])
def test_it_holds_the_true_ratio_after_every_tick_in_all_but_alpha_of_the_runs(ratio: float) -> None:
    chance = random.Random(4)
    missed = 0
    for _ in range(RUNS):
        logs: Logs = ()
        for number in range(TICKS):
            logs = tuple(round(log, 3) for log in intervals.grown(logs, a_tick(chance, ratio, number), 1.0))
            if not is_held(intervals.of(logs, ALPHA), ratio):
                missed += 1
                break
    assert missed <= ALPHA * RUNS


@pytest.mark.parametrize(("ratio", "is_shown"), [(0.3, "is_below_one"), (3.0, "is_above_one")])
def test_what_is_much_better_or_worse_is_shown(ratio: float, is_shown: str) -> None:
    chance = random.Random(5)
    logs: Logs = ()
    for number in range(200):
        logs = intervals.grown(logs, a_tick(chance, ratio, number), 1.0)
    found = intervals.of(logs, ALPHA)
    assert getattr(found, is_shown)
    assert found.low
    assert found.high
    assert found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(ratio, rel=0.3)


def test_nothing_is_known_of_what_nobody_asked() -> None:
    logs = intervals.grown((), Tick(0, 0, 100, 5), 1.0)
    assert intervals.of(logs, ALPHA).low is None
    assert intervals.of(logs, ALPHA).high is None


def test_no_difference_is_a_point_of_the_grid_of_its_own() -> None:
    assert intervals.GRID[len(intervals.GRID) // 2] == 1.0
    assert list(intervals.GRID) == sorted(intervals.GRID)
    assert (intervals.GRID[0], intervals.GRID[-1]) == pytest.approx((1 / 20, 20))


def test_an_interval_narrower_than_the_grid_still_holds_the_peak() -> None:
    """Between two points, both of which are out."""
    log = math.log(1.03)
    logs = tuple(-5000 * (math.log(psi) - log) ** 2 for psi in intervals.GRID)
    found = intervals.of(logs, ALPHA)
    assert found.low
    assert found.high
    assert found.low < 1.03 < found.high
    assert found.estimate == pytest.approx(1.03, rel=0.01)


def test_bursts_are_worth_fewer_requests() -> None:
    tick = Tick(100, 30, 900, 100)
    once, tempered = (evidence.log_e(intervals.grown((), tick, dispersion)) for dispersion in (1.0, 4.0))
    assert tempered < once
