"""The picture of a rollout's states is that of the code: each arrow can be made to happen, and what can be made to happen is an arrow.

Each state of a rollout is met with all that may come to it: time, losses, harm, commands, other wishes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

import picture
from a_rollout import CANARY, NEXT, NOW, STABLE, A, both, split
from moorage_operator.core import commands, judgement, rejections, rollout, signatures
from moorage_operator.core.counted import Sample
from moorage_operator.core.guards import State as Evidence
from moorage_operator.core.guards import Verdict
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.rollout import Progress, Wanted
from moorage_operator.core.state import Judged, Measured, Result, Role, State
from moorage_operator.core.waiting import World
from picture import NEXT as THE_NEXT
from picture import OUTSIDE, UNDER_WAY, Edge

HALF = A(ready=both(3), router="haproxy", at=2, weight=50, split=split(50))
QUARTER = replace(HALF, at=1, weight=25, split=split(25), ago=1)
FEW = (Judged("errors", Verdict.CONTINUE, "", canary_requests=9, state=Evidence(hash=judgement.ERRORS.hash)),)
BACK = {"analysis": {"onInconclusive": "rollback"}}

STATES = {
    "Pods": replace(HALF, ready=both(1), weight=25, split=split(25)),
    "Routers": replace(HALF, split=split(25)),
    "Clock": QUARTER,
    "Traffic": replace(QUARTER, ago=60, seen=FEW, options=BACK),
    "Person": replace(HALF, at=3),
}
"""The canary has requests in all of them."""


@dataclass(frozen=True)
class Event:
    """What may come: another world, or a command."""

    change: Callable[[A], A] = lambda given: given
    command: str = ""


UNLIKE = {
    revision: signatures.encode(signatures.Signature(revision, inputs=((revision, "double"),)))
    for revision in ("fraud-v3", "fraud-v4")
}
HARM: dict[tuple[str, ...], float] = {
    ("router", "canary", "requests"): 200,
    ("router", "canary", "bad"): 18,
    ("router", "stable", "requests"): 900,
    ("router", "stable", "bad"): 9,
}
EVENTS = {
    "nothing": Event(),
    "much time": Event(lambda given: replace(given, ago=10**6)),
    "no pod is left": Event(lambda given: replace(given, ready=both(0))),
    "it crashes": Event(lambda given: replace(given, crashing="fraud-v4")),
    "errors": Event(lambda given: replace(given, sample=Sample(NOW - timedelta(seconds=15), NOW, HARM))),
    "another signature": Event(lambda given: replace(given, signatures=UNLIKE)),
    "another version": Event(lambda given: replace(given, wants=NEXT)),
    "the stable version": Event(lambda given: replace(given, wants=STABLE)),
    "no known version": Event(lambda given: replace(given, wants=None)),
    "routers that do not answer": Event(lambda given: replace(given, split=None)),
    **{verb: Event(command=f"{verb}@fraud-v4") for verb in commands._VERBS},
}


def come(event: Event, given: A) -> Progress:
    given = event.change(given)
    return told(event.command, given.state, given.world, given.wants)


def told(command: str, state: State, world: World, wants: Wanted | None) -> Progress:
    wanted = wants.revision if wants else ""
    kept = {"fraud-v2", "fraud-v3", "fraud-v4"}
    heard = commands.obey(command, state, world, wanted=wanted, kept=kept)
    return rollout.advance(heard, wants, world)


def name_of(progress: Progress) -> str:
    """Where it stands, in the picture's words."""
    if progress.state.canary is None:
        return progress.state.history[0].result if progress.state.history else OUTSIDE
    assert progress.obstacle
    return picture.STATES[progress.obstacle.waits_for]


def ends() -> set[Edge]:
    """All that can be made to end."""
    found = set()
    for name, given in STATES.items():
        for event in EVENTS.values():
            after = come(event, given).state
            if after.history:
                outcome = after.history[0]
                why = outcome.reason if outcome.result is Result.ROLLED_BACK else WHY[outcome.result]
                found.add(Edge(name, outcome.result, why))
    whole = replace(HALF, at=4, weight=100, split={"fraud-v4": 100}).after()
    alone = replace(HALF, at=4, weight=100, ready=both(3, 0), split=None, options={"strategy": "recreate"}).after()
    found.add(Edge("Routers", name_of(alone), "nobody else answers"))
    return found | {Edge(THE_NEXT, name_of(whole), WHY[Result.PROMOTED])}


