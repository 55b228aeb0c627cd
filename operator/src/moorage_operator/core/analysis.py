"""How the canary of a rollout is judged: from what was counted between two looks to evidence, and from evidence to going on or back.

    look ──► sample ──► each guard's tick ──► its evidence ──► harm: back to stable
                                                          └──► else on, when enough has been seen

Nothing is forgotten when a weight changes; all is, when another version comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from moorage_operator.core import broken, evidence, guards, latencies, ticks
from moorage_operator.core.counted import RESTARTS, Sample
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis, Guard, Prometheus
from moorage_operator.core.state import Judged, Measured
from moorage_operator.core.ticks import Arms

MOST_BASELINE_TICKS, LEAST_BASELINE_TICKS = 20, 5
"""So many are kept to see how much errors come in bursts; fewer say nothing."""

QUERY_TICKS, SAFE_QUERY_TICKS = 3, 20
"""A query that is out of bounds for so many ticks in a row is harm; safe is one that was not in the last of them, if there were as many."""

RATIO_ALARM = math.log(1000)
"""One false alarm in a thousand weights, however often one looks at each."""


@dataclass(frozen=True)
class Report:
    """After a sample: what is known now. `harm` says why the canary has to go, if it has to."""

    judged: tuple[Judged, ...]
    measured: Measured
    harm: str = ""


def heed(analysis: Analysis, judged: tuple[Judged, ...], measured: Measured, sample: Sample, arms: Arms) -> Report:
    """With one more sample."""
    restarts = measured.restarts + sample.count(None, RESTARTS)
    measured = msgspec.structs.replace(measured, at=sample.until, restarts=restarts)
    before = {item.guard: item for item in _of_now(analysis, judged)}
    alpha = guards.alpha_of_each(analysis.alpha, sum(not item.prometheus for item in analysis.guards))
    seen = {
        guard.name: _judge(guard, before.get(guard.name), alpha, measured, sample, arms)
        for guard in seeing(analysis, arms.weight)
    }
    # A guard that sees nothing at this weight keeps what it saw before.
    found = tuple((before | seen)[guard.name] for guard in analysis.guards if guard.name in before | seen)
    harmful = [f"{item.guard}: {item.message}" for item in found if item.verdict is Verdict.HARM]
    return Report(found, _with_sample(measured, sample, arms, analysis, found), "; ".join(harmful))


def seeing(analysis: Analysis, weight: int) -> tuple[Guard, ...]:
    """The guards that have something to look at: before the first weight, only those that look at shadows."""
    return tuple(guard for guard in analysis.guards if weight or guard.disagreement)


def ratio_alarm(measured: Measured, arms: Arms) -> str:
    """Why the requests can't be divided by the weight; empty as long as that can be so."""
    divides = arms.by_haproxy or arms.by_gateway
    if not (divides and not arms.is_sticky and 0 < arms.weight < 100 and measured.requests):
        return ""
    log_e = evidence.sample_ratio(measured.canary_requests, measured.requests, arms.weight / 100)
    if log_e < RATIO_ALARM:
        return ""
    share = measured.canary_requests / measured.requests
    return f"{measured.canary_requests:,} of {measured.requests:,} requests ({share:.1%}) went to {arms.canary} instead of {arms.weight} %"


def missing(analysis: Analysis, judged: tuple[Judged, ...], *, weight: int, last_step: bool) -> str:
    """What has to be seen before the canary gets more; empty when all has been."""
    found = {item.guard: item for item in _of_now(analysis, judged)}
    waiting = []
    for guard in seeing(analysis, weight):
        item = found.get(guard.name, Judged(guard.name, Verdict.NO_TRAFFIC, "nothing has been seen yet"))
        if guard.prometheus and (item.verdict is Verdict.NO_TRAFFIC or item.state.canary_bad):
            # A number from before says nothing of now, minRequests are no numbers, and one out of bounds may be the first of three.
            waiting.append(f"{guard.name}: {item.message}")
        elif not guard.prometheus and item.canary_requests < analysis.min_requests:
            seen = f"{item.canary_requests} of {analysis.min_requests} requests of the new version have been judged"
            why = f" ({item.message})" if guard.latency and item.state.threshold is None else ""
            waiting.append(f"{guard.name}: {seen}{why}")
        elif last_step and analysis.require == "safe" and item.verdict is not Verdict.SAFE:
            waiting.append(f"{guard.name}: {item.message}")
    return "; ".join(waiting)


def _of_now(analysis: Analysis, judged: tuple[Judged, ...]) -> tuple[Judged, ...]:
    """Without what was judged by guards that are gone, or have been changed: their evidence is on other hypotheses."""
    hashes = {guard.name: guard.hash for guard in analysis.guards}
    return tuple(item for item in judged if item.state.hash == hashes.get(item.guard))


