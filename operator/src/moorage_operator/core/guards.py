"""The guards of a rollout: from what both arms answered to evidence, and from evidence to a verdict.

A guard tests twice: for harm (the canary is worse than tolerated) and for safety (it is better than a limit). Neither is the other's
opposite: with little traffic there is evidence for neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from moorage_operator.core import evidence
from moorage_operator.core.evidence import Logs, Tick

BETA = 0.05
"""How often a canary that is just not safe may be taken for safe."""

SAFE_BOUND = math.log(1 / BETA)

SAFE_FEEDBACK_RATIO = 1.5
"""Odds ratio below which a canary's answers count as no worse than stable's."""

DIGITS = 5
"""Of logarithms in the status: what is rounded off in a day of ticks is less than 0.03."""

MOST_LOG = 30.0
"""E-values are shown up to there: no number of requests makes a status longer."""

MOST_TIMES = 1000.0
"""As far as a forecast goes."""


class Verdict(StrEnum):
    """Of one guard."""

    HARM = "harm"
    SAFE = "safe"
    CONTINUE = "continue"
    NO_TRAFFIC = "noTraffic"


class State(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What has been seen since the canary's first weight: a restarted operator goes on from here.

    `harm` and `safe` are the log-products of tests that compare the arms; the others need the sums only. `dispersion` is estimated
    before the first weight and then kept.
    """

    canary_requests: int = 0
    canary_bad: int = 0
    stable_requests: int = 0
    stable_bad: int = 0
    harm: Logs = ()
    safe: Logs = ()
    dispersion: float = 1.0
    threshold: float | None = None
    """Seconds, of a guard that counts what took longer."""
    canary_only_wrong: int = 0
    stable_only_wrong: int = 0
    both_wrong: int = 0
    """Of requests that both answered."""
    within_bounds: int = 0
    """Ticks of a query since it was out of bounds last."""
    hash: str = ""
    """Of the guard's fields: evidence on other hypotheses is none on these."""


@dataclass(frozen=True)
class Pairs:
    """Requests that both answered, by who was wrong."""

    canary_wrong: int = 0
    stable_wrong: int = 0
    both_wrong: int = 0


NO_PAIRS = Pairs()


class Test(Protocol):
    """One hypothesis about the canary; evidence against it is what the guard looks for."""

    def grown(self, products: Logs, tick: Tick, dispersion: float) -> Logs:
        """The log-products with one more tick; empty for a test that needs none."""

    def log_e(self, state: State, products: Logs) -> float:
        """The logarithm of the e-value against the hypothesis."""


@dataclass(frozen=True)
class OddsRatio:
    """Against an odds ratio (canary to stable) of `null`."""

    null: float
    alternatives: tuple[float, ...]

    def grown(self, products: Logs, tick: Tick, dispersion: float) -> Logs:
        factors = evidence.odds_ratio(tick, self.null, self.alternatives)
        return evidence.grown(products or (0.0,) * len(factors), factors, dispersion)

    def log_e(self, state: State, products: Logs) -> float:
        return evidence.log_e(products) if products else 0.0


@dataclass(frozen=True)
class Rate:
    """Against a rate of the canary alone of `null`. The sums hold all that its products would."""

    null: float
    alternatives: tuple[float, ...]

    def grown(self, products: Logs, tick: Tick, dispersion: float) -> Logs:
        return ()

    def log_e(self, state: State, products: Logs) -> float:
        factors = evidence.rate(state.canary_requests, state.canary_bad, self.null, self.alternatives)
        return evidence.log_e(evidence.grown((0.0,) * len(factors), factors, state.dispersion))


@dataclass(frozen=True)
class Paired:
    """Against "the canary is wrong at most 1 + margin times as often" for the same requests. The sums hold all that its products would."""

    margin: float = 0.0

    def grown(self, products: Logs, tick: Tick, dispersion: float) -> Logs:
        return ()

    def log_e(self, state: State, products: Logs) -> float:
        if not self.margin:
            return evidence.paired(state.canary_only_wrong, state.stable_only_wrong)
        return evidence.paired_within(self.margin, state.canary_only_wrong, state.stable_only_wrong, state.both_wrong)


@dataclass(frozen=True)
class Guard:
    """What has several tests is shown by the mean of their e-values, which is one, too. At most one of them compares the arms."""

    name: str
    harm: tuple[Test, ...]
    safe: tuple[Test, ...]
    event: str
    """What is counted, in a sentence about "12 of 812"."""


@dataclass(frozen=True)
class Finding:
    """What a guard has to say now. The e-values are logarithms, as are the bounds that they are held against."""

    guard: str
    verdict: Verdict
    harm: float
    safe: float
    message: str


def errors(name: str, *, tolerate: float, max_odds_ratio: float, max_rate: float) -> Guard:
    """Requests that failed, as the caller saw them."""
    safe = (
        OddsRatio(max_odds_ratio, evidence.safe_alternatives(max_odds_ratio)),
        Rate(max_rate, evidence.safe_rates(max_rate)),
    )
    return Guard(name, (OddsRatio(tolerate, evidence.harm_alternatives(tolerate)),), safe, "failed")