WHY = {
    Result.PROMOTED: "all hold 100 %",
    Result.ABORTED: "abort",
    Result.SUPERSEDED: "another version is wanted",
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_met(name: str) -> None:
    assert name_of(come(EVENTS["nothing"], STATES[name])) == name


def test_a_rollout_ends_as_the_picture_says_and_in_no_other_way() -> None:
    assert ends() == {edge for edge in picture.edges() if edge.target in {*Result}}


MOVES = {
    "they are ready": ("Pods", Event(lambda given: replace(given, ready=both(3), split=split(50)))),
    "all hold it": ("Routers", Event(lambda given: replace(given, split=split(50)))),
    "the time is up": ("Clock", Event(lambda given: replace(given, ago=60))),
    "enough was seen": ("Traffic", Event(lambda given: replace(given, options={}))),
}


def moves() -> set[Edge]:
    """What leads from a state to the next step: what it waits for, and commands."""
    told = {name: Event(command=f"{name}@fraud-v4") for name in commands._VERBS}
    events = [(why, source, event) for why, (source, event) in MOVES.items()]
    events += [(why, source, event) for why, event in told.items() for source in STATES]
    found = {Edge(source, THE_NEXT, why) for why, source, event in events if goes_on(event, STATES[source])}
    paused = replace(STATES["Clock"], paused=True)
    assert name_of(come(EVENTS["nothing"], paused)) == "Person"
    return found | (
        {Edge("Person", THE_NEXT, "resume")} if name_of(come(EVENTS["resume"], paused)) == "Clock" else set()
    )


def goes_on(event: Event, given: A) -> bool:
    before, after = come(EVENTS["nothing"], given), come(event, given)
    return after.state.canary is not None and after.state.position.index > before.state.position.index


def test_what_leads_to_the_next_step_is_what_the_picture_says() -> None:
    assert moves() == {edge for edge in picture.edges() if edge.target == THE_NEXT and edge.source in STATES}


PAUSES: dict[str, tuple[A, Event]] = {
    "pause": (STATES["Clock"], EVENTS["pause"]),
    "inconclusive": (replace(STATES["Traffic"], options={"analysis": {}}), EVENTS["much time"]),
    "SampleRatioMismatch": (
        replace(QUARTER, measured=Measured(at=NOW, weight=25, canary_requests=600, requests=1000)),
        EVENTS["nothing"],
    ),
}


@pytest.mark.parametrize(("given", "event"), PAUSES.values(), ids=PAUSES)
def test_what_makes_it_wait_for_a_person(given: A, event: Event) -> None:
    assert name_of(come(event, given)) == "Person"


@pytest.mark.parametrize("name", ["promote", "promoteFull", "resume"])
def test_a_person_lets_it_go_on_although_requests_did_not_come_as_the_weight_says(name: str) -> None:
    after = come(Event(command=f"{name}@fraud-v4"), PAUSES["SampleRatioMismatch"][0])
    assert name_of(after) != "Person"
    assert after.state.measured.requests == 0


def test_the_picture_has_each_state_and_these_reasons_to_wait_for_a_person() -> None:
    begun = {edge for edge in picture.edges() if edge.source == THE_NEXT and edge.target not in {*Result}}
    assert {edge.target for edge in begun} == set(STATES) == set(picture.STATES.values())
    assert {edge.why for edge in begun if edge.target == "Person"} == set(PAUSES)


IDLE = A(canary="", wants=STABLE)


def rejected(reason: Reason, **changes: Any) -> A:
    put_back = rejections.of(Role("fraud-v4", "4"), Problem(reason, ""), IDLE.world.spec)
    return replace(IDLE, rejected=(put_back,), wants=CANARY, **changes)


BEGINS: dict[str, tuple[str, A, str]] = {
    "another version is wanted": (OUTSIDE, replace(IDLE, wants=CANARY), ""),
    "undo": (OUTSIDE, replace(IDLE, wants=Wanted("fraud-v2", "2")), "undo@fraud-v2"),
    "retry": (Result.ROLLED_BACK, rejected(Reason.CANARY_LOST), "retry@fraud-v4"),
    "spec.rollout changes": (
        Result.ROLLED_BACK,
        rejected(Reason.SIGNATURE_INCOMPATIBLE, options={"signature": "any"}),
        "",
    ),
    "spec.traffic changes": (Result.ROLLED_BACK, rejected(Reason.ROUTER_UNREACHABLE, router="haproxy"), ""),
}


@pytest.mark.parametrize(("_", "given", "command"), BEGINS.values(), ids=BEGINS)
def test_what_begins_a_rollout(_: str, given: A, command: str) -> None:
    assert come(Event(command=command), given).state.canary


@pytest.mark.parametrize("reason", [Reason.CANARY_LOST, Reason.SIGNATURE_INCOMPATIBLE, Reason.ABORTED])
def test_what_was_rejected_is_not_tried_again_by_itself(reason: Reason) -> None:
    assert not rejected(reason).after().state.canary
    later: dict[str, Any] = {
        "options": {"scaleDownDelaySeconds": 5, "rollback": {"moveAliasBack": True}},
        "replicas": 9,
    }
    assert not rejected(reason, **later).after().state.canary


def test_the_picture_has_these_beginnings_and_no_others() -> None:
    found = {Edge(source, UNDER_WAY, why) for why, (source, *_) in BEGINS.items()}
    found |= {Edge(Result.ABORTED, UNDER_WAY, edge.why) for edge in found if edge.source == Result.ROLLED_BACK}
    assert {edge for edge in picture.edges() if edge.target == UNDER_WAY} == found