def _judge(guard: Guard, before: Judged | None, alpha: float, measured: Measured, sample: Sample, arms: Arms) -> Judged:
    state = before.state if before else _first_state(guard, measured)
    if guard.prometheus:
        return _judge_query(guard, guard.prometheus, state, sample)
    if guard.latency and state.threshold is None:
        state = msgspec.structs.replace(state, threshold=latencies.threshold(guard.latency, measured, sample, arms))
    test = _test(guard, state)
    if test is None:
        words = latencies.wanting(guard.latency, measured) if guard.latency else ""
        return Judged(guard.name, Verdict.NO_TRAFFIC, words, state=state)
    tick = ticks.of_guard(guard, sample, arms, threshold=state.threshold)
    state = guards.observe(test, state, tick, ticks.pairs(sample, arms) if guard.feedback else guards.NO_PAIRS)
    is_broken = guard.error_rate is not None and broken.is_broken(test, state, tick)
    found = guards.find(test, state, alpha=alpha, is_broken=is_broken)
    harm, safe = float(guards.in_short(found.harm)), float(guards.in_short(found.safe))
    remark = latencies.remark(guard.latency, state.threshold, measured) if guard.latency and state.threshold else ""
    message = f"{found.message}{remark}{_lost(measured)}"
    return Judged(guard.name, found.verdict, message, harm, safe, state.canary_requests, state)


def _lost(measured: Measured) -> str:
    if not measured.restarts:
        return ""
    times = "once" if measured.restarts == 1 else f"{measured.restarts} times"
    return f"; a pod or a router began anew {times}, and what it had counted since the look before is lost"


def _judge_query(guard: Guard, wanted: Prometheus, state: guards.State, sample: Sample) -> Judged:
    """Its state counts ticks: those with a number, those out of bounds without a good one between them, and those since.

    Without a number now there is no verdict, whatever there was before.
    """
    value = sample.queried.get(guard.name, "it has not been asked yet")
    if isinstance(value, str):
        words = f"no number: {value}"
        return Judged(guard.name, Verdict.NO_TRAFFIC, words, canary_requests=state.canary_requests, state=state)
    is_bad = (wanted.max is not None and value > wanted.max) or (wanted.min is not None and value < wanted.min)
    state = msgspec.structs.replace(
        state,
        canary_requests=state.canary_requests + 1,
        canary_bad=state.canary_bad + 1 if is_bad else 0,
        within_bounds=0 if is_bad else state.within_bounds + 1,
    )
    bounds = [f"{word} {bound:g}" for word, bound in (("max", wanted.max), ("min", wanted.min)) if bound is not None]
    message = f"{value:.4g} ({' and '.join(bounds)}); a plain threshold, outside of alpha"
    if state.canary_bad >= QUERY_TICKS:
        verdict, message = Verdict.HARM, f"{message}: out of bounds {state.canary_bad} times in a row"
    elif state.within_bounds >= min(SAFE_QUERY_TICKS, state.canary_requests):
        verdict = Verdict.SAFE
    else:
        verdict = Verdict.CONTINUE
        message += f"; {state.within_bounds} of {SAFE_QUERY_TICKS} looks since it was out of bounds"
    return Judged(guard.name, verdict, message, canary_requests=state.canary_requests, state=state)


def _first_state(guard: Guard, measured: Measured) -> guards.State:
    """What is estimated before the first weight, and then kept."""
    asked = [tick for tick in measured.baseline if tick[0]]
    known = len(asked) >= LEAST_BASELINE_TICKS
    dispersion = evidence.dispersion(asked) if guard.error_rate and known else 1.0
    return guards.State(dispersion=round(dispersion, 3), hash=guard.hash)


def _test(guard: Guard, state: guards.State) -> guards.Guard | None:
    """None for a latency that can't be compared with anything."""
    if guard.error_rate:
        rate = guard.error_rate
        return guards.errors(guard.name, tolerate=rate.tolerate, max_odds_ratio=rate.max_odds_ratio, max_rate=rate.most)
    if guard.disagreement:
        return guards.disagreement(guard.name, maximum=guard.disagreement.most)
    if guard.feedback:
        return guards.feedback(guard.name, margin=guard.feedback.margin)
    if guard.latency is None or state.threshold is None:
        return None
    return guards.latency(guard.name, quantile=guard.latency.quantile, seconds=state.threshold)


def _with_sample(
    measured: Measured, sample: Sample, arms: Arms, analysis: Analysis, found: tuple[Judged, ...]
) -> Measured:
    """After it has been judged: what is measured of stable here is what later samples are judged by."""
    relative = {guard.name for guard in analysis.guards if guard.latency and guard.latency.max_seconds is None}
    waits = any(item.guard in relative and item.state.threshold is None for item in found)
    if waits or not arms.weight:
        measured = latencies.with_stable(measured, sample, arms)
    if arms.weight:
        return _with_ratio(measured, sample, arms)
    tick = ticks.failed(sample, ticks.STABLE, arms.stable, arms)
    baseline = (*measured.baseline, tick)[-MOST_BASELINE_TICKS:]
    return msgspec.structs.replace(measured, baseline=baseline)


def _with_ratio(measured: Measured, sample: Sample, arms: Arms) -> Measured:
    """A router that ends takes with it what it has counted of both versions, a pod what it has counted of its own."""
    if arms.by_gateway and not sample.is_whole:
        return measured
    of_canary = ticks.assigned(sample, ticks.CANARY, arms.canary, arms)
    of_stable = ticks.assigned(sample, ticks.STABLE, arms.stable, arms)
    return msgspec.structs.replace(
        measured,
        canary_requests=measured.canary_requests + of_canary,
        requests=measured.requests + of_canary + of_stable,
    )