def latency(name: str, *, quantile: float, seconds: float) -> Guard:
    """Requests that took longer than `seconds`, of which there may be 1 - quantile."""
    share = 1 - quantile
    harm = OddsRatio(1.0, evidence.harm_alternatives(1.0))
    return Guard(name, (harm,), (Rate(share, evidence.safe_rates(share)),), f"took longer than {seconds:g} s")


def disagreement(name: str, *, maximum: float) -> Guard:
    """Shadowed requests that the canary answered unlike stable."""
    harm = Rate(maximum, evidence.harm_rates(maximum))
    return Guard(name, (harm,), (Rate(maximum, evidence.safe_rates(maximum)),), "were answered unlike stable")


def feedback(name: str, *, margin: float) -> Guard:
    """Answers that callers said were wrong. Where both versions answered the same request, their pairs say far more."""
    null = 1 + margin
    harm = (OddsRatio(null, evidence.harm_alternatives(null)), Paired(margin))
    limit = SAFE_FEEDBACK_RATIO
    return Guard(name, harm, (OddsRatio(limit, evidence.safe_alternatives(limit)),), "were wrong")


def observe(guard: Guard, state: State, tick: Tick, pairs: Pairs = NO_PAIRS) -> State:
    """The state with one more tick, and the pairs of answers that were judged in it."""
    return msgspec.structs.replace(
        state,
        canary_requests=state.canary_requests + tick.canary_requests,
        canary_bad=state.canary_bad + tick.canary_bad,
        stable_requests=state.stable_requests + tick.stable_requests,
        stable_bad=state.stable_bad + tick.stable_bad,
        harm=_grown(guard.harm, state.harm, tick, state.dispersion),
        safe=_grown(guard.safe, state.safe, tick, state.dispersion),
        canary_only_wrong=state.canary_only_wrong + pairs.canary_wrong,
        stable_only_wrong=state.stable_only_wrong + pairs.stable_wrong,
        both_wrong=state.both_wrong + pairs.both_wrong,
    )


def _grown(tests: tuple[Test, ...], products: Logs, tick: Tick, dispersion: float) -> Logs:
    """Of the one test that compares the arms, if there is one; with as many digits as a status needs."""
    found = next((found for test in tests if (found := test.grown(products, tick, dispersion))), ())
    return tuple(round(product, DIGITS) for product in found)


def find(guard: Guard, state: State, *, alpha: float, is_broken: bool = False) -> Finding:
    """`alpha` is this guard's share of the false rollbacks; what is obviously broken needs no evidence."""
    harm, safe = log_harm(guard, state), _log_safe(guard, state)
    bound = math.log(1 / alpha)
    if is_broken or harm >= bound:
        verdict = Verdict.HARM
    elif safe >= SAFE_BOUND:
        verdict = Verdict.SAFE
    else:
        verdict = Verdict.CONTINUE if state.canary_requests else Verdict.NO_TRAFFIC
    message = f"{_sentence(guard, state, verdict)} (evidence of harm {in_short(harm)}, {in_short(bound)} would do)"
    return Finding(guard.name, verdict, harm, safe, message)


def alpha_of_each(alpha: float, guards: int) -> float:
    """All guards together put a good canary back with a probability of at most `alpha`."""
    return alpha / max(1, guards)


def in_short(log_e: float) -> str:
    """An e-value in three digits."""
    return f"{math.exp(min(log_e, MOST_LOG)):.3g}"


def log_harm(guard: Guard, state: State) -> float:
    return _log_mean(guard.harm, state, state.harm)


def _log_safe(guard: Guard, state: State) -> float:
    return _log_mean(guard.safe, state, state.safe)


def _log_mean(tests: tuple[Test, ...], state: State, products: Logs) -> float:
    return evidence.log_e(tuple(test.log_e(state, products) for test in tests))


def _sentence(guard: Guard, state: State, verdict: Verdict) -> str:
    if verdict is Verdict.NO_TRAFFIC:
        return "no request has been judged yet"
    seen = f"{_share(state.canary_bad, state.canary_requests)} {guard.event}"
    if isinstance(guard.harm[0], OddsRatio):
        seen += f", at stable {_share(state.stable_bad, state.stable_requests)}"
    if verdict is Verdict.HARM:
        return f"{seen}: worse"
    if verdict is Verdict.SAFE:
        return f"{seen}: safe"
    more = _requests_to_safe(guard, state)
    if more is None:
        return f"{seen}: neither worse nor safe yet"
    return f"{seen}: no harm shown; about {more:,} more requests like these would show that it is safe"


def _requests_to_safe(guard: Guard, state: State) -> int | None:
    """How many more at the canary, if what comes is like what was seen; None if even a thousand times as many would not do."""
    if _log_safe(guard, _times(state, MOST_TIMES)) < SAFE_BOUND:
        return None
    # The logarithm of a mean of exponentials is convex: from nothing it reaches the bound once.
    low, high = 1.0, MOST_TIMES
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _log_safe(guard, _times(state, middle)) >= SAFE_BOUND else (middle, high)
    return math.ceil(state.canary_requests * (high - 1))


def _times(state: State, factor: float) -> State:
    return msgspec.structs.replace(
        state,
        canary_requests=round(state.canary_requests * factor),
        canary_bad=round(state.canary_bad * factor),
        safe=tuple(product * factor for product in state.safe),
    )


def _share(bad: int, requests: int) -> str:
    return f"{bad:,} of {requests:,} ({bad / requests:.2%})" if requests else "nothing asked"
