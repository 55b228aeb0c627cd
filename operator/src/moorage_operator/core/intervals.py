"""How much better or worse an arm is than stable: an odds ratio with bounds that may be looked at after every tick.

Each odds ratio on a grid is a hypothesis, and the average likelihood of them all, divided by its own, is an e-value against it (see
`evidence`). The interval holds those whose e-value has stayed below 1/alpha: the true one is outside with a probability of at most
alpha, however often one looks (Howard, Ramdas, McAuliffe, Sekhon: "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 2021). The likelihood of an odds ratio has one peak, so what lies between two points of the grid that are out, on
the same side of the peak, is out as well; the bounds are the first points that are out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moorage_operator.core import evidence
from moorage_operator.core.evidence import Logs, Tick

_HALF, _WIDEST, _BEND = 24, 20.0, 2.5
GRID = tuple(
    math.exp(math.log(_WIDEST) * math.sinh(_BEND * step / _HALF) / math.sinh(_BEND))
    for step in range(-_HALF, _HALF + 1)
)
"""From 1/20 to 20; 1, in the middle, is "no difference", and its neighbours are 5 % away."""


@dataclass(frozen=True)
class Interval:
    """Of an odds ratio, arm to stable; a bound that nothing is known of is None."""

    estimate: float
    low: float | None
    high: float | None

    @property
    def is_below_one(self) -> bool:
        return self.high is not None and self.high <= 1.0

    @property
    def is_above_one(self) -> bool:
        return self.low is not None and self.low >= 1.0


def grown(logs: Logs, tick: Tick, dispersion: float) -> Logs:
    """The log-likelihoods of the grid with one more tick, each against that of "no difference"."""
    factors = evidence.odds_ratio(tick, 1.0, GRID)
    return evidence.grown(logs or (0.0,) * len(GRID), factors, dispersion)


def of(logs: Logs, alpha: float) -> Interval:
    """What has not been refuted."""
    least = evidence.log_e(logs) - math.log(1 / alpha)
    peak = max(range(len(logs)), key=logs.__getitem__)
    below = [index for index in range(peak) if logs[index] <= least]
    above = [index for index in range(peak + 1, len(logs)) if logs[index] <= least]
    return Interval(math.exp(_peak(logs, peak)), GRID[below[-1]] if below else None, GRID[above[0]] if above else None)


def _peak(logs: Logs, index: int) -> float:
    """Logarithm of the likeliest odds ratio: the top of the parabola through the highest point and its neighbours."""
    if index in (0, len(logs) - 1):
        return math.log(GRID[index])
    left, middle, right = (math.log(GRID[index + offset]) for offset in (-1, 0, 1))
    rise, fall = (logs[index] - logs[index - 1]) / (middle - left), (logs[index + 1] - logs[index]) / (right - middle)
    if rise == fall:
        return middle
    return (left + middle) / 2 + (right - left) / 2 * rise / (rise - fall)
