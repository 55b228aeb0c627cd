"""How a rollout is judged, as a table: with these counts the canary goes on, waits, or goes back; and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from a_rollout import CANARY, NOW, A, both, split
from moorage_operator.core import commands, events, guards, judgement, judging, rollout
from moorage_operator.core.counted import Sample
from moorage_operator.core.guards import Verdict
from moorage_operator.core.state import Judged, Measured, Result
from moorage_operator.core.waiting import WaitsFor

STABLE_REVISION, CANARY_REVISION = "fraud-v3", "fraud-v4"
QUARTER = A(ready=both(3), router="haproxy", at=1, weight=25, split=split(25), ago=60)
"""At the end of the pause at 25 %."""


def counted(
    canary: tuple[int, int], more: Mapping[str, float] | None = None, *, stable: tuple[int, int] = (900, 9)
) -> Sample:
    """Requests and errors at the routers. `more` are other counters, their names' parts joined by blanks."""
    counts = {
        ("router", "canary", "requests"): canary[0],
        ("router", "canary", "bad"): canary[1],
        ("router", "stable", "requests"): stable[0],
        ("router", "stable", "bad"): stable[1],
    }
    return Sample(
        NOW - timedelta(seconds=15), NOW, counts | {tuple(name.split()): value for name, value in (more or {}).items()}
    )


def judged_by(**analysis: Any) -> dict[str, Any]:
    return {"analysis": analysis}


def seen(requests: int, verdict: Verdict = Verdict.CONTINUE) -> tuple[Judged, ...]:
    state = guards.State(canary_requests=requests, stable_requests=9 * requests, hash=judgement.ERRORS.hash)
    return (Judged("errors", verdict, "so far so good", canary_requests=requests, state=state),)


def with_guard(**guard: Any) -> dict[str, Any]:
    return {"guards": [{"name": "it"} | guard]}


SLOW = with_guard(latency={"quantile": 0.95, "maxSeconds": 0.2})
SAME = with_guard(disagreement={"max": "3%"})
RIGHT = with_guard(feedback={})

BY_GRPC = {"fraud-v4 requests canary grpc 13": 30, "fraud-v4 requests canary grpc 0": 170}
SLOWLY = {
    "fraud-v4 seconds canary v2 0.2": 120,
    "fraud-v4 seconds canary v2 +Inf": 200,
    "fraud-v3 seconds stable v2 0.2": 890,
    "fraud-v3 seconds stable v2 +Inf": 900,
}
UNLIKE = {
    "fraud-v3 shadow fraud-v4 agree": 100,
    "fraud-v3 shadow fraud-v4 disagree": 20,
    "fraud-v3 shadow fraud-v4 failed": 5,
}
NO_CAPACITY = {"fraud-v3 shadow fraud-v4 agree": 100, "fraud-v3 shadow fraud-v4 dropped": 900}
FAILING = {"fraud-v3 shadow fraud-v4 agree": 100, "fraud-v3 shadow fraud-v4 failed": 25}
WRONG = {
    "fraud-v3 feedback fraud-v4 canary wrong": 40,
    "fraud-v4 feedback fraud-v4 canary right": 60,
    "fraud-v3 feedback fraud-v3 stable wrong": 90,
    "fraud-v3 feedback fraud-v3 stable right": 810,
}
WRONG_IN_PAIRS = {
    "fraud-v3 pairs fraud-v4 canary_wrong": 20,
    "fraud-v3 pairs fraud-v4 stable_wrong": 1,
    "fraud-v3 feedback fraud-v4 canary right": 5,
    "fraud-v3 feedback fraud-v3 stable right": 5,
}

HARM = {
    "nine of a hundred fail, one at stable": (counted((200, 18)), {}, "18 of 200 (9.00%) failed, at stable 9 of 900 (1.00%): worse"),
    "half of twenty fail": (counted((20, 10), stable=(20, 1)), {}, "10 of 20 (50.00%) failed"),
    "it fails by gRPC only": (counted((200, 0), BY_GRPC), {}, "30 of 200 (15.00%) failed"),
    "it is slow": (counted((200, 0), SLOWLY), SLOW, "it: 80 of 200 (40.00%) took longer than 0.2 s"),
    "it disagrees": (counted((0, 0), UNLIKE), SAME, "it: 25 of 125 (20.00%) were answered unlike stable: worse"),
    "its shadow fails": (counted((0, 0), FAILING), SAME, "it: 25 of 125 (20.00%) were answered unlike stable: worse"),
    "callers say it is wrong": (counted((0, 0), WRONG), RIGHT, "it: 40 of 100 (40.00%) were wrong"),
    "pairs say that it is the wrong one": (counted((0, 0), WRONG_IN_PAIRS), RIGHT, "worse"),
}  # fmt: skip


