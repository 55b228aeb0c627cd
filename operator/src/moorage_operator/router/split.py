"""A model's row in HAProxy's map: all that decides a split, in one line, because HAProxy changes one row atomically. Pure.

The fields are separated by colons and keep their places: HAProxy picks them out by number, and `decode` reads them back from
HAProxy for `GET /state`. Revisions are in the row for that alone; a row is set after the servers of its revisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from moorage_operator.router.table import Model

# Numbers of the fields, from 1, as HAProxy's converter `field` counts them.
SALT = 1
CANARY_SALT = 2
CANARY_WEIGHT = 3
SHADOW_WEIGHT = 4
SHADOW_REVISION = 5
STABLE = 6
CANARY = 7
FIRST_ARM = 8

_NONE = "-"
_FIELDS_OF_AN_ARM = 2


def upper_field(arm: int) -> int:
    """The field with the first bucket above the range of the arm with this index."""
    return FIRST_ARM + _FIELDS_OF_AN_ARM * arm


@dataclass(frozen=True)
class Share:
    """What one arm gets; `weight` in 1/10,000."""

    revision: str
    weight: int


@dataclass(frozen=True)
class Row:
    """One model's split as HAProxy holds it; arms in their order, without their names."""

    stable: str
    canary: Share | None
    canary_salt: str
    arms: tuple[Share, ...]
    shadow: Share | None = None


def encode(model: Model) -> str:
    canary, shadow = model.canary, model.shadow
    fixed = [
        model.salt or _NONE,
        canary.salt if canary else _NONE,
        str(canary.weight if canary else 0),
        str(shadow.weight if shadow else 0),
        shadow.revision if shadow else _NONE,
        model.stable,
        canary.revision if canary else _NONE,
    ]
    uppers = accumulate(arm.weight for arm in model.arms)
    arms = [part for upper, arm in zip(uppers, model.arms, strict=True) for part in (str(upper), arm.revision)]
    return ":".join([*fixed, *arms])


def decode(text: str) -> Row:
    """`ValueError` for what `encode` never writes."""
    fields = text.split(":")
    if len(fields) < FIRST_ARM - 1 or (len(fields) - FIRST_ARM + 1) % _FIELDS_OF_AN_ARM:
        raise ValueError(f"no row of a split: {text}")
    uppers = [0, *map(int, fields[FIRST_ARM - 1 :: _FIELDS_OF_AN_ARM])]
    revisions = fields[FIRST_ARM::_FIELDS_OF_AN_ARM]
    weights = [upper - lower for lower, upper in pairwise(uppers)]
    canary, shadow = fields[CANARY - 1], fields[SHADOW_REVISION - 1]
    return Row(
        stable=fields[STABLE - 1],
        canary=None if canary == _NONE else Share(canary, int(fields[CANARY_WEIGHT - 1])),
        canary_salt=fields[CANARY_SALT - 1],
        arms=tuple(Share(revision, weight) for revision, weight in zip(revisions, weights, strict=True)),
        shadow=None if shadow == _NONE else Share(shadow, int(fields[SHADOW_WEIGHT - 1])),
    )
