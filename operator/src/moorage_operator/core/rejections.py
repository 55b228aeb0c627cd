"""Versions that were put back: each is tried again when something has changed that its trial depends on, or when somebody says so."""

from __future__ import annotations

import hashlib

import msgspec

from moorage_operator.core import spec
from moorage_operator.core.reasons import Problem
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Rejected, Role

_AFTERWARDS = ("scaleDownDelaySeconds", "abortScaleDownDelaySeconds", "rollback")
"""Of `spec.rollout`: what happens when all is decided."""


def of(canary: Role, failure: Problem, wanted: Spec) -> Rejected:
    return Rejected(canary.model_version, canary.revision, failure.reason, failure.message, _trial(wanted))


def is_open_again(item: Rejected, wanted: Spec) -> bool:
    """A change of the pods makes another revision; a change of their number is no reason to try a bad version again."""
    return item.trial != _trial(wanted)


def _trial(wanted: Spec) -> str:
    """A hash of what a version is tried by, besides its pods."""
    how = spec.without_defaults(wanted.rollout)
    parts = [
        {name: part for name, part in how.items() if name not in _AFTERWARDS},
        spec.without_defaults(wanted.traffic),
    ]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:8]
