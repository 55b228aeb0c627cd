"""How often chance alone gives a wrong verdict: simulated rollouts of an hour whose new version is as good as stable, or just at a limit.

The cases are those of `tests/operator/test_simulations.py`, which holds each of them to what is allowed; here they become a table.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import figures, streams
from benchmarks.streams import Counts, Rollout, Stream, binomial, steady
from moorage_operator.core import analysis, guards
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis
from moorage_operator.core.state import Measured

HOUR = 3600 // streams.TICK_SECONDS
"""Looks."""

ERRORS = Analysis()
SLOW = streams.asking({"latency": {"quantile": 0.95, "maxSeconds": 0.2}})
RIGHT = streams.asking({"feedback": {}})
UNLIKE = streams.asking({"disagreement": {"max": "3%"}})
FOUR = streams.asking(
    {"errorRate": {}}, {"latency": {"maxSeconds": 0.2}}, {"disagreement": {"max": "3%"}}, {"feedback": {}}
)

Run = Callable[[int, int], bool]
"""By a seed and a number of looks: is there a false verdict?"""


@dataclass(frozen=True)
class Case:
    run: Run
    allowed: float = ERRORS.alpha
    """So often it may be."""


def put_back(stream: Stream, asked: Analysis = ERRORS, kind: Callable[[Tick], Counts] = streams.failed) -> Run:
    return _ever(stream, asked, kind, Verdict.HARM)


def called_safe(stream: Stream, asked: Analysis, kind: Callable[[Tick], Counts]) -> Run:
    return _ever(stream, asked, kind, Verdict.SAFE)


def _ever(stream: Stream, asked: Analysis, kind: Callable[[Tick], Counts], verdict: Verdict) -> Run:
    def run(seed: int, looks: int) -> bool:
        reports = itertools.islice(streams.looks(stream, asked, seed, kind), looks)
        return any(report.judged[0].verdict is verdict for _, report in reports)

    return run


def drifting(number: int) -> float:
    """From 0.2 % to 4 % and back each half hour, and for two minutes in each quarter nearly everything fails."""
    return 0.9 if number % 60 >= 52 else 0.002 * 20 ** (0.5 - 0.5 * math.cos(number / 19))


def in_steps(*weights: float, each: int) -> Callable[[int], float]:
    return lambda number: weights[number // each % len(weights)]


def weights_follow_errors(seed: int, looks: int) -> bool:
    """As Thompson sampling would set them, from 5 % to 50 %."""
    luck, rollout, sums = random.Random(seed), Rollout(ERRORS), [1, 50, 1, 50]  # noqa: S311 - the same each time
    for _ in range(looks):
        canary, stable = luck.betavariate(sums[0], sums[1]), luck.betavariate(sums[2], sums[3])
        weight = 0.5 if canary < stable else 0.05
        tick = Stream(20, steady(0.02), weight=steady(weight)).tick(luck, 0)
        bad, good = tick.canary_bad, tick.canary_requests - tick.canary_bad
        others = tick.stable_bad, tick.stable_requests - tick.stable_bad
        sums = [sum(pair) for pair in zip(sums, (bad, good, *others), strict=True)]
        if rollout.look(streams.failed(tick), weight).harm:
            return True
    return False


def pairs(margin: float, *shares: float) -> Run:
    """`shares` of all pairs: the canary alone wrong, stable alone, both."""

    def run(seed: int, looks: int) -> bool:
        luck = random.Random(seed)  # noqa: S311 - it has to be the same each time
        rollout = Rollout(streams.asking({"feedback": {"margin": margin}}))
        samples = (streams.paired(*(binomial(luck, 40, share) for share in shares)) for _ in range(looks))
        return any(rollout.look(sample).harm for sample in samples)

    return run


def four_guards(seed: int, looks: int) -> bool:
    luck, rollout = random.Random(seed), Rollout(FOUR)  # noqa: S311 - it has to be the same each time
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
        for number in range(looks)
    )


def weight_doubted(weight: float) -> Run:
    """With a look every 20 requests, ten times as many of them."""

    def run(seed: int, looks: int) -> bool:
        luck, measured = random.Random(seed), Measured()  # noqa: S311 - it has to be the same each time
        for _ in range(10 * looks):
            canary = measured.canary_requests + binomial(luck, 20, weight)
            measured = Measured(canary_requests=canary, requests=measured.requests + 20)
            if analysis.ratio_alarm(measured, streams.arms(weight)):
                return True
        return False

    return run


ONE_PERCENT = Stream(20, steady(0.01))
SHADOWS = Stream(5, steady(0.03), weight=steady(1.0))

EQUAL = {
    "errors, 5 % of the requests": put_back(Stream(20, steady(0.01), weight=steady(0.05))),
    "errors, 10 %": put_back(ONE_PERCENT),
    "errors, 50 %": put_back(Stream(20, steady(0.01), weight=steady(0.5))),
    "few requests: 1 a second": put_back(Stream(1, steady(0.01))),
    "hardly an error: 0.02 % of 100 requests a second": put_back(Stream(100, steady(0.0002))),
    "the rate drifts, the weight changes": put_back(Stream(20, drifting, weight=in_steps(0.02, 0.5, 0.1, each=7))),
    "weights that follow the errors": weights_follow_errors,
    "stable fails often, too: 20 %": put_back(Stream(13.3, steady(0.2))),
    "twice as many errors, which `tolerate` allows": put_back(
        Stream(20, steady(0.0009), worse=2), streams.asking({"errorRate": {"tolerate": 2}})
    ),
    "latency": put_back(Stream(20, steady(0.05)), SLOW, streams.slow),
    "latency drifts, the weight changes": put_back(
        Stream(20, drifting, weight=in_steps(0.05, 0.5, each=9)), SLOW, streams.slow
    ),
    "feedback": put_back(Stream(2, steady(0.1), weight=steady(0.3)), RIGHT, streams.wrong),
    "disagreement at the limit": put_back(SHADOWS, UNLIKE, streams.unlike),
    "pairs": pairs(0.0, 0.03, 0.03, 0.05),
    # With a tenth more mistakes, three times as many alone.
    "pairs at the limit of `margin`": pairs(0.1, 0.0152, 0.005, 0.1),
    "four guards together": four_guards,
}
"""Versions that must not be put back."""

CASES = {
    **{f"put back: {name}": Case(run) for name, run in EQUAL.items()},
    "called safe: disagreement at the limit": Case(called_safe(SHADOWS, UNLIKE, streams.unlike), guards.BETA),
    "called safe: half as many wrong answers again": Case(
        # Of the odds, 1.5.
        called_safe(Stream(20, steady(0.01), worse=1.5075, weight=steady(0.25)), RIGHT, streams.wrong),
        guards.BETA,
    ),
    **{
        f"weight doubted: {weight:.0%} is applied".replace("%", " %"): Case(weight_doubted(weight), 0.001)
        for weight in (0.01, 0.1, 0.5)
    },
}

TITLES = ["verdict, and what is judged", "rollouts with it", "allowed"]


def count(case: Case, runs: int, looks: int = HOUR) -> int:
    return sum(case.run(seed, looks) for seed in range(runs))


def table(runs: int) -> str:
    rows = ([name, *_row(count(case, runs), runs, case.allowed)] for name, case in CASES.items())
    return figures.table(TITLES, rows)


def _row(found: int, runs: int, allowed: float) -> list[str]:
    return [f"{found} of {runs}: {100 * found / runs:.4g} %", f"{100 * allowed:g} %"]
