"""Pods that are none any more, and whose objects stay: nobody waits for them, asks them, counts them, or tells what ails them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from moorage_operator.core.kinds import Manifest

LOST_AFTER = timedelta(seconds=60)
"""A pod's deletionTimestamp is when the kubelet kills what is left of it. So long after it, no kubelet answers for that pod."""


def has_ended(pod: Manifest) -> bool:
    """For good: the kubelet evicted it, or its node was shut down. Another one came instead."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_lost(pod: Manifest, now: datetime) -> bool:
    """With its node: it was to have ended some time ago, and may be about to for ever."""
    counts_until = lost_at(pod)
    return counts_until is not None and now >= counts_until


def lost_at(pod: Manifest) -> datetime | None:
    """From when it is, if its object is still there by then; None for a pod that nobody has told to end."""
    until = pod["metadata"].get("deletionTimestamp")
    return msgspec.convert(until, datetime) + LOST_AFTER if until else None
