"""What the judgement promises, kept by simulated rollouts with a look every 15 s: how seldom it is wrong, and how soon it is right.

They go through the whole of `analysis.heed`, by the counters that routers and runtimes have. Luck has seeds, so a run is the same each
time; the bounds allow for what luck may do in so many runs (one in a thousand, where nothing else is said).
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from benchmarks import streams
from benchmarks.streams import Rollout, Stream, binomial, steady
from moorage_operator.core import analysis, guards, judgement, spec
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis
from moorage_operator.core.state import Judged, Measured

ALPHA, BETA, HOUR = 0.01, guards.BETA, 240
LONG = [pytest.mark.long, pytest.mark.timeout(1800)]

all_alone = pytest.mark.parametrize("runs", [pytest.param(400, id="all", marks=LONG)])
few_and_all = pytest.mark.parametrize("runs", [pytest.param(20, id="few"), pytest.param(400, id="all", marks=LONG)])


def length(runs: int) -> int:
    """Looks: an hour of them, or what is enough to see in seconds that something is badly wrong."""
    return HOUR if runs >= 400 else 20


def at_most(runs: int, share: float) -> int:
    """More false alarms than this happen by luck once in a thousand times."""
    return int(stats.binom.ppf(0.999, runs, share))


def asking(*kinds: dict[str, Any]) -> Analysis:
    """For guards of these kinds, as in a manifest."""
    guards_of = [{"name": f"guard-{number}"} | kind for number, kind in enumerate(kinds)]
    manifest = {"spec": {"model": {"name": "m", "version": "1"}, "rollout": {"analysis": {"guards": guards_of}}}}
    return spec.parse(manifest).rollout.judged_by


ERRORS = Analysis()
SLOW = asking({"latency": {"quantile": 0.95, "maxSeconds": 0.2}})
RIGHT = asking({"feedback": {}})


def is_put_back(reports: Iterable[tuple[Tick, analysis.Report]], looks: int) -> bool:
    return any(report.harm for _, report in itertools.islice(reports, looks))


def looks_until(reports: Iterable[tuple[Tick, analysis.Report]], verdict: Verdict, most: int = HOUR) -> float:
    """How many, until the first guard says so; infinitely many if it does not within `most`."""
    found = enumerate(itertools.islice(reports, most), start=1)
    return next((number for number, (_, report) in found if report.judged[0].verdict is verdict), math.inf)


def drifting(number: int) -> float:
    """From 0.2 % to 4 % and back each half hour, and for two minutes in each quarter nearly everything fails."""
    return 0.9 if number % 60 >= 52 else 0.002 * 20 ** (0.5 - 0.5 * math.cos(number / 19))


def in_steps(*weights: float, each: int) -> Callable[[int], float]:
    return lambda number: weights[number // each % len(weights)]


EQUAL = {
    "5 %": (Stream(20, steady(0.01), weight=steady(0.05)), ERRORS, streams.failed),
    "10 %": (Stream(20, steady(0.01)), ERRORS, streams.failed),
    "50 %": (Stream(20, steady(0.01), weight=steady(0.5)), ERRORS, streams.failed),
    "few requests": (Stream(1, steady(0.01)), ERRORS, streams.failed),
    "hardly an error": (Stream(100, steady(0.0002)), ERRORS, streams.failed),
    "rate and weight change": (Stream(20, drifting, weight=in_steps(0.02, 0.5, 0.1, each=7)), ERRORS, streams.failed),
    "stable fails often, too": (Stream(13.3, steady(0.2)), ERRORS, streams.failed),
    "latency": (Stream(20, steady(0.05)), SLOW, streams.slow),
    "latency drifts": (Stream(20, drifting, weight=in_steps(0.05, 0.5, each=9)), SLOW, streams.slow),
    "answers": (Stream(2, steady(0.1), weight=steady(0.3)), RIGHT, streams.wrong),
    "just tolerated": (Stream(20, steady(0.0009), worse=2), asking({"errorRate": {"tolerate": 2}}), streams.failed),
}


class TestFalseAlarms:
    @few_and_all
    @pytest.mark.parametrize(("stream", "asked", "kind"), EQUAL.values(), ids=EQUAL)
    def test_an_equal_canary_is_seldom_put_back(
        self, stream: Stream, asked: Analysis, kind: Callable[[Tick], streams.Counts], runs: int
    ) -> None:
        put_back = [is_put_back(streams.looks(stream, asked, seed, kind), length(runs)) for seed in range(runs)]

        assert sum(put_back) <= at_most(runs, ALPHA)

    @few_and_all
    def test_weights_that_follow_the_errors_change_nothing(self, runs: int) -> None:
        """As Thompson sampling would set them, from 5 % to 50 %."""

        def run(seed: int) -> bool:
            luck, rollout, sums = random.Random(seed), Rollout(ERRORS), [1, 50, 1, 50]
            for _ in range(length(runs)):
                canary, stable = luck.betavariate(sums[0], sums[1]), luck.betavariate(sums[2], sums[3])
                weight = 0.5 if canary < stable else 0.05
                tick = Stream(20, steady(0.02), weight=steady(weight)).tick(luck, 0)
                bad, good = tick.canary_bad, tick.canary_requests - tick.canary_bad
                others = tick.stable_bad, tick.stable_requests - tick.stable_bad
                sums = [sum(pair) for pair in zip(sums, (bad, good, *others), strict=True)]
                if rollout.look(streams.failed(tick), weight).harm:
                    return True
            return False

        assert sum(map(run, range(runs))) <= at_most(runs, ALPHA)

    @few_and_all
    def test_disagreement_at_the_limit_is_seldom_harm_and_seldom_safe(self, runs: int) -> None:
        asked, stream = asking({"disagreement": {"max": "3%"}}), Stream(5, steady(0.03), weight=steady(1.0))

        def run(seed: int) -> set[Verdict]:
            reports = itertools.islice(streams.looks(stream, asked, seed, streams.unlike), length(runs))
            return {report.judged[0].verdict for _, report in reports}

        found = [run(seed) for seed in range(runs)]
        assert sum(Verdict.HARM in verdicts for verdicts in found) <= at_most(runs, ALPHA)
        assert sum(Verdict.SAFE in verdicts for verdicts in found) <= at_most(runs, BETA)

    @few_and_all
    @pytest.mark.parametrize(("margin", "shares"), [(0.0, (0.03, 0.03, 0.05)), (0.1, (0.0152, 0.005, 0.1))])
    def test_pairs_at_the_limit_are_seldom_harm(
        self, margin: float, shares: tuple[float, float, float], runs: int
    ) -> None:
        """`shares` of all pairs: the canary alone wrong, stable alone, both. With a tenth more mistakes, three times as many alone."""

        def run(seed: int) -> bool:
            luck, rollout = random.Random(seed), Rollout(asking({"feedback": {"margin": margin}}))
            samples = (streams.paired(*(binomial(luck, 40, share) for share in shares)) for _ in range(length(runs)))
            return any(rollout.look(sample).harm for sample in samples)

        assert sum(map(run, range(runs))) <= at_most(runs, ALPHA)

    @few_and_all
    def test_four_guards_share_one_alpha(self, runs: int) -> None:
        asked = asking(
            {"errorRate": {}},
            {"latency": {"maxSeconds": 0.2}},
            {"disagreement": {"max": "3%"}},
            {"feedback": {}},
        )

        def run(seed: int) -> bool:
            luck, rollout = random.Random(seed), Rollout(asked)
            bad, late = Stream(10, steady(0.02)), Stream(10, steady(0.05))
            words, shadows = Stream(1, steady(0.1)), Stream(1, steady(0.03), weight=steady(1.0))
            return any(
                rollout.look(
                    {
                        **streams.failed(bad.tick(luck, number)),
                        **streams.slow(late.tick(luck, number)),
                        **streams.wrong(words.tick(luck, number)),
                        **streams.unlike(shadows.tick(luck, number)),
                    }
                ).harm
                for number in range(length(runs))
            )

        assert sum(map(run, range(runs))) <= at_most(runs, ALPHA)

    @few_and_all
    @pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
    def test_a_weight_that_is_applied_is_seldom_doubted(self, weight: float, runs: int) -> None:
        def run(seed: int) -> bool:
            luck, measured = random.Random(seed), Measured()
            for _ in range(10 * length(runs)):
                canary = measured.canary_requests + binomial(luck, 20, weight)
                measured = Measured(canary_requests=canary, requests=measured.requests + 20)
                if analysis.ratio_alarm(measured, streams.arms(weight)):
                    return True
            return False

        assert sum(map(run, range(runs))) <= at_most(runs, 0.001)

    def test_who_looks_again_and_again_at_a_p_value_is_often_wrong(self) -> None:
        """That these simulations can fail: an equal canary again, and a bound that holds for one look."""
        stream, bound = EQUAL["10 %"][0], stats.norm.ppf(1 - BETA)

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
            luck, rollout = random.Random(seed), Rollout(ERRORS, judged=known_dispersion(dispersion))
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
            luck, rollout = random.Random(seed), Rollout(ERRORS)
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
        found = [looks_until(streams.looks(stream, ERRORS, seed), Verdict.HARM) for seed in range(runs)]

        assert is_near(found, seconds)

    @cells({20: 818, 100: 240, 500: 60}, [500])
    def test_how_soon_an_equal_one_is_shown_to_be_no_worse_than_half(self, key: int, seconds: float, runs: int) -> None:
        stream = Stream(key, steady(0.01), weight=steady(0.25))
        reports = (streams.looks(stream, RIGHT, seed, streams.wrong) for seed in range(runs))

        assert is_near([looks_until(run, Verdict.SAFE) for run in reports], seconds)

    @few_and_all
    def test_one_that_is_half_as_bad_again_is_seldom_called_safe(self, runs: int) -> None:
        stream = Stream(20, steady(0.01), worse=1.5075, weight=steady(0.25))  # of the odds, 1.5
        reports = (streams.looks(stream, RIGHT, seed, streams.wrong) for seed in range(runs))
        found = [looks_until(run, Verdict.SAFE, length(runs)) for run in reports]

        assert sum(map(math.isfinite, found)) <= at_most(runs, BETA)

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
        law = stats.norm(scale=0.6)
        slow = law.sf(law.isf(0.05) - math.log(key))
        stream = Stream(100, steady(0.05), worse=slow / 0.05)
        found = [looks_until(streams.looks(stream, SLOW, seed, streams.slow), Verdict.HARM) for seed in range(runs)]

        assert is_near(found, seconds)


def requests_to_safe(rate: float, runs: int) -> list[float]:
    """At the canary, with a look every 75 of them up to 9,000."""
    stream, asked = Stream(5, steady(rate), weight=steady(1.0)), asking({"disagreement": {"max": "0.5%"}})
    reports = (streams.looks(stream, asked, seed, streams.unlike) for seed in range(runs))
    return [75 * looks_until(run, Verdict.SAFE, 120) for run in reports]


class TestPairs:
    """Two points less accurate, 6 % of the requests answered rightly by just one of the two."""

    @few_and_all
    def test_they_need_a_tenth_of_the_labels(self, runs: int) -> None:
        runs = max(20, runs // 4)
        pairs = statistics.median(self.pairs(seed) for seed in range(runs))
        labels = statistics.median(self.labels(seed) for seed in range(runs))

        assert 1100 <= pairs <= 1900
        assert 8 * pairs <= labels <= 20_000

    def pairs(self, seed: int) -> float:
        luck, rollout = random.Random(seed), Rollout(RIGHT)
        for number in itertools.count(1):
            if rollout.look(streams.paired(binomial(luck, 50, 0.04), binomial(luck, 50, 0.02))).harm:
                return 50 * number
        raise AssertionError

    def labels(self, seed: int) -> float:
        stream = Stream(20, steady(0.1), worse=1.2, weight=steady(0.5))
        return 300 * looks_until(streams.looks(stream, RIGHT, seed, streams.wrong), Verdict.HARM)


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
        rollout, stream, luck = Rollout(ERRORS), Stream(20, steady(0.01), weight=steady(0.2)), random.Random(1)
        for number in range(4):
            rollout.look(streams.failed(stream.tick(luck, number)), 0.1)

        assert "of 1,200 requests" in analysis.ratio_alarm(rollout.measured, streams.arms(0.1))
