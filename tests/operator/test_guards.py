"""What a guard says of what it has seen."""

from __future__ import annotations

import math
import random
import re

import msgspec
import pytest

from moorage_operator.core import broken, guards
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Finding, Guard, State, Verdict

ERRORS = guards.errors("errors", tolerate=1.0, max_odds_ratio=1.5, max_rate=0.005)
SLOW = guards.latency("slow", quantile=0.95, seconds=0.2)
DISAGREE = guards.disagreement("disagree", maximum=0.03)


def after(guard: Guard, *ticks: Tick, alpha: float = 0.01) -> Finding:
    state = State()
    for tick in ticks:
        state = guards.observe(guard, state, tick)
    return guards.find(guard, state, alpha=alpha)


@pytest.mark.parametrize(
    ("guard", "ticks", "verdict", "sentence"),
    [
        (ERRORS, [], Verdict.NO_TRAFFIC, "no request has been judged yet"),
        (ERRORS, [Tick(0, 0, 900, 3)], Verdict.NO_TRAFFIC, "no request has been judged yet"),
        (ERRORS, [Tick(100, 40, 900, 9)], Verdict.HARM, "40 of 100 (40.00%) failed, at stable 9 of 900 (1.00%): worse"),
        (ERRORS, [Tick(100, 2, 900, 9)], Verdict.CONTINUE, "neither worse nor safe yet"),
        (ERRORS, [Tick(100, 0, 900, 0)], Verdict.CONTINUE, "more requests like these"),
        (ERRORS, [Tick(100, 0, 900, 0)] * 10, Verdict.SAFE, "0 of 1,000 (0.00%) failed"),
        (ERRORS, [Tick(4000, 40, 4000, 90)], Verdict.SAFE, "safe"),
        (SLOW, [Tick(200, 60, 1800, 90)], Verdict.HARM, "took longer than 0.2 s"),
        (SLOW, [Tick(400, 4, 1800, 90)], Verdict.SAFE, "took longer than 0.2 s"),
        (DISAGREE, [Tick(200, 30, 0, 0)], Verdict.HARM, "30 of 200 (15.00%) were answered unlike stable: worse"),
        (DISAGREE, [Tick(400, 1, 0, 0)], Verdict.SAFE, "were answered unlike stable: safe"),
    ],
)  # fmt: skip
def test_what_a_guard_says(guard: Guard, ticks: list[Tick], verdict: Verdict, sentence: str) -> None:
    found = after(guard, *ticks)

    assert found.verdict is verdict, found
    assert sentence in found.message


def test_a_model_without_any_error_is_shown_to_be_safe_without_a_hand() -> None:
    ticks = [Tick(75, 0, 675, 0)] * 12

    assert after(ERRORS, *ticks).verdict is Verdict.SAFE


@pytest.mark.parametrize("tick", [Tick(100, 0, 900, 0), Tick(400, 2, 3600, 36), Tick(50, 1, 40, 4)])
def test_the_forecast_comes_true_when_the_requests_are_alike(tick: Tick) -> None:
    found = after(ERRORS, tick)
    forecast = int(re.search(r"about ([\d,]+) more", found.message)[1].replace(",", ""))  # type: ignore[index]
    state, needed = State(), 0
    while guards.find(ERRORS, state, alpha=0.01).verdict is not Verdict.SAFE:
        state = guards.observe(ERRORS, state, tick)
        needed += tick.canary_requests

    assert forecast == pytest.approx(needed - tick.canary_requests, rel=0.15, abs=tick.canary_requests)


def test_what_is_safe_can_turn_out_to_be_harm_later() -> None:
    good, bad = [Tick(100, 0, 900, 9)] * 10, [Tick(100, 10, 900, 9)] * 10

    assert after(ERRORS, *good).verdict is Verdict.SAFE
    assert after(ERRORS, *good, *bad).verdict is Verdict.HARM


def test_more_guards_ask_for_more_evidence_each() -> None:
    ticks = [Tick(100, 6, 900, 9)]
    one, four = (guards.alpha_of_each(0.01, count) for count in (1, 4))

    assert (one, four) == (0.01, 0.0025)
    assert after(ERRORS, *ticks, alpha=0.2).verdict is Verdict.HARM
    assert after(ERRORS, *ticks, alpha=four).verdict is Verdict.CONTINUE


def test_errors_that_come_in_bursts_count_for_less() -> None:
    tick = Tick(100, 15, 900, 9)
    calm = guards.observe(ERRORS, State(), tick)
    wild = guards.observe(ERRORS, State(dispersion=5.0), tick)

    assert guards.find(ERRORS, calm, alpha=0.01).harm > 3 * guards.find(ERRORS, wild, alpha=0.01).harm


def test_a_restarted_operator_goes_on_from_the_status() -> None:
    luck = random.Random(1)
    before, after_restart = State(), State()
    for _ in range(20):
        tick = Tick(75, luck.randrange(4), 675, luck.randrange(12))
        before = guards.observe(ERRORS, before, tick)
        kept = msgspec.json.decode(msgspec.json.encode(after_restart), type=State)
        after_restart = guards.observe(ERRORS, kept, tick)

    assert after_restart == before


@pytest.mark.parametrize(
    ("tick", "expected"),
    [
        (Tick(20, 10, 200, 10), True),
        (Tick(20, 10, 0, 0), True),
        (Tick(19, 19, 200, 0), False),
        (Tick(20, 9, 200, 0), False),
        (Tick(20, 10, 200, 50), False),
        (Tick(20, 20, 200, 99), True),
    ],
)
def test_half_of_the_requests_need_no_statistics(tick: Tick, expected: bool) -> None:
    assert broken.half_fails(tick) is expected


def test_numbers_stay_finite_however_long_a_rollout_lasts() -> None:
    state = State()
    for _ in range(200):
        state = guards.observe(ERRORS, state, Tick(500, 5, 4500, 45))
    found = guards.find(ERRORS, state, alpha=0.01)

    assert math.isfinite(found.harm)
    assert math.isfinite(found.safe)
    assert found.verdict is Verdict.SAFE
