"""What routers and runtimes have counted, and what of it happened between two looks. Pure.

A counter only grows while its process lives. So a look is kept per process, and what a process that was not there before has counted is
left out once: nobody knows since when. A runtime that was started again begins at zero. The agent of a router does not: it tells what its
HAProxy has counted, which may have lived on, so of a new agent only the next look says anything. What a process counted between the last
look and its end is lost; that it began anew is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moorage_operator.core.routing import AgentState

Name = tuple[str, ...]
"""Of a counter: what it counts and by what, for example ("router", "canary", "bad")."""

MOST_SERIES = 5_000
"""Of one runtime. Its model's code is untrusted, and could write its metrics, too."""

MOST = 1e15
"""More than any runtime has counted."""

RESTARTS, BROKEN_OFF = "restarts", "broken off"
"""Counters of ours: processes that began anew, and of those that are runtimes the requests that they were answering then."""

_LINE = re.compile(r"(moorage_[a-z_]+)\{([^}]*)\} ([0-9]+(?:[.][0-9]+)?(?:e[+-]?[0-9]{1,2})?)$")
_LABEL = re.compile(r'([a-z_]+)="([^"\\]*)"')
_STARTED = "process_start_time_seconds "
_IN_FLIGHT = "moorage_in_flight_requests"
_LABELS = {
    "moorage_requests_total": ("requests", "arm", "protocol", "code"),
    "moorage_request_seconds_bucket": ("seconds", "arm", "protocol", "le"),
    "moorage_shadow_total": ("shadow", "revision", "outcome"),
    "moorage_feedback_total": ("feedback", "revision", "arm", "verdict"),
    "moorage_feedback_pairs_total": ("pairs", "revision", "outcome"),
}
"""By metric: what it is called here, and the labels that matter."""


@dataclass(frozen=True)
class Reading:
    """All that one process had counted at one moment. `life` differs from process to process."""

    life: str
    counters: Mapping[Name, float] = field(default_factory=dict)
    in_flight: float = 0.0
    """Requests that it was answering."""


@dataclass(frozen=True)
class Look:
    """The readings of one moment. By router pod, and by revision and pod."""

    at: datetime
    routers: Mapping[str, Reading] = field(default_factory=dict)
    runtimes: Mapping[tuple[str, str], Reading] = field(default_factory=dict)
    queried: Mapping[str, float | str] = field(default_factory=dict)
    """By guard, what its query has given; a string says why there is no number."""
    all_answered: bool = True
    """The runtimes; who did not is here as it was the time before."""

    @property
    def lives(self) -> dict[tuple[str, str], str]:
        """Of the runtimes."""
        return {pod: reading.life for pod, reading in self.runtimes.items()}


@dataclass(frozen=True)
class Sample:
    """What happened between two looks. A runtime's counters have its revision in front."""

    since: datetime
    until: datetime
    counts: Mapping[Name, float] = field(default_factory=dict)
    queried: Mapping[str, float | str] = field(default_factory=dict)
    is_whole: bool = True
    """Each runtime answered both times, and none began or ended between them: nothing that one of them has counted is missing."""

    def count(self, *pattern: str | frozenset[str] | None) -> int:
        """The sum of the counters whose name fits: each part is a text, one of some, or (None) anything."""
        return round(sum(value for name, value in self.counts.items() if _fits(name, pattern)))


def between(before: Look, after: Look) -> Sample:
    counts: defaultdict[Name, float] = defaultdict(float)
    for pod, reading in after.routers.items():
        earlier = before.routers.get(pod)
        if earlier and earlier.life != reading.life:
            counts["router", RESTARTS] += 1
            continue
        for name, value in _grown(earlier, reading):
            counts[name] += value
    for (revision, pod), reading in after.runtimes.items():
        earlier = before.runtimes.get((revision, pod))
        for name, value in _grown(earlier, reading):
            counts[revision, *name] += value
        if earlier and earlier.life != reading.life:
            counts[revision, RESTARTS] += 1
            counts[revision, BROKEN_OFF] += max(1.0, earlier.in_flight)
    is_whole = before.all_answered and after.all_answered and before.lives == after.lives
    return Sample(before.at, after.at, counts, after.queried, is_whole)


def of_agent(state: AgentState, model: str) -> Reading | None:
    """What a router has counted for one ModelDeployment, of the requests that were assigned by weight; None where it does not say:
    it is being told something, or has not been told of this one yet.
    """
    found = state.models.get(model)
    if found is None:
        return None
    counters: dict[Name, float] = {}
    for arm, counted in found.counters.items():
        counters["router", arm, "requests"] = counted.requests
        counters["router", arm, "bad"] = counted.bad
    return Reading(state.started_at, counters)


def of_runtime(exposition: str) -> Reading:
    """From the text format of Prometheus; what is not ours, or not as we write it, is left out."""
    counters: defaultdict[Name, float] = defaultdict(float)
    life, in_flight = "", 0.0
    for line in exposition.splitlines():
        if line.startswith(_STARTED):
            life = line.removeprefix(_STARTED)
        elif (found := _LINE.match(line)) is None or float(found[3]) > MOST:
            continue
        elif found[1] == _IN_FLIGHT:
            in_flight = float(found[3])
        elif found[1] in _LABELS and len(counters) < MOST_SERIES:
            kind, *wanted = _LABELS[found[1]]
            labels = dict(_LABEL.findall(found[2]))
            counters[kind, *(labels.get(label, "") for label in wanted)] += float(found[3])
    return Reading(life, counters, in_flight)


def _grown(before: Reading | None, after: Reading) -> Iterator[tuple[Name, float]]:
    if before is None:
        return
    base = before.counters if before.life == after.life else {}
    for name, value in after.counters.items():
        yield name, max(0.0, value - base.get(name, 0.0))


def _fits(name: Name, pattern: tuple[str | frozenset[str] | None, ...]) -> bool:
    return len(name) == len(pattern) and all(
        wanted is None or part == wanted or (isinstance(wanted, frozenset) and part in wanted)
        for part, wanted in zip(name, pattern, strict=True)
    )
