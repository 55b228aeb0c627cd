"""How sure the counts are that a canary is worse than stable, or that it is safe: e-values, which may be looked at after every tick.

An e-value is a product over ticks of likelihood ratios, and has a mean of at most 1 as long as its null hypothesis holds. By Ville's
inequality it then reaches 1/alpha with a probability of at most alpha, however often one looks (Ramdas, Grünwald, Vovk, Shafer:
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 2023). Averages of e-values are e-values.

All numbers here are natural logarithms of likelihoods, because the products leave what a float can hold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Logs = tuple[float, ...]
"""Of one likelihood ratio for each alternative, in the order of the alternatives."""

SRM_WEIGHT = 200.0
"""How narrow the alternative is around the wanted weight, in requests."""

STAKES = 256

MOST_TERMS = 20_000
"""Of one sum. Larger counts are made smaller, all alike: that says less than they do, and takes no longer, whatever a pod claims."""


@dataclass(frozen=True)
class Tick:
    """What both arms answered between two looks; `bad` is any yes-or-no event, and among `requests`.

    The weights must not have changed meanwhile: a tick ends where a weight is set.
    """

    canary_requests: int
    canary_bad: int
    stable_requests: int
    stable_bad: int

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.canary_requests, self.canary_bad, self.stable_requests, self.stable_bad


def spaced(first: float, last: float, count: int) -> tuple[float, ...]:
    """So many numbers from `first` to `last`, both included, at equal ratios."""
    step = math.log(last / first) / (count - 1)
    return tuple(first * math.exp(step * number) for number in range(count))


def between(first: float, last: float, count: int) -> tuple[float, ...]:
    """Like `spaced`, with neither end: the middles of so many equal parts."""
    step = math.log(last / first) / count
    return tuple(first * math.exp(step * (number + 0.5)) for number in range(count))


def harm_alternatives(tolerated: float) -> tuple[float, ...]:
    """Odds ratios of a canary that is worse than tolerated."""
    return spaced(1.1 * tolerated, 20.0 * tolerated, 24)


def safe_alternatives(limit: float) -> tuple[float, ...]:
    """Odds ratios of a canary that stays below the limit."""
    return spaced(0.3 * limit, 0.95 * limit, 16)


def safe_rates(limit: float) -> tuple[float, ...]:
    """Rates of a canary that stays below the limit."""
    return between(limit / 50.0, limit, 64)


def harm_rates(limit: float) -> tuple[float, ...]:
    """Rates of a canary that is above the limit."""
    return between(limit, 1.0, 64)


def odds_ratio(tick: Tick, null: float, alternatives: Sequence[float]) -> Logs:
    """Of one tick, against an odds ratio (canary to stable) of `null`.

    Given how many were bad in both arms together, those of the canary follow Fisher's noncentral hypergeometric distribution,
    whatever the rate is: stable may get worse and better from tick to tick. As its likelihood ratio is monotone, alternatives
    above `null` test "at most `null`" and alternatives below it "at least `null`".
    """
    tick = Tick(*_bounded(min(tick.canary_bad + tick.stable_bad, tick.canary_requests), *tick.counts))
    bad = tick.canary_bad + tick.stable_bad
    least = max(0, bad - tick.stable_requests)
    terms = _log_terms(tick, bad, least)
    of_null = _log_sum(terms, math.log(null))
    found = tick.canary_bad - least
    return tuple(
        found * (math.log(alternative) - math.log(null)) - (_log_sum(terms, math.log(alternative)) - of_null)
        for alternative in alternatives
    )


def rate(requests: int, bad: int, null: float, alternatives: Sequence[float]) -> Logs:
    """Of one tick, against a rate of `null` in (0, 1); alternatives above it test "at most `null`", below it "at least `null`"."""
    good = requests - bad
    return tuple(
        bad * math.log(alternative / null) + good * (math.log1p(-alternative) - math.log1p(-null))
        for alternative in alternatives
    )


def grown(products: Logs, factors: Logs, dispersion: float = 1.0) -> Logs:
    """The products with one more tick.

    A `dispersion` above 1 tempers: errors that come in bursts are worth fewer requests than they count. This is practice and
    no theorem.
    """
    return tuple(product + factor / dispersion for product, factor in zip(products, factors, strict=True))


def log_e(products: Logs) -> float:
    """The e-value: the mean over the alternatives."""
    return _log_sum_exp(products) - math.log(len(products))


def paired(canary_wrong: int, stable_wrong: int) -> float:
    """The e-value of pairs in which just one of the two was wrong, against "the canary is wrong in at most half of them".

    The sequential form of McNemar's test, with a uniform mixture of the alternatives in (1/2, 1):
    2^(D+1) B(s+1, D-s+1) (1 - I_1/2(s+1, D-s+1)) with D pairs and s the canary's.
    """
    canary_wrong, stable_wrong = _bounded(canary_wrong, canary_wrong, stable_wrong)
    pairs = canary_wrong + stable_wrong
    # 1 - I_1/2(s+1, D-s+1) is the probability of at most s heads in D+1 throws, with a fair coin.
    heads = _log_sum_exp([_log_choose(pairs + 1, number) for number in range(canary_wrong + 1)])
    return _log_beta(canary_wrong + 1, stable_wrong + 1) + heads


def paired_within(margin: float, canary_wrong: int, stable_wrong: int, both_wrong: int) -> float:
    """The e-value of pairs against "the canary is wrong at most 1 + margin times as often", which an odds ratio of that includes.

    The wealth of somebody who bets on each pair that the canary's mistakes are more, with a mean over the stakes: without a
    margin it is `paired`. With one, the pairs in which both are wrong speak for the canary.
    """
    stakes = [(number + 0.5) / (STAKES * (1 + margin)) for number in range(STAKES)]
    wealth = [
        canary_wrong * math.log1p(stake)
        + stable_wrong * math.log1p(-stake * (1 + margin))
        + both_wrong * math.log1p(-stake * margin)
        for stake in stakes
    ]
    return log_e(tuple(wealth))


def sample_ratio(canary_requests: int, requests: int, weight: float) -> float:
    """The e-value of so many requests at the canary, against its `weight` in (0, 1): a beta mixture around the weight.

    It can show that a weight is not applied; it can't show that it is.
    """
    first, second = SRM_WEIGHT * weight, SRM_WEIGHT * (1 - weight)
    others = requests - canary_requests
    mixture = _log_beta(first + canary_requests, second + others) - _log_beta(first, second)
    return mixture - canary_requests * math.log(weight) - others * math.log1p(-weight)


def dispersion(counts: Iterable[tuple[int, int]]) -> float:
    """Pearson's, of (requests, bad) of one arm's pods and ticks, at least 1: how much more they scatter than independent requests would.

    To be estimated before the rollout and then kept: one that follows the data breaks the level.
    """
    known = [(requests, bad) for requests, bad in counts if requests]
    mean = sum(bad for _, bad in known) / max(1, sum(requests for requests, _ in known))
    if len(known) < 2 or mean in (0.0, 1.0):
        return 1.0
    scatter = math.fsum((bad - requests * mean) ** 2 / (requests * mean * (1 - mean)) for requests, bad in known)
    return max(1.0, scatter / (len(known) - 1))


def _bounded(terms: int, *counts: int) -> tuple[int, ...]:
    """The counts, of which a sum with so many terms is to be made; none of them becomes greater than one that was not smaller."""
    return counts if terms <= MOST_TERMS else tuple(round(count * MOST_TERMS / terms) for count in counts)


def _log_terms(tick: Tick, bad: int, least: int) -> list[float]:
    """ln C(canary, k) C(stable, bad-k) for each possible k, but for a constant that cancels out."""
    most = min(bad, tick.canary_requests)
    steps = (
        math.log((tick.canary_requests - k) * (bad - k) / ((k + 1) * (tick.stable_requests - bad + k + 1)))
        for k in range(least, most)
    )
    return list(itertools.accumulate(steps, initial=0.0))


def _log_sum(terms: Sequence[float], log_ratio: float) -> float:
    """ln of the sum of terms times ratio^k."""
    return _log_sum_exp([term + log_ratio * number for number, term in enumerate(terms)])


def _log_sum_exp(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)
