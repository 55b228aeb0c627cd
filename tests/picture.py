"""The picture of a rollout's states in docs/rollouts.md, as data: what it says may follow what, and why."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from documents import REPOSITORY
from moorage_operator.core.waiting import WaitsFor

UNDER_WAY, NEXT, OUTSIDE = "UnderWay", "Next", "[*]"
STATES = {waits_for: waits_for.value.title() for waits_for in WaitsFor}
"""What a rollout waits for, as the picture calls it."""

_EDGE = re.compile(r"^( +)(\S+) --> (\S+)(?:: (.*))?$", re.MULTILINE)
_OUTER = 4
"""Blanks before what is not within `UnderWay`."""


class Edge(NamedTuple):
    """`why` is one part of the label: a reason, a command, or words."""

    source: str
    target: str
    why: str


@functools.cache
def edges() -> frozenset[Edge]:
    """An arrow that leaves `UnderWay` comes from where its words lead to the end within, or else from each state there is."""
    arrows = [(len(blanks), source, target, why) for blanks, source, target, why in _EDGE.findall(_text())]
    inner = set(_split(arrow[1:] for arrow in arrows if arrow[0] > _OUTER))
    made = {edge for edge in inner if OUTSIDE not in edge}
    for edge in _split(arrow[1:] for arrow in arrows if arrow[0] == _OUTER):
        within = {item.source for item in inner if (item.target, item.why) == (OUTSIDE, edge.why)}
        sources = (within or {*STATES.values()}) if edge.source == UNDER_WAY else {edge.source}
        made |= {edge._replace(source=source) for source in sources}
    return frozenset(made)


def says(result: str, reason: str) -> bool:
    """May a rollout end so?"""
    reasons = {edge.why for edge in edges() if edge.target == result}
    return bool(reasons) and (result != "RolledBack" or reason in reasons)


def _text() -> str:
    document = (REPOSITORY / "docs/rollouts.md").read_text()
    begin = document.index("stateDiagram-v2")
    return document[begin : document.index("```", begin)]


def _split(arrows: Iterable[tuple[str, str, str]]) -> Iterator[Edge]:
    return (Edge(source, target, part) for source, target, why in arrows for part in why.split(", "))
