"""What the judgement promises, kept by simulated rollouts with a look every 15 s: how seldom it is wrong, and how soon it is right.

They go through the whole of `analysis.heed`, by the counters that routers and runtimes have. Luck has seeds, so a run is the same each
time; the bounds allow for what luck may do in so many runs (one in a thousand, where nothing else is said).
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from benchmarks import alarms, power, streams
from benchmarks.alarms import HOUR, Case
from benchmarks.streams import Rollout, Stream, binomial, steady
from moorage_operator.core import analysis, guards, judgement
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Verdict
from moorage_operator.core.state import Judged, Measured

ALPHA, BETA = 0.01, guards.BETA
LONG = [pytest.mark.long, pytest.mark.timeout(1800)]

all_alone = pytest.mark.parametrize("runs", [pytest.param(400, id="all", marks=LONG)])
few_and_all = pytest.mark.parametrize("runs", [pytest.param(20, id="few"), pytest.param(400, id="all", marks=LONG)])


def length(runs: int) -> int:
    """Looks: an hour of them, or what is enough to see in seconds that something is badly wrong."""
    return HOUR if runs >= 400 else 20


def at_most(runs: int, share: float) -> int:
    """More false alarms than this happen by luck once in a thousand times."""
    return int(stats.binom.ppf(0.999, runs, share))


def looks_until(reports: Iterable[tuple[Tick, analysis.Report]], verdict: Verdict, most: int = HOUR) -> float:
    """How many, until the first guard says so; infinitely many if it does not within `most`."""
    found = enumerate(itertools.islice(reports, most), start=1)
    return next((number for number, (_, report) in found if report.judged[0].verdict is verdict), math.inf)


class TestFalseAlarms:
    """The cases are those of the table in docs/statistics.md."""

    @few_and_all
    @pytest.mark.parametrize("case", alarms.CASES.values(), ids=alarms.CASES)
    def test_chance_alone_is_seldom_a_verdict(self, case: Case, runs: int) -> None:
        assert alarms.count(case, runs, length(runs)) <= at_most(runs, case.allowed)

    def test_who_looks_again_and_again_at_a_p_value_is_often_wrong(self) -> None:
        """That these simulations can fail: an equal canary again, and a bound that holds for one look."""
        stream, bound = alarms.ONE_PERCENT, stats.norm.ppf(1 - BETA)

        def run(seed: int) -> bool:
            luck, n, k, m, j = random.Random(seed), 0, 0, 0, 0
            for number in range(HOUR):
                tick = stream.tick(luck, number)
                n, k = n + tick.canary_requests, k + tick.canary_bad
                m, j = m + tick.stable_requests, j + tick.stable_bad
                rate = (k + j) / (n + m)
                if rate and (k / n - j / m) / math.sqrt(rate * (1 - rate) * (1 / n + 1 / m)) > bound:
                    return True
            return False

        assert sum(map(run, range(60))) > at_most(60, BETA)


def known_dispersion(value: float) -> tuple[Judged, ...]:
    state = guards.State(dispersion=value, hash=judgement.ERRORS.hash)
    return (Judged("errors", Verdict.NO_TRAFFIC, "", state=state),)


class TestBursts:
    """Errors that come several at a time are no independent requests."""

    @all_alone
    @pytest.mark.parametrize(("burst", "often"), [(3, 0.10), (5, 0.20)])
    def test_they_break_the_level_unless_they_are_known(self, burst: int, often: float, runs: int) -> None:
        """The first of it in a minute: `test_evidence`."""
        stream = Stream(20, steady(0.01), burst=burst)

        def run(seed: int, dispersion: float) -> bool:
            luck, rollout = random.Random(seed), Rollout(alarms.ERRORS, judged=known_dispersion(dispersion))
            return any(rollout.look(streams.failed(stream.tick(luck, number))).harm for number in range(HOUR))

        wild, tempered = ([run(seed, value) for seed in range(runs)] for value in (1.0, float(burst)))
        assert sum(wild) > often * runs
        assert sum(tempered) <= at_most(runs, ALPHA)

    @few_and_all
    @pytest.mark.parametrize("burst", [3, 5])
    def test_what_stable_shows_before_the_first_weight_is_enough(self, burst: int, runs: int) -> None:
        """20 ticks tell the dispersion to a third or so: not quite alpha, but no more than a few times that."""
        stream = Stream(20, steady(0.01), burst=burst)
        before = replace(stream, weight=steady(0.0))

        def run(seed: int) -> bool:
            luck, rollout = random.Random(seed), Rollout(alarms.ERRORS)
            for number in range(20):
                rollout.look(streams.failed(before.tick(luck, number)), 0)
            return any(rollout.look(streams.failed(stream.tick(luck, number))).harm for number in range(length(runs)))

        assert sum(map(run, range(runs))) <= at_most(runs, 3 * ALPHA)


SOON: dict[Any, float] = {
    # requests a second, times as many errors: seconds
    (20, 2): 885, (20, 3): 240, (20, 5): 90, (20, 10): 30,
    (100, 2): 195, (100, 3): 60, (100, 5): 30, (100, 10): 15,
    (500, 2): 45, (500, 3): 15, (500, 5): 15, (500, 10): 15,
}  # fmt: skip
QUICK = {(100, 10), (500, 2), (500, 5)}
"""Those that `test_evidence` does not have and that take no time."""


def cells(table: dict[Any, float], quick: Iterable[Any]) -> pytest.MarkDecorator:
    """Few runs of the quick ones, and all of all."""
    few = [pytest.param(key, table[key], 20, id=f"{key}-few") for key in quick]
    return pytest.mark.parametrize(
        ("key", "seconds", "runs"),
        [*few, *(pytest.param(k, v, 400, id=f"{k}-all", marks=LONG) for k, v in table.items())],
    )


def is_near(found: list[float], seconds: float) -> bool:
    """The median of looks: a tick, and what a median may do by luck in so many runs."""
    allowed = streams.TICK_SECONDS + (0.15 if len(found) >= 400 else 0.5) * seconds
    return abs(statistics.median(found) * streams.TICK_SECONDS - seconds) <= allowed


class TestPower:
    @cells(SOON, sorted(QUICK))
    def test_how_soon_more_errors_put_it_back(self, key: tuple[int, int], seconds: float, runs: int) -> None:
        stream = Stream(key[0], steady(0.01), worse=key[1])
        found = [looks_until(streams.looks(stream, alarms.ERRORS, seed), Verdict.HARM) for seed in range(runs)]

        assert is_near(found, seconds)

    @cells({20: 818, 100: 240, 500: 60}, [500])
    def test_how_soon_an_equal_one_is_shown_to_be_no_worse_than_half(self, key: int, seconds: float, runs: int) -> None:
        stream = Stream(key, steady(0.01), weight=steady(0.25))
        reports = (streams.looks(stream, alarms.RIGHT, seed, streams.wrong) for seed in range(runs))

        assert is_near([looks_until(run, Verdict.SAFE) for run in reports], seconds)

    @all_alone
    @pytest.mark.parametrize(("rate", "share"), [(0.005, BETA), (0.006, 0.025)])
    def test_a_rate_at_the_limit_is_seldom_called_safe(self, rate: float, share: float, runs: int) -> None:
        assert sum(map(math.isfinite, requests_to_safe(rate, runs))) <= at_most(runs, share)

    @few_and_all
    @pytest.mark.parametrize(("rate", "requests"), [(0.0, 750), (0.0005, 750), (0.001, 1275), (0.002, 2175)])
    def test_how_soon_a_low_rate_is_safe(self, rate: float, requests: int, runs: int) -> None:
        found = statistics.median(requests_to_safe(rate, runs))

        assert found == pytest.approx(requests, rel=0.15 if runs >= 400 else 0.4, abs=75)

    @cells({1.1: 240, 1.2: 60, 1.5: 15}, [1.2, 1.5])
    def test_how_soon_a_slower_one_is_put_back(self, key: float, seconds: float, runs: int) -> None:
        """Stable's slowest 5 % are above the edge; times are lognormal, with a deviation of 0.6."""
        found = [power.looks_until_slow(key, seed) for seed in range(runs)]

        assert is_near(found, seconds)


