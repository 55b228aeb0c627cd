"""Which arm of an experiment or rollout a request was assigned to, as the router marked it. Only a label: nothing is decided by it.

The value comes from outside, and a label that can take any value is a way to fill the memory: only what looks like an arm's name counts,
and only so many of them.
"""

from __future__ import annotations

import re

HEADER = "x-moorage-arm"
UNMARKED = ""
OTHER = "other"
SHADOW = "shadow"
"""Copies of requests that another revision has answered; their answers reach nobody."""
MAX_DISTINCT = 32
"""Stable, canary, shadow and four arms of an experiment, each by weight and by match, and room for those before them."""

_NAME = re.compile(rb"(?=.{1,63}(?:/|\Z))[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:/match)?")


class Arms:
    """Header values into labels, for one process."""

    def __init__(self) -> None:
        self._labels: dict[bytes, str] = {b"": UNMARKED}

    def label(self, value: bytes) -> str:
        """`other` for what is no arm, and for the names that come after `MAX_DISTINCT` have been seen."""
        known = self._labels.get(value)
        if known is not None:
            return known
        if len(self._labels) > MAX_DISTINCT or _NAME.fullmatch(value) is None:
            return OTHER
        return self._labels.setdefault(value, value.decode())
