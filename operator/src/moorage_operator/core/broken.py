"""A canary that half fails: what needs no statistics, and the little that it needs all the same. Pure.

Halves and doubles alone would be wrong again and again where stable, too, fails every fifth request: half of twenty is chance once in a
few hundred ticks, and a rollout has as many. And sums alone compare what can't be compared, when both versions fail for a while and the
canary has most of its requests just then.
"""

from __future__ import annotations

import math

from moorage_operator.core import evidence, guards
from moorage_operator.core.evidence import Tick

LEAST_REQUESTS, RATE = 20, 0.5

ALONE, TOGETHER = math.log(10_000), math.log(10)
"""E-values: one tick must be so clear by itself, whatever was seen before and however errors come; all of them together so clear."""


def is_broken(guard: guards.Guard, state: guards.State, tick: Tick) -> bool:
    """By the last tick, or by all. What stable was not asked can't be compared."""
    alone = evidence.odds_ratio(tick, 1.0, evidence.harm_alternatives(1.0))
    if half_fails(tick) and (evidence.log_e(alone) >= ALONE or not tick.stable_requests):
        return True
    together = Tick(state.canary_requests, state.canary_bad, state.stable_requests, state.stable_bad)
    return half_fails(together) and guards.log_harm(guard, state) >= TOGETHER


def half_fails(tick: Tick) -> bool:
    """Half of at least 20 requests, and stable, asked at the same time, fails less than half as often."""
    if tick.canary_requests < LEAST_REQUESTS or tick.canary_bad < RATE * tick.canary_requests:
        return False
    canary = tick.canary_bad / tick.canary_requests
    return tick.stable_bad < canary / 2 * tick.stable_requests or not tick.stable_requests
