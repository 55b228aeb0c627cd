"""How many threads a model may use: as many as the container has CPUs, not as many as the node has.

Numeric libraries start a thread for each core they see. In a pod with a limit of 1 CPU on a node with 64 that means 64
threads which the kernel throttles together.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

PREDICTIONS_AT_ONCE = 2
"""Two, so that one long prediction does not hold up all others; more would only share the same CPUs."""


def cpus(cgroups: Path = CGROUPS) -> int:
    """CPUs that this process may use: its affinity, cut by the cgroup's quota, rounded up."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return max(1, min(usable, math.ceil(quota))) if quota else usable


def workers() -> int:
    return min(PREDICTIONS_AT_ONCE, cpus())


def for_each_prediction() -> int:
    return max(1, cpus() // workers())


def limit(environment: MutableMapping[str, str]) -> None:
    """To be called before numpy is imported; what the user set stays."""
    for variable in LIBRARIES:
        environment.setdefault(variable, str(for_each_prediction()))


def _quota(cgroups: Path) -> float:
    """CPUs of the cgroup's quota, v2 or v1; 0 without one."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 0.0
    return int(quota) / int(period) if quota.isdecimal() else 0.0