@pytest.mark.parametrize(("sample", "analysis", "words"), HARM.values(), ids=HARM)
def test_harm_puts_it_back_at_once_and_says_why(sample: Sample, analysis: dict[str, Any], words: str) -> None:
    after = replace(QUARTER, ago=1, sample=sample, options=judged_by(**analysis)).after().state

    assert after.canary is None
    assert after.position.weight == 0
    assert [item.reason for item in after.rejected] == ["AnalysisFailed"]
    assert words in after.rejected[0].message
    assert after.history[0].result is Result.ROLLED_BACK
    assert words in after.history[0].message
    assert after.analysis[0].verdict is Verdict.HARM, "the evidence stays to be read"


HARMLESS = {
    "as many errors as at stable": (counted((200, 2)), {}),
    "not one request": (counted((0, 0)), {}),
    "two of nineteen fail, too few to say": (counted((19, 2), stable=(19, 1)), {}),
    "all fail, at stable, too": (counted((100, 90), stable=(900, 800)), {}),
    "errors of testers do not count": (counted((200, 0), {"router canary-match bad": 90}), {}),
    "gRPC errors of testers do not count": (counted((200, 0), {"fraud-v4 requests canary/match grpc 13": 90}), {}),
    "a caller's own mistakes by gRPC": (counted((200, 0), {"fraud-v4 requests canary grpc 3": 90}), {}),
    "its shadow is overloaded": (counted((200, 0), NO_CAPACITY), SAME),
    "as slow as stable": (counted((200, 0), (SLOWLY | {"fraud-v3 seconds stable v2 0.2": 540})), SLOW),
}  # fmt: skip


