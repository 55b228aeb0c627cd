"""What the routers are told of an experiment: its part of a ModelDeployment's row. docs/router.md has the document."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from moorage_operator.core.kinds import Manifest
from moorage_operator.core.strategy import Match
from moorage_operator.core.trial import NEXT, Arm, Experiment

SALT = "experiment"
"""The same for ever: a user keeps the arm."""

BUCKETS = 100
"""Parts of a percent."""


def of(experiment: Experiment) -> Manifest:
    """Nothing without an arm that has a revision. What is to take an arm over comes last, and gets nothing: it moves nobody."""
    known = [arm for arm in experiment.arms if arm.revision]
    if not known:
        return {}
    return {"salt": SALT, "arms": [*map(_arm, known), *_coming(known)]}


def _arm(arm: Arm) -> Manifest:
    row: Manifest = {"name": arm.name, "revision": arm.revision, "weight": arm.weight * BUCKETS}
    return row | ({"match": condition(arm.match)} if arm.match else {})


def condition(match: Match) -> Manifest:
    found: Manifest = msgspec.to_builtins(match)
    return {name: value for name, value in found.items() if value}


def _coming(arms: list[Arm]) -> Iterator[Manifest]:
    for arm in arms:
        if arm.next:
            yield {"name": f"{arm.name}{NEXT}", "revision": arm.next.revision, "weight": 0}
