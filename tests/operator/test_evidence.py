"""The e-values against scipy's distributions, and against their promises."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from moorage_operator.core import evidence
from moorage_operator.core.evidence import Tick

ALPHA = 0.01
BETA = 0.05
TICK_SECONDS = 15


@st.composite
def ticks(draw: st.DrawFn) -> Tick:
    canary, stable = draw(st.integers(0, 200)), draw(st.integers(0, 500))
    return Tick(canary, draw(st.integers(0, canary)), stable, draw(st.integers(0, stable)))


class TestOddsRatio:
    @settings(deadline=None)
    @given(ticks(), st.floats(0.1, 10), st.floats(0.1, 10))
    def test_it_is_the_ratio_of_two_noncentral_hypergeometric_probabilities(
        self, tick: Tick, null: float, other: float
    ) -> None:
        bad, total = tick.canary_bad + tick.stable_bad, tick.canary_requests + tick.stable_requests

        def probability(odds: float) -> float:
            law = stats.nchypergeom_fisher(total, bad, tick.canary_requests, odds)
            return float(law.logpmf(tick.canary_bad))

        [found] = evidence.odds_ratio(tick, null, [other])

        assert found == pytest.approx(probability(other) - probability(null), abs=1e-6, rel=1e-6)

    @settings(deadline=None)
    @given(ticks())
    def test_an_arm_without_requests_or_without_events_tells_nothing(self, tick: Tick) -> None:
        alone = Tick(0, 0, tick.stable_requests, tick.stable_bad)
        good = Tick(tick.canary_requests, 0, tick.stable_requests, 0)

        assert evidence.odds_ratio(alone, 1.0, [0.5, 2.0]) == pytest.approx((0.0, 0.0))
        assert evidence.odds_ratio(good, 1.0, [0.5, 2.0]) == pytest.approx((0.0, 0.0))

    @settings(deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.data(), st.floats(0.3, 3))
    def test_its_mean_under_the_null_hypothesis_is_one(
        self, canary: int, stable: int, data: st.DataObject, null: float
    ) -> None:
        bad = data.draw(st.integers(0, canary + stable))
        law = stats.nchypergeom_fisher(canary + stable, bad, canary, null)
        possible = range(max(0, bad - stable), min(bad, canary) + 1)

        for alternative in (0.4, 2.5):
            values = [
                math.exp(evidence.odds_ratio(Tick(canary, k, stable, bad - k), null, [alternative])[0])
                for k in possible
            ]
            mean = sum(value * law.pmf(k) for k, value in zip(possible, values, strict=True))
            assert mean == pytest.approx(1, rel=1e-6)

    def test_a_great_tick_leaves_the_range_of_no_number(self) -> None:
        tick = Tick(30_000, 30_000, 30_000, 0)

        assert evidence.log_e(evidence.odds_ratio(tick, 1.0, evidence.harm_alternatives(1.0))) > 1_000


class TestWhateverAPodClaims:
    """A sum of as many terms as there are errors would never end. Both tests take no second, or are stopped."""

    @pytest.mark.timeout(20)
    def test_a_tick_is_judged_in_no_time(self) -> None:
        alternatives = evidence.harm_alternatives(1.0)
        worse = evidence.log_e(evidence.odds_ratio(Tick(10**12, 6 * 10**11, 10**12, 10**10), 1.0, alternatives))
        equal = evidence.log_e(evidence.odds_ratio(Tick(10**12, 10**11, 10**12, 10**11), 1.0, alternatives))

        assert worse > 100
        assert equal < 0

    @pytest.mark.timeout(20)
    def test_pairs_are_judged_in_no_time(self) -> None:
        assert evidence.paired(2 * 10**12, 10**12) > 100
        assert evidence.paired(10**12, 10**12) < 0

    def test_more_than_can_be_summed_is_as_much_as_can_be(self) -> None:
        most = evidence.MOST_TERMS

        assert evidence.paired(2 * most, most) == evidence.paired(most, most // 2)
        assert evidence.paired(most, most // 2) > evidence.paired(most - 2, most // 2 - 1)


class TestRate:
    @settings(deadline=None)
    @given(st.integers(0, 500), st.data(), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
    def test_it_is_the_ratio_of_two_binomial_probabilities(
        self, requests: int, data: st.DataObject, null: float, other: float
    ) -> None:
        bad = data.draw(st.integers(0, requests))
        expected = stats.binom(requests, other).logpmf(bad) - stats.binom(requests, null).logpmf(bad)

        assert evidence.rate(requests, bad, null, [other])[0] == pytest.approx(expected, abs=1e-6, rel=1e-6)

    def test_the_alternatives_are_on_their_side_of_the_limit(self) -> None:
        assert all(0.0001 < p < 0.005 for p in evidence.safe_rates(0.005))
        assert all(0.03 < p < 1 for p in evidence.harm_rates(0.03))
        assert min(evidence.harm_alternatives(1.5)) == pytest.approx(1.65)
        assert max(evidence.safe_alternatives(1.5)) == pytest.approx(1.425)


class TestPaired:
    @settings(deadline=None)
    @given(st.integers(0, 300), st.integers(0, 300))
    def test_it_is_the_mixture_over_the_worse_half(self, canary: int, stable: int) -> None:
        pairs = canary + stable
        below = special.betainc(canary + 1, stable + 1, 0.5)
        if 1 - below < 1e-9:  # scipy subtracts from 1, too
            return
        expected = (pairs + 1) * math.log(2) + special.betaln(canary + 1, stable + 1) + math.log(1 - below)

        assert evidence.paired(canary, stable) == pytest.approx(expected, abs=1e-6, rel=1e-6)

    def test_the_wrong_ones_count_against_the_canary(self) -> None:
        assert evidence.paired(20, 2) > math.log(1 / ALPHA) > 0 > evidence.paired(2, 20)
        assert evidence.paired(0, 0) == pytest.approx(0)


class TestSampleRatio:
    def test_the_wanted_weight_is_no_evidence_and_another_one_is(self) -> None:
        assert evidence.sample_ratio(100, 1000, 0.1) < 0
        assert evidence.sample_ratio(0, 0, 0.1) == pytest.approx(0)
        assert evidence.sample_ratio(200, 1000, 0.1) > math.log(1000)

    @pytest.mark.parametrize(("applied", "requests"), [(0.0, (150, 260)), (0.2, (200, 350)), (0.05, (450, 800))])
    def test_how_many_requests_show_a_wrong_weight(self, applied: float, requests: tuple[int, int]) -> None:
        luck = random.Random(1)
        found = []
        for _ in range(30):
            canary = total = 0
            while evidence.sample_ratio(canary, total, 0.1) < math.log(1000):
                total += 1
                canary += luck.random() < applied
            found.append(total)

        assert requests[0] <= statistics.median(found) <= requests[1]


class TestDispersion:
    def test_independent_errors_have_none_and_bursts_have_it(self) -> None:
        luck = random.Random(2)

        def counts(burst: int) -> list[tuple[int, int]]:
            return [(1000, burst * sum(luck.random() < 0.01 for _ in range(1000 // burst))) for _ in range(200)]

        assert evidence.dispersion(counts(1)) == pytest.approx(1, abs=0.2)
        assert evidence.dispersion(counts(5)) == pytest.approx(5, rel=0.25)

    @pytest.mark.parametrize("counts", [[], [(10, 1)], [(0, 0), (0, 0)], [(10, 0), (10, 0)], [(10, 10), (5, 5)]])
    def test_what_can_not_be_told_is_one(self, counts: list[tuple[int, int]]) -> None:
        assert evidence.dispersion(counts) == 1


class TestPromises:
    """Simulated rollouts of an hour at most, with a look every 15 s: false alarms and power, with fixed seeds."""

    @pytest.mark.parametrize("weight", [0.05, 0.1, 0.5])
    def test_an_equal_canary_is_seldom_put_back(self, weight: float) -> None:
        runs = [first_look(seed, 0.01, 0.01, weight=weight, rps=20) for seed in range(60)]

        assert sum(run is not None for run in runs) <= 3  # alpha is 1 %: more than 3 of 60 has a chance of 0.3 %

    @pytest.mark.parametrize(
        ("rps", "worse", "seconds"), [(20, 5, (60, 135)), (100, 2, (120, 285)), (100, 3, (45, 90)), (100, 5, (15, 45))]
    )
    def test_a_worse_canary_is_put_back_in_seconds(self, rps: int, worse: int, seconds: tuple[int, int]) -> None:
        found = [first_look(seed, 0.01, 0.01 * worse, weight=0.1, rps=rps) for seed in range(40)]
        known = [run if run is not None else math.inf for run in found]

        assert seconds[0] <= statistics.median(known) <= seconds[1]

    def test_bursts_break_the_level_and_the_dispersion_restores_it(self) -> None:
        wild = [first_look(seed, 0.01, 0.01, weight=0.1, rps=20, burst=5) for seed in range(60)]
        tempered = [first_look(seed, 0.01, 0.01, weight=0.1, rps=20, burst=5, dispersion=5) for seed in range(60)]

        assert sum(run is not None for run in wild) >= 6
        assert sum(run is not None for run in tempered) <= 2

    @pytest.mark.parametrize(("rate", "share"), [(0.005, (0, 0.09)), (0.0, (1, 1))])
    def test_absolute_safety_is_told_of_the_safe_only(self, rate: float, share: tuple[float, float]) -> None:
        alternatives = evidence.safe_rates(0.005)

        def is_safe(seed: int) -> bool:
            luck, products = random.Random(seed), (0.0,) * len(alternatives)
            for _ in range(120):
                bad = binomial(luck, 75, rate)
                products = evidence.grown(products, evidence.rate(75, bad, 0.005, alternatives))
                if evidence.log_e(products) >= math.log(1 / BETA):
                    return True
            return False

        assert share[0] <= statistics.mean(is_safe(seed) for seed in range(100)) <= share[1]


def first_look(
    seed: int, stable: float, canary: float, *, weight: float, rps: int, burst: int = 1, dispersion: float = 1.0
) -> float | None:
    """Seconds until harm is shown, or None within an hour. Errors come `burst` at a time."""
    luck, alternatives = random.Random(seed), evidence.harm_alternatives(1.0)
    products = (0.0,) * len(alternatives)
    for look in range(1, 241):
        requests = rps * TICK_SECONDS
        at_canary = binomial(luck, requests, weight)

        def bad(requests: int, rate: float) -> int:
            return burst * binomial(luck, requests // burst, rate)

        tick = Tick(at_canary, bad(at_canary, canary), requests - at_canary, bad(requests - at_canary, stable))
        factors = evidence.odds_ratio(tick, 1.0, alternatives)
        products = evidence.grown(products, factors, dispersion)
        if evidence.log_e(products) >= math.log(1 / ALPHA):
            return look * TICK_SECONDS
    return None


def binomial(luck: random.Random, trials: int, probability: float) -> int:
    """By the gaps between hits: quick where hits are few."""
    if probability in (0.0, 1.0):
        return trials * int(probability)
    hits, at, scale = 0, 0, math.log1p(-probability)
    while (at := at + 1 + int(math.log(1 - luck.random()) / scale)) <= trials:
        hits += 1
    return hits