@pytest.mark.parametrize(("sample", "analysis"), HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_harm(sample: Sample, analysis: dict[str, Any]) -> None:
    after = replace(QUARTER, ago=1, sample=sample, options=judged_by(**analysis)).after().state

    assert after.canary
    assert after.position.weight == 25


HUNDRED, SAFE = judged_by(minRequests=100), judged_by(require="safe")
JUDGE = [{"setWeight": 25}, {"analysis": {"duration": "5m"}}]
LAST = [{"setWeight": 25}, {"pause": {"duration": 1}}]
TRAFFIC, ROUTERS, CLOCK, PERSON = WaitsFor.TRAFFIC, WaitsFor.ROUTERS, WaitsFor.CLOCK, WaitsFor.PERSON

GATE = {
    #                                          world                                                                 step  waits for
    "nobody has looked since the pause":   (replace(QUARTER, judged=False),                                             1, TRAFFIC),
    "looked at just now, no analysis":     (QUARTER,                                                                    2, ROUTERS),
    "too few requests":                    (replace(QUARTER, seen=seen(99), options=HUNDRED),                           1, TRAFFIC),
    "enough requests":                     (replace(QUARTER, seen=seen(100), options=HUNDRED),                          2, ROUTERS),
    "none at all":                         (replace(QUARTER, options=judged_by()),                                      1, TRAFFIC),
    "too few for too long":                (replace(QUARTER, seen=seen(99), ago=60 + 3600, options=HUNDRED),            1, PERSON),
    "too few for too long, go on then":    (replace(QUARTER, ago=3660, options=judged_by(onInconclusive="promote")),    2, ROUTERS),
    "a step analysis takes its time":      (replace(QUARTER, steps=JUDGE, seen=seen(999)),                              1, CLOCK),
    "and asks for requests by itself":     (replace(QUARTER, steps=JUDGE, ago=301),                                     1, TRAFFIC),
    "safe is only needed for all of it":   (replace(QUARTER, seen=seen(100), options=SAFE),                             2, ROUTERS),
    "not shown to be safe for all of it":  (replace(QUARTER, steps=LAST, seen=seen(100), options=SAFE),                 1, TRAFFIC),
    "safe for all of it":                  (replace(QUARTER, steps=LAST, seen=seen(900, Verdict.SAFE), options=SAFE),   2, ROUTERS),
}  # fmt: skip


@pytest.mark.parametrize(("given", "step", "waits_for"), GATE.values(), ids=GATE)
def test_whether_it_gets_more(given: A, step: int, waits_for: WaitsFor) -> None:
    after = given.after()

    assert after.state.position.index == step
    assert after.obstacle
    assert after.obstacle.waits_for is waits_for


def test_an_overloaded_shadow_is_no_evidence_at_all() -> None:
    sample = counted((300, 0), {"fraud-v3 shadow fraud-v4 dropped": 900})
    after = replace(QUARTER, sample=sample, measured=Measured(weight=25), options=judged_by(**SAME)).after()

    assert after.state.analysis[0].verdict is Verdict.NO_TRAFFIC
    assert after.obstacle
    assert after.obstacle.message == "it: 0 of 100 requests of the new version have been judged"


def test_inconclusive_may_mean_back() -> None:
    given = replace(QUARTER, seen=seen(9), ago=3660, options=judged_by(onInconclusive="rollback"))

    assert [item.reason for item in given.after().state.rejected] == ["Inconclusive"]


def test_who_says_promote_gets_it_without_a_verdict_and_is_told_so() -> None:
    given = replace(QUARTER, steps=LAST, ago=3660, options=judged_by(onInconclusive="promote"))
    after = given.after().state
    unseen = "errors: 0 of 100 requests of the new version have been judged"
    assert (after.position.weight, after.measured.unjudged) == (100, unseen)

    all_hold_it = replace(given, split={CANARY_REVISION: 100}, sample=None).world
    [outcome] = rollout.advance(after, CANARY, all_hold_it).state.history
    assert outcome.result is Result.PROMOTED
    assert (outcome.reason, outcome.message) == ("Inconclusive", f"promoted without a verdict: {unseen}")
    assert [(event.reason, event.warning) for event in events._of_roles(given.state, after)] == [
        ("WeightSet", False),
        ("Inconclusive", True),
    ]
    assert events._of_outcome(outcome).warning


def test_what_was_judged_is_promoted_without_such_words() -> None:
    given = replace(QUARTER, steps=LAST, ago=3660, seen=seen(100), options=judged_by(onInconclusive="promote"))
    after = rollout.advance(given.after().state, CANARY, replace(given, split={CANARY_REVISION: 100}).world).state

    assert (after.history[0].result, after.history[0].message) == (Result.PROMOTED, "")
    assert not events._of_outcome(after.history[0]).warning


def test_somebody_may_go_on_without_a_verdict() -> None:
    given = replace(QUARTER, seen=seen(9), options=judged_by())
    told = commands.obey("promote@fraud-v4/1", given.state, given.world, wanted="fraud-v4", kept=())

    assert told.command
    assert not told.command.refused
    assert rollout.advance(told, CANARY, given.world).state.position.weight == 50


def test_a_sample_is_heeded_once() -> None:
    given = replace(QUARTER, sample=counted((200, 2)), measured=Measured(at=NOW - timedelta(seconds=15), weight=25))
    once = given.after().state
    twice = rollout.advance(once, CANARY, given.world).state

    assert once.analysis[0].canary_requests == 200
    assert twice.analysis == once.analysis


def test_requests_that_come_otherwise_than_the_weight_says_hold_everything() -> None:
    given = replace(QUARTER, measured=Measured(at=NOW, weight=25, canary_requests=600, requests=1000))
    after = given.after()

    assert after.obstacle
    assert after.obstacle.waits_for is WaitsFor.PERSON
    assert "600 of 1,000 requests (60.0%) went to fraud-v4 instead of 25 %" in after.obstacle.message
    assert after.state.position.weight == 25


ON_A_GATEWAY = {"gateway": {"parentRefs": [{"name": "public"}], "hostnames": ["fraud.example.com"]}}


@pytest.mark.parametrize(("is_whole", "held"), [(True, True), (False, False)])
def test_what_a_gateway_divides_is_counted_by_the_pods_while_none_comes_or_goes(is_whole: bool, held: bool) -> None:
    counts = {"fraud-v4 requests gateway v2 200": 600, "fraud-v3 requests gateway grpc 0": 400}
    testers = {"fraud-v3 requests gateway/match v2 200": 9000}
    sample = replace(counted((0, 0), counts | testers, stable=(0, 0)), is_whole=is_whole)
    given = replace(QUARTER, router="gateway", traffic=ON_A_GATEWAY, sample=sample, measured=Measured(weight=25))
    found = given.after()

    assert ("600 of 1,000 requests" in found.obstacle.message if found.obstacle else False) is held


STICKY = {"stickiness": {"header": "x-user-id"}}


def test_a_few_callers_with_sticky_versions_may_come_in_any_ratio() -> None:
    measured = Measured(at=NOW, weight=25, canary_requests=600, requests=1000)
    given = replace(QUARTER, measured=measured, traffic=STICKY)

    assert given.after().state.position.weight == 50


def test_stables_latency_is_measured_before_the_first_weight() -> None:
    relative = {"guards": [{"name": "slow", "latency": {"quantile": 0.9}}], "baselineSeconds": 300}
    before = A(ready=both(3), router="haproxy", options=judged_by(**relative))
    waiting = before.after()
    assert waiting.obstacle
    assert (waiting.obstacle.waits_for, waiting.obstacle.until) == (WaitsFor.CLOCK, NOW + timedelta(seconds=300))

    edges = {"0.1": 500, "0.2": 950, "0.5": 1000, "+Inf": 1000}
    stable = {f"fraud-v3 seconds stable v2 {edge}": count for edge, count in edges.items()}
    measured = replace(before, sample=counted((0, 0), stable), measured=Measured()).after().state.measured
    assert measured.latencies == edges

    slow = {"fraud-v4 seconds canary v2 0.2": 60, "fraud-v4 seconds canary v2 +Inf": 200}
    sample = counted((200, 0), {name: value * 0.9 for name, value in stable.items()} | slow)
    judged = replace(
        QUARTER,
        ago=1,
        sample=sample,
        options=judged_by(**relative),
        measured=Measured(weight=25, latencies=measured.latencies),
    )
    assert "140 of 200 (70.00%) took longer than 0.2 s" in judged.after().state.rejected[0].message


def test_without_a_latency_of_stable_the_guard_says_that_it_can_not_judge() -> None:
    relative = {"guards": [{"name": "slow", "latency": {"quantile": 0.9}}]}
    after = replace(QUARTER, sample=counted((300, 0)), options=judged_by(**relative)).after()

    assert after.state.analysis[0].verdict is Verdict.NO_TRAFFIC
    assert after.obstacle
    assert after.obstacle.waits_for is WaitsFor.TRAFFIC


QUERY = {"guards": [{"name": "custom", "prometheus": {"query": "errors{revision='{{canary}}'}", "max": 0.1}}]}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.2, 0.2], Verdict.CONTINUE),
        ([0.2, 0.2, 0.05, 0.2], Verdict.CONTINUE),
        ([0.2, 0.2, 0.2], Verdict.HARM),
        ([0.05], Verdict.SAFE),
        ([0.05, 0.2], Verdict.CONTINUE),
        ([0.2, 0.05], Verdict.CONTINUE),
        ([0.2, *19 * [0.05]], Verdict.CONTINUE),
        ([0.2, *20 * [0.05]], Verdict.SAFE),
        ([0.2, *10 * [0.05], "Prometheus does not answer", *10 * [0.05]], Verdict.SAFE),
        (["Prometheus does not answer"], Verdict.NO_TRAFFIC),
        ([*20 * [0.05], "Prometheus does not answer"], Verdict.NO_TRAFFIC),
        ([0.2, 0.2, "Prometheus does not answer", 0.2], Verdict.HARM),
    ],
)
def test_a_query_is_harm_three_times_out_of_bounds_and_safe_when_it_was_not_for_long(
    values: list[float | str], verdict: Verdict
) -> None:
    """With an operator that is restarted after each look: all that is known is in the status."""
    state = QUARTER.state
    for number, value in enumerate(values):
        at = NOW + timedelta(seconds=15 * number)
        sample = Sample(at, at + timedelta(seconds=15), {}, {"custom": value})
        given = replace(QUARTER, sample=sample, options=judged_by(**QUERY, timeoutSeconds=86400))
        found = rollout.advance(state, CANARY, given.world).state.analysis
        state = state.changed(analysis=msgspec.convert(msgspec.to_builtins(found), tuple[Judged, ...]))

    assert state.analysis[0].verdict is verdict


