"""From what was counted to what a guard looks at: so many requests of each arm, so many of them bad. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage_operator.core import http_route
from moorage_operator.core.counted import BROKEN_OFF, Sample
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Pairs
from moorage_operator.core.judgement import Guard

STABLE, CANARY = "stable", "canary"
"""Arms as the router marks requests that were assigned by weight."""

BAD_HTTP = frozenset(str(code) for code in range(500, 600))
BAD_RPC = frozenset({"2", "4", "8", "10", "12", "13", "14", "15"})
"""UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's fault."""

INFINITE = "+Inf"
"""The last edge of a histogram: all requests are below it."""

_NUMBER = re.compile(r"[0-9]+([.][0-9]+)?(e-?[0-9]+)?")


@dataclass(frozen=True)
class Arms:
    """Who is compared."""

    stable: str
    canary: str
    by_haproxy: bool
    by_gateway: bool
    is_sticky: bool
    weight: int


def of_guard(guard: Guard, sample: Sample, arms: Arms, *, threshold: float | None) -> Tick:
    """`threshold`, in seconds, is that of a latency guard."""
    if guard.disagreement:
        # What was dropped, by an overloaded canary, too, got no answer that could be like or unlike stable's.
        outcomes = [sample.count(None, "shadow", arms.canary, name) for name in ("agree", "disagree", "failed")]
        return Tick(sum(outcomes), outcomes[1] + outcomes[2], 0, 0)
    if guard.feedback:
        of_canary, of_stable = (wrong(sample, arm, name, arms) for arm, name in _arms(arms))
    elif guard.latency:
        of_canary, of_stable = (slow(sample, arm, name, threshold or 0.0, arms) for arm, name in _arms(arms))
    else:
        of_canary, of_stable = (failed(sample, arm, name, arms) for arm, name in _arms(arms))
    return Tick(*of_canary, *of_stable)


def _arms(arms: Arms) -> tuple[tuple[str, str], tuple[str, str]]:
    """Arm and revision, the canary's first."""
    return (CANARY, arms.canary), (STABLE, arms.stable)


def failed(sample: Sample, arm: str, revision: str, arms: Arms) -> tuple[int, int]:
    """Requests and errors, as the caller saw them.

    To HAProxy every answer by gRPC is HTTP 200: its errors come from the runtimes. Without it a runtime that ends has counted nothing of
    what it was answering.
    """
    marks = marks_of(arm, arms)
    of_rpc = sample.count(revision, "requests", marks, "grpc", BAD_RPC)
    if arms.by_haproxy:
        requests, bad = (sample.count("router", arm, name) for name in ("requests", "bad"))
        return requests, min(requests, bad + of_rpc)
    broken_off = sample.count(revision, BROKEN_OFF)
    requests = sample.count(revision, "requests", marks, None, None)
    return requests + broken_off, broken_off + of_rpc + sample.count(revision, "requests", marks, None, BAD_HTTP)


def assigned(sample: Sample, arm: str, revision: str, arms: Arms) -> int:
    """Requests that came by weight; none where nothing marks them."""
    if arms.by_haproxy:
        return sample.count("router", arm, "requests")
    return sample.count(revision, "requests", http_route.MARK, None, None)


def slow(sample: Sample, arm: str, revision: str, seconds: float, arms: Arms) -> tuple[int, int]:
    """None at all of a runtime that counts by other edges: its requests are neither fast nor slow."""
    marks = marks_of(arm, arms)
    fast = frozenset(text for text, edge in edges(sample, revision).items() if edge == seconds)
    if not fast:
        return 0, 0
    requests = sample.count(revision, "seconds", marks, None, INFINITE)
    return requests, requests - sample.count(revision, "seconds", marks, None, fast)


def wrong(sample: Sample, arm: str, revision: str, arms: Arms) -> tuple[int, int]:
    """By the revision and the arm that the prediction's id names, wherever the word on it arrived."""
    marks = marks_of(arm, arms)
    good, bad = (sample.count(None, "feedback", revision, marks, verdict) for verdict in ("right", "wrong"))
    return good + bad, bad


def pairs(sample: Sample, arms: Arms) -> Pairs:
    """The canary answered as the shadow of a request that stable answered."""
    names = ("canary_wrong", "stable_wrong", "both_wrong")
    return Pairs(*(sample.count(None, "pairs", arms.canary, name) for name in names))


def marks_of(arm: str, arms: Arms) -> frozenset[str]:
    """Labels of requests that were assigned by weight; without a router that marks them, all that are unmarked."""
    return frozenset({arm}) if arms.by_haproxy else frozenset({"", http_route.MARK})


def edges(sample: Sample, revision: str) -> dict[str, float]:
    """The finite edges of a revision's histogram in seconds, by how they are written; what is no number is none."""
    texts = {name[4] for name in sample.counts if len(name) == 5 and name[:2] == (revision, "seconds")}
    return {text: float(text) for text in texts if _NUMBER.fullmatch(text)}
