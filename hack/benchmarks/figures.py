"""The arithmetic of the benchmarks and how figures look in a table. Pure: it measures nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank): always one that was measured."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, and the whole range where there is one: `41.2 (39.8–44.0)`."""
    middle = f"{statistics.median(values):,.{digits}f}"
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return middle if low == high else f"{middle} ({low}–{high})"


def seconds(values: Sequence[float]) -> str:
    """p50, p99 and the greatest, with milliseconds below 10 s."""
    picked = [percentile(values, 50), percentile(values, 99), max(values)]
    return " / ".join(f"{value:.3f}" if value < 10 else f"{value:.1f}" for value in picked)


def rounded(value: float) -> str:
    """To two digits: the median of a hundred runs has no more."""
    digits = max(0, math.floor(math.log10(max(1.0, value))) - 1)
    return f"{round(value, -digits):,.0f}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join([_row(titles), "|---" * len(titles) + "|", *map(_row, rows)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