@pytest.mark.parametrize("requests", [0, 100])
def test_a_query_that_has_a_number_no_more_gives_the_canary_no_more(requests: int) -> None:
    options = judged_by(**QUERY, minRequests=requests)
    [guard] = replace(QUARTER, options=options).world.spec.rollout.judged_by.guards
    state = guards.State(canary_requests=500, within_bounds=500, hash=guard.hash)
    before = (Judged("custom", Verdict.SAFE, "0.05 (max 0.1)", canary_requests=500, state=state),)
    looks = {
        value: replace(
            QUARTER,
            sample=replace(counted((300, 0)), queried={"custom": value}),
            measured=Measured(weight=25),
            options=options,
            seen=before,
        ).after()
        for value in ("the query gives 0 series, and not one", 0.05)
    }
    without, with_number = looks.values()

    assert without.obstacle
    assert without.obstacle.waits_for is TRAFFIC
    assert without.obstacle.message == "custom: no number: the query gives 0 series, and not one"
    assert with_number.state.position.weight == 50


@pytest.mark.parametrize(("number", "waits_for", "weight"), [(0.2, TRAFFIC, 25), (0.05, ROUTERS, 50)])
def test_a_query_that_is_out_of_bounds_gives_the_canary_no_more_though_it_is_no_harm_yet(
    number: float, waits_for: WaitsFor, weight: int
) -> None:
    sample = replace(counted((300, 0)), queried={"custom": number})
    after = replace(QUARTER, sample=sample, measured=Measured(weight=25), options=judged_by(**QUERY)).after()

    assert after.obstacle
    assert after.obstacle.waits_for is waits_for
    assert after.state.position.weight == weight


