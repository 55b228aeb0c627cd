"""Durations as people write them in a spec: 90, "90", "90s", "1h30m"."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": 3600, "m": 60, "s": 1, "": 1}


def parse(text: str | int) -> timedelta:
    """Seconds without a unit. The CRD has checked the form."""
    parts = re.findall(r"(\d+)([hms]?)", str(text))
    return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))
