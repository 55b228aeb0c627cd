"""What of a status can't be, because it is yet to come: the clock has been put back since, or another process has another one.

Left as it is, it would hold for as long as the clock was put back: no pause would end, and nothing that is counted would be judged.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from moorage_operator.core.state import State

S = TypeVar("S", bound=msgspec.Struct)

LONGEST_DELAY = timedelta(days=1)
"""Of a scaleDownDelaySeconds, as the CRD has it."""


def seen_at(state: State, now: datetime) -> State:
    """With `now` instead of each time after it; pods that leave stay no longer than they ever may."""
    at, experiment = state.position, _until(now, state.experiment, "since", "at")
    capacity = _until(now, at.capacity, "short_since")
    arms = tuple(_until(now, arm, "held_since") for arm in experiment.arms)
    return state.changed(
        position=msgspec.structs.replace(_until(now, at, "started_at"), capacity=capacity),
        measured=_until(now, state.measured, "at", "weight_at", "since"),
        experiment=msgspec.structs.replace(experiment, arms=arms),
        stable=state.stable and _until(now, state.stable, "since"),
        canary=state.canary and _until(now, state.canary, "since"),
        leaving=tuple(_until(now + LONGEST_DELAY, role, "scale_down_at") for role in state.leaving),
    )


def _until(latest: datetime, item: S, *names: str) -> S:
    later = [name for name in names if (getattr(item, name) or latest) > latest]
    return msgspec.structs.replace(item, **dict.fromkeys(later, latest)) if later else item