def test_what_is_to_be_counted() -> None:
    given = replace(
        QUARTER, measured=Measured(at=NOW, since=NOW - timedelta(minutes=1), weight=25), options=judged_by(**QUERY)
    )
    measure = judging.measure(given.state, None, given.world)

    assert measure
    assert measure.revisions == (STABLE_REVISION, CANARY_REVISION)
    assert measure.interval == timedelta(seconds=15)
    assert not measure.at_once
    assert not measure.is_cut
    assert measure.queries == {"custom": "errors{revision='fraud-v4'}"}


@pytest.mark.parametrize(
    ("measured", "is_cut"),
    [
        (Measured(weight=0), True),
        (Measured(weight=25, since=NOW - timedelta(seconds=9)), True),
        (Measured(weight=25, since=NOW - timedelta(seconds=10)), False),
        (Measured(weight=5, since=NOW - timedelta(seconds=99)), True),
    ],
)
def test_nothing_is_counted_while_routers_change_or_the_canary_warms_up(measured: Measured, is_cut: bool) -> None:
    given = replace(QUARTER, measured=measured)
    found = judging.measure(given.state, None, given.world)

    assert found
    assert found.is_cut is is_cut


@pytest.mark.parametrize(("ago", "is_cut"), [(9, True), (10, False)])
def test_nothing_is_counted_until_a_gateway_acts_by_its_weight(ago: int, is_cut: bool) -> None:
    weight_at = NOW - timedelta(seconds=ago)
    measured = Measured(weight=25, weight_at=weight_at, since=NOW - timedelta(minutes=9))
    by_router = replace(QUARTER, measured=measured)
    by_gateway = replace(by_router, router="gateway", traffic=ON_A_GATEWAY)
    found = [judging.measure(given.state, None, given.world) for given in (by_router, by_gateway)]

    assert [item.is_cut for item in found if item] == [False, is_cut]


def test_the_time_of_a_weight_is_when_all_were_seen_to_hold_it() -> None:
    earlier = NOW - timedelta(minutes=9)
    other = replace(QUARTER, measured=Measured(weight=5, weight_at=earlier, since=earlier)).after().state.measured
    same = replace(QUARTER, measured=Measured(weight=25, weight_at=earlier, since=earlier)).after().state.measured

    assert (other.weight, other.weight_at, other.since) == (25, NOW, earlier)
    assert (same.weight, same.weight_at) == (25, earlier)


@pytest.mark.parametrize(
    "options", [{"strategy": "blueGreen", "steps": []}, {"strategy": "recreate", "steps": []}, {"steps": []}]
)
def test_versions_that_never_answer_at_the_same_time_are_not_compared(options: dict[str, Any]) -> None:
    assert judging.measure(QUARTER.state, None, replace(QUARTER, options=options).world) is None