def requests_to_safe(rate: float, runs: int) -> list[float]:
    """At the canary, with a look every 75 of them up to 9,000."""
    stream, asked = Stream(5, steady(rate), weight=steady(1.0)), streams.asking({"disagreement": {"max": "0.5%"}})
    reports = (streams.looks(stream, asked, seed, streams.unlike) for seed in range(runs))
    return [75 * looks_until(run, Verdict.SAFE, 120) for run in reports]


class TestPairs:
    """Two points less accurate, 6 % of the requests answered rightly by just one of the two."""

    @few_and_all
    def test_they_need_a_tenth_of_the_labels(self, runs: int) -> None:
        runs = max(20, runs // 4)
        pairs = statistics.median(power.pairs_until_harm(seed) for seed in range(runs))
        labels = statistics.median(power.labels_until_harm(0.5, seed) for seed in range(runs))

        assert 1100 <= pairs <= 1900
        assert 8 * pairs <= labels <= 20_000


class TestWrongWeights:
    @pytest.mark.parametrize(("applied", "requests"), [(0.0, 205), (0.2, 270), (0.05, 610), (0.08, 3240)])
    def test_how_many_requests_show_one(self, applied: float, requests: int) -> None:
        """10 % is wanted. Through the whole of a look, unlike `test_evidence`, so every 10 requests."""

        def run(seed: int) -> int:
            luck, measured = random.Random(seed), Measured()
            while not analysis.ratio_alarm(measured, streams.arms(0.1)):
                canary = measured.canary_requests + binomial(luck, 10, applied)
                measured = Measured(canary_requests=canary, requests=measured.requests + 10)
            return measured.requests

        assert statistics.median(map(run, range(60))) == pytest.approx(requests, rel=0.25)

    def test_a_look_counts_what_came_since_the_weight_was_set(self) -> None:
        rollout, stream, luck = Rollout(alarms.ERRORS), Stream(20, steady(0.01), weight=steady(0.2)), random.Random(1)
        for number in range(4):
            rollout.look(streams.failed(stream.tick(luck, number)), 0.1)

        assert "of 1,200 requests" in analysis.ratio_alarm(rollout.measured, streams.arms(0.1))
