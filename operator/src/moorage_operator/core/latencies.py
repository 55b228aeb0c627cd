"""From how many seconds on a request is slow: what a guard of latency counts, fixed before it counts anything. Pure.

It is an edge of a histogram, because nothing else can be counted. Without maxSeconds it is stable's own quantile, by what stable has
answered before: at weight 0 and, where that was too little, in the looks before the guard's first one. No request is both a part of
that and evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from moorage_operator.core import ticks
from moorage_operator.core.counted import Sample
from moorage_operator.core.judgement import Latency
from moorage_operator.core.state import Measured
from moorage_operator.core.ticks import Arms


def threshold(latency: Latency, measured: Measured, sample: Sample, arms: Arms) -> float | None:
    """Seconds; None while they are not known. `measured` is from before the sample."""
    if latency.max_seconds is not None:
        # They are the same for whoever answers: a stable version that does not answer must not hold up the one that mends it.
        edges = ticks.edges(sample, arms.stable) or ticks.edges(sample, arms.canary)
        return _from(latency.max_seconds, edges.values())
    if _total(measured) < least(latency):
        return None
    enough = latency.quantile * _total(measured)
    finite = _finite(measured)
    return _from(min((edge for edge, count in finite.items() if count >= enough), default=math.inf), finite)


def least(latency: Latency) -> int:
    """So many of stable's answers tell its quantile: one of them is to be expected beyond."""
    return math.ceil(round(1 / (1 - latency.quantile), 6))


def wanting(latency: Latency, measured: Measured) -> str:
    """Why nothing is judged yet."""
    if latency.max_seconds is not None:
        return "no request has been judged yet"
    return f"not judged: {_total(measured):,} of {least(latency):,} answers of stable that tell its own latency"


def remark(latency: Latency, seconds: float, measured: Measured) -> str:
    """When what ought to be counted can't be, because it is beyond the last edge."""
    finite = _finite(measured)
    if latency.max_seconds is not None:
        what, is_beyond = "maxSeconds", seconds < latency.max_seconds
    else:
        what = "stable's own quantile"
        is_beyond = seconds >= max(finite, default=math.inf) and finite[seconds] < latency.quantile * _total(measured)
    return (
        f"; {what} is beyond {seconds:g} s, the last edge of the histogram, which is taken instead" if is_beyond else ""
    )


def with_stable(measured: Measured, sample: Sample, arms: Arms) -> Measured:
    """With what stable answered in the sample, too."""
    found = dict(measured.latencies)
    marks = ticks.marks_of(ticks.STABLE, arms)
    edges = ticks.edges(sample, arms.stable).keys() | {ticks.INFINITE}
    for name, count in sample.counts.items():
        if len(name) == 5 and name[:2] == (arms.stable, "seconds") and name[2] in marks and name[4] in edges:
            found[name[4]] = found.get(name[4], 0) + round(count)
    return msgspec.structs.replace(measured, latencies=found)


def _from(seconds: float, edges: Iterable[float]) -> float | None:
    """Rounded up; the last edge where none is as far."""
    known = sorted(edges)
    return next((edge for edge in known if edge >= seconds), known[-1] if known else None)


def _total(measured: Measured) -> int:
    return measured.latencies.get(ticks.INFINITE, 0)


def _finite(measured: Measured) -> dict[float, int]:
    return {float(edge): count for edge, count in measured.latencies.items() if edge != ticks.INFINITE}
