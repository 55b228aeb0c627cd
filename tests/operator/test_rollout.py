"""The rollout's table: how a world looks and what one pass makes of it, without a cluster and in milliseconds.

A world is a stable version 3 and, unless said otherwise, a canary of version 4 with the steps 25 %, a pause of a minute, 50 %, a pause
that somebody has to end. Read a row as: given these pods and routers, at this step, the canary has this weight and waits for that.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from a_rollout import CANARY, NEXT, NOW, STABLE, STEPS, A, both, split
from moorage_operator.core import commands, rejections, rollout, steps
from moorage_operator.core.header_routes import Route
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.rollout import Wanted
from moorage_operator.core.routing import Match
from moorage_operator.core.state import Result, Role, State
from moorage_operator.core.waiting import WaitsFor

PODS, ROUTERS, CLOCK, PERSON = WaitsFor.PODS, WaitsFor.ROUTERS, WaitsFor.CLOCK, WaitsFor.PERSON

ON_ITS_WAY = {
    #                                     world                                                  step weight waits for
    "no pod yet":                        (A(),                                                      0,  0, PODS),
    "its pod is not ready":              (A(ready=both(0)),                                         0,  0, PODS),
    "routers do not know the pod":       (A(ready=both(1), known=both(0)),                          0,  0, ROUTERS),
    "ready and known":                   (A(ready=both(1)),                                         0, 25, ROUTERS),
    "routers hold the weight":           (A(ready=both(1), weight=25, split=split(25)),             1, 25, CLOCK),
    "routers do not agree":              (A(ready=both(1), weight=25, split=None),                  0, 25, ROUTERS),
    "routers hold another weight":       (A(ready=both(1), weight=25, split=split(50)),             0, 25, ROUTERS),
    "the pause is not over":             (A(ready=both(1), at=1, weight=25, split=split(25), ago=59), 1, 25, CLOCK),
    "the pause is over, pods are few":   (A(ready=both(1), at=1, weight=25, split=split(25), ago=60), 2, 25, PODS),
    "the pause is over, pods are there": (A(ready=both(3), at=1, weight=25, split=split(25), ago=60), 2, 50, ROUTERS),
    "half is held":                      (A(ready=both(3), at=2, weight=50, split=split(50)),       3, 50, PERSON),
    "somebody has to promote":           (A(ready=both(3), at=3, weight=50, split=split(50), ago=10**6), 3, 50, PERSON),
    "after the last step":               (A(ready=both(3), at=4, weight=50, split=split(50)),       4, 100, ROUTERS),
    "paused by a command":               (A(ready=both(1), paused=True),                            0,  0, PERSON),
    "two of five pods are never one":    (A(ready=both(1, 5), replicas=5, router="haproxy"),        0,  0, PODS),
    "two are enough for a quarter":      (A(ready=both(2, 5), replicas=5, router="haproxy"),        0, 25, ROUTERS),
    "less, and stable has no pod":      (A(ready=both(3, 0), weight=50, split=split(50)),           0, 50, PODS),
    "less, and stable has pods":        (A(ready=both(3), weight=50, split=split(50)),              0, 25, ROUTERS),
    "its pod left, the pause goes on":   (A(ready=both(1), at=1, weight=25, split=split(25), ago=700), 2, 25, PODS),
}  # fmt: skip


@pytest.mark.parametrize(("given", "step", "weight", "waits_for"), ON_ITS_WAY.values(), ids=ON_ITS_WAY)
def test_a_canary_on_its_way(given: A, step: int, weight: int, waits_for: WaitsFor) -> None:
    after = given.after()
    assert after.state.canary
    assert (after.state.position.index, after.state.position.weight) == (step, weight)
    assert after.obstacle
    assert after.obstacle.waits_for is waits_for


def test_with_all_of_the_requests_at_all_routers_it_is_promoted() -> None:
    after = A(ready=both(3), at=4, weight=100, split={"fraud-v4": 100}).after().state
    assert after.stable
    assert after.stable.revision == "fraud-v4"
    assert after.canary is None
    assert [(role.revision, role.scale_down_at) for role in after.leaving] == [
        ("fraud-v3", NOW + timedelta(seconds=30))
    ]
    assert [outcome.result for outcome in after.history] == [Result.PROMOTED]


ENDED = {
    #                                     world                                                              why
    "pods take too long":                (A(ready=both(0), ago=600),                                        "ProgressDeadlineExceeded"),
    "routers take too long":             (A(ready=both(1), weight=25, split=split(0), ago=600),             "ProgressDeadlineExceeded"),
    "routers do not agree for too long": (A(ready=both(1), weight=25, split=None, ago=600),                 "ProgressDeadlineExceeded"),
    "no pod is ready any more":          (A(ready=both(0), at=1, weight=25, split=split(25)),               "CanaryLost"),
    "none is there any more":            (A(ready={"fraud-v3": 3}, at=3, weight=50, split=split(50)),       "CanaryLost"),
    "it crashes again and again":        (A(ready=both(1), at=1, weight=25, split=split(25), crashing="fraud-v4"), "CanaryCrashes"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "why"), ENDED.values(), ids=ENDED)
def test_a_canary_that_is_put_back(given: A, why: str) -> None:
    after = given.after().state
    assert after.canary is None
    assert after.stable
    assert after.stable.revision == "fraud-v3"
    assert after.position.weight == 0
    assert [item.reason for item in after.rejected] == [why]
    assert [item.revision for item in after.leaving] == ["fraud-v4"]
    assert after.history[0].result is Result.ROLLED_BACK
    assert not rollout.advance(after, CANARY, given.world).state.canary, "it is tried again"


def test_crashes_before_the_first_request_only_delay_it() -> None:
    after = A(ready=both(1), known=both(0), crashing="fraud-v4").after()
    assert after.state.canary


def test_a_rejected_version_is_forgotten_when_another_one_is_wanted() -> None:
    rejected = (rejections.of(Role("fraud-v4", "4"), Problem(Reason.CANARY_LOST, ""), A().world.spec),)
    after = A(canary="", rejected=rejected, wants=NEXT).after().state
    assert not after.rejected
    assert after.canary
    assert after.canary.revision == "fraud-v5"


def test_a_newer_version_begins_when_no_router_knows_the_one_before() -> None:
    given = A(ready=both(1), at=1, weight=25, split=split(25), wants=NEXT)
    after = given.after().state
    assert after.canary is None
    assert after.history[0].result is Result.SUPERSEDED
    assert [role.revision for role in after.leaving] == ["fraud-v4"], (
        "its pods have to answer what the routers still send"
    )
    later = rollout.advance(after, NEXT, replace(given, split={"fraud-v3": 100}).world).state
    assert later.canary
    assert later.canary.revision == "fraud-v5"
    assert not later.leaving


def test_a_newer_version_begins_at_once_when_the_one_before_had_no_requests() -> None:
    after = A(ready=both(0), wants=NEXT).after().state
    assert after.canary
    assert after.canary.revision == "fraud-v5"
    assert not after.leaving


ALONE = A(ready=both(1, 0), replicas=2, weight=100, split=None, steps=[], options={"strategy": "recreate"})
"""Stable's pods have ended for those of the canary, which has all requests; not all routers are known to hold that."""


@pytest.mark.parametrize("given", [ALONE, replace(ALONE, ago=10**6)], ids=["in time", "beyond its time"])
def test_what_answers_alone_is_stable_with_no_more_ado(given: A) -> None:
    after = given.after().state
    assert after.stable == Role("fraud-v4", "4", since=NOW)
    assert after.history[0].result is Result.PROMOTED


@pytest.mark.parametrize("wanted", [NEXT, STABLE], ids=["a newer one", "the one before"])
def test_another_version_takes_nothing_from_what_answers_alone(wanted: Wanted) -> None:
    after = replace(ALONE, wants=wanted, split={"fraud-v4": 100}).after().state
    assert after.stable
    assert after.stable.revision == "fraud-v4"
    assert after.canary
    assert after.canary.revision == wanted.revision


def test_what_can_not_answer_alone_leaves_for_another_version() -> None:
    after = replace(ALONE, ready=both(0, 0), wants=NEXT).after().state
    assert after.stable
    assert after.stable.revision == "fraud-v3"
    assert after.history[0].result is Result.SUPERSEDED


def test_back_to_the_stable_version_ends_the_rollout() -> None:
    after = A(ready=both(1), at=1, weight=25, split=split(25), wants=STABLE).after().state
    assert after.canary is None
    assert not after.rejected
    assert after.position.weight == 0


def test_a_revision_that_answered_until_just_now_needs_no_steps_to_come_back() -> None:
    left = Role("fraud-v4", "4", scale_down_at=NOW + timedelta(seconds=9), is_back=True)
    given = A(canary="", leaving=(left,), ready=both(3))
    begun = given.after().state
    assert not begun.leaving
    after = rollout.advance(begun, CANARY, given.world)
    assert after.state.position.weight == 100


def test_pods_of_a_leaving_revision_stay_as_long_as_a_router_sends_it_anything() -> None:
    left = Role("fraud-v2", "2", scale_down_at=NOW - timedelta(seconds=9))
    assert A(canary="", wants=STABLE, leaving=(left,)).after().state.leaving == ()
    held = A(canary="", wants=STABLE, leaving=(left,), split={"fraud-v2": 50, "fraud-v3": 50}).after().state
    assert held.leaving == (left,)


def test_changed_steps_begin_anew_and_keep_the_weight() -> None:
    given = A(ready=both(3), at=3, weight=50, split=split(50))
    changed = replace(given, steps=[{"setWeight": 75}, {"pause": {}}])
    after = rollout.advance(given.state, CANARY, changed.world)
    assert (after.state.position.index, after.state.position.weight) == (0, 50)
    assert after.obstacle
    assert after.obstacle.waits_for is PODS


def test_an_unknown_wanted_version_stops_nothing() -> None:
    after = A(ready=both(1), wants=None).after().state
    assert after.position.weight == 25


def test_a_canary_is_written_down_before_anything_moves() -> None:
    after = A(canary="", ready=both(3)).after().state
    assert after.canary
    assert after.position.weight == 0


def test_the_first_revision_needs_no_steps() -> None:
    given = A(ready={"fraud-v4": 3}, split={"fraud-v4": 100})
    state = steps.begin(State(canary=Role("fraud-v4", "4")), given.world)
    after = rollout.advance(state, CANARY, given.world).state
    assert after.stable
    assert after.stable.revision == "fraud-v4"


# Header routes, and shadows.

BETA = Route("testers", "beta", header="x-group")
TO_TESTERS = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}}
ROUTED = [TO_TESTERS, {"pause": {}}, {"setHeaderRoute": {"name": "testers"}}, {"setWeight": 0}, {"pause": {}}]
HELD = frozenset({Match("fraud-v4", "beta", header="x-group")})
OTHER = frozenset({Match("fraud-v4", "alpha", header="x-group")})


def routed(**more: Any) -> A:
    given: dict[str, Any] = {"steps": ROUTED, "router": "haproxy", "ready": both(2)}
    return A(**given | more)


BY_HEADER = {
    #                                     world                                                       step routes   waits for
    "its pods are few":                  (routed(ready=both(1)),                                       0, (),      PODS),
    "routers do not know the pods":      (routed(known=both(1)),                                       0, (),      ROUTERS),
    "pods are ready and known":          (routed(),                                                    0, (BETA,), ROUTERS),
    "one router does not hold it":       (routed(routes=(BETA,), matches=None),                        0, (BETA,), ROUTERS),
    "another value is held":             (routed(routes=(BETA,), matches=OTHER),                       0, (BETA,), ROUTERS),
    "all hold it":                       (routed(routes=(BETA,), matches=HELD),                        1, (BETA,), PERSON),
    "a pod is needed at any scale":      (routed(ready=both(0), scale=0),                              0, (),      PODS),
    "it is taken away":                  (routed(at=2, routes=(BETA,), matches=HELD),                  2, (),      ROUTERS),
    "it is away":                        (routed(at=2),                                                4, (),      PERSON),
}  # fmt: skip


@pytest.mark.parametrize(("given", "step", "routes", "waits_for"), BY_HEADER.values(), ids=BY_HEADER)
def test_a_header_route(given: A, step: int, routes: tuple[Route, ...], waits_for: WaitsFor) -> None:
    after = given.after()
    assert (after.state.position.index, after.state.position.routes) == (step, routes)
    assert after.state.position.weight == 0
    assert after.obstacle
    assert after.obstacle.waits_for is waits_for


def test_a_route_replaces_the_one_of_its_name_and_stays_beside_others() -> None:
    by_cookie = {"setHeaderRoute": {"name": "staff", "match": {"cookie": "staff", "value": "yes"}}}
    staff = Route("staff", "yes", cookie="staff")
    old = Route("testers", "alpha", header="x-group")
    after = routed(routes=(old, staff), matches=HELD).after().state
    assert after.position.routes == (staff, BETA)
    assert routed(steps=[by_cookie, {"pause": {}}], routes=(BETA,)).after().state.position.routes == (BETA, staff)


ENDS_WITH = {
    "promotion": routed(at=5, weight=100, ready=both(3), split={"fraud-v4": 100}),
    "another version": routed(at=1, wants=NEXT),
    "the stable version": routed(at=1, wants=STABLE),
    "lost pods": routed(at=1, ready=both(0)),
    "crashes": routed(at=1, crashing="fraud-v4"),
}


@pytest.mark.parametrize("given", ENDS_WITH.values(), ids=ENDS_WITH)
def test_routes_and_shadows_end_with_the_rollout(given: A) -> None:
    after = replace(given, routes=(BETA,), shadow=10, options={"shadow": {"percent": 10}}).after().state
    assert (after.position.weight, after.position.routes, after.position.shadow) == (0, (), 0)
    assert not after.canary or after.canary.revision == "fraud-v5"


def test_the_next_version_begins_when_no_router_sends_testers_to_the_one_before() -> None:
    given = routed(at=1, routes=(BETA,), matches=HELD, wants=NEXT)
    after = given.after().state
    assert [role.revision for role in after.leaving] == ["fraud-v4"]
    assert not rollout.advance(after, NEXT, given.world).state.canary
    later = rollout.advance(after, NEXT, replace(given, matches=frozenset()).world).state
    assert later.canary
    assert not later.leaving


def test_of_routes_only_those_stay_that_changed_steps_set_as_well() -> None:
    staff = Route("staff", "yes", cookie="staff")
    given = routed(at=1, routes=(BETA, staff), matches=HELD)
    changed = replace(given, steps=[{"setWeight": 0}, {"pause": {}}, TO_TESTERS])
    assert rollout.advance(given.state, CANARY, changed.world).state.position.routes == (BETA,)


def test_a_weight_needs_a_pod_at_any_scale() -> None:
    after = A(steps=[{"setWeight": 25}], router="haproxy", ready=both(0), scale=0).after()
    assert after.obstacle
    assert after.obstacle.waits_for is PODS


SHADOWED = {
    #                                     world                                                                    percent
    "its pods are not ready":            (routed(ready=both(0)),                                                    0),
    "not all of its pods are ready":     (routed(ready=both(1)),                                                    0),
    "all of its pods are ready":         (routed(),                                                                 10),
    "routers know none of them":         (routed(known={"fraud-v3": 3}),                                            10),
    "one is left":                       (routed(ready=both(1), shadow=10),                                         10),
    "none is left":                      (routed(ready=both(0), shadow=10),                                         0),
    "the share is another by now":       (routed(ready=both(1), shadow=20),                                         10),
    "it has a weight":                   (routed(steps=STEPS, at=3, weight=50, ready=both(3), split=split(50)),     10),
    "pods share the requests":           (A(ready=both(1)),                                                         0),
    "there is no rollout":               (routed(canary="", wants=STABLE),                                          0),
}  # fmt: skip


@pytest.mark.parametrize(("given", "percent"), SHADOWED.values(), ids=SHADOWED)
def test_requests_are_copied_while_a_canary_has_pods(given: A, percent: int) -> None:
    without = given.after()
    assert without.state.position.shadow == 0
    after = replace(given, options={"shadow": {"percent": 10}}).after()
    assert after.state.position.shadow == percent
    assert after.obstacle == without.obstacle, "a shadow holds nothing up"


BLUE_GREEN = {"strategy": "blueGreen"}
BY_HAND = BLUE_GREEN | {"blueGreen": {"autoPromote": False}}
OTHERS = {
    "blue-green waits for all pods": (A(steps=[], options=BLUE_GREEN, ready=both(2)), 0, PODS),
    "blue-green takes all at once": (A(steps=[], options=BLUE_GREEN, ready=both(3)), 100, ROUTERS),
    "blue-green by hand waits for all pods": (A(steps=[], options=BY_HAND, ready=both(2)), 0, PODS),
    "blue-green by hand waits for somebody": (A(steps=[], options=BY_HAND, ready=both(3)), 0, PERSON),
    "without steps it waits for all pods": (A(steps=[], ready=both(2)), 0, PODS),
    "without steps it takes all at once": (A(steps=[], ready=both(3)), 100, ROUTERS),
}


@pytest.mark.parametrize(("given", "weight", "waits_for"), OTHERS.values(), ids=OTHERS)
def test_other_strategies(given: A, weight: int, waits_for: WaitsFor) -> None:
    after = given.after()
    assert after.state.position.weight == weight
    assert after.obstacle
    assert after.obstacle.waits_for is waits_for


# Commands.


def obeyed(given: A, text: str, wanted: str = "fraud-v4") -> State:
    return commands.obey(text, given.state, given.world, wanted=wanted, kept={"fraud-v2", "fraud-v3", "fraud-v4"})


AT_A_PAUSE = A(ready=both(3), at=3, weight=50, split=split(50))


def test_promote_goes_on_from_a_pause() -> None:
    assert obeyed(AT_A_PAUSE, "promote@fraud-v4").position.index == 4
    assert obeyed(AT_A_PAUSE, "promote@fraud-v4/3").position.index == 4


def test_a_command_is_obeyed_once() -> None:
    state = obeyed(AT_A_PAUSE, "promote@fraud-v4/3")
    again = commands.obey("promote@fraud-v4/3", state, AT_A_PAUSE.world, wanted="fraud-v4", kept=())
    assert again is state
    other = commands.obey("promote@fraud-v4/3.2", state, AT_A_PAUSE.world, wanted="fraud-v4", kept=())
    assert other.command
    assert "is at step 4, not at step 3" in other.command.refused


REFUSED = {
    "of another rollout": (AT_A_PAUSE, "promote@fraud-v9", "the rollout is that of fraud-v4"),
    "of another step": (AT_A_PAUSE, "promote@fraud-v4/1", "is at step 3, not at step 1"),
    "not at a pause": (A(), "promote@fraud-v4", "is not at a pause: promoteFull@fraud-v4 skips all steps"),
    "without a rollout": (A(canary=""), "abort@fraud-v4", "no rollout is under way"),
    "misspelt": (AT_A_PAUSE, "promot@fraud-v4", "write one of promote@REVISION, promoteFull@REVISION"),
    "without a revision": (AT_A_PAUSE, "promote", "write one of promote@REVISION"),
    "resumed without a pause": (AT_A_PAUSE, "resume@fraud-v4", "is not paused by a command"),
    "retry of what was not rejected": (AT_A_PAUSE, "retry@fraud-v4", "is not rejected"),
    "undo to what is not kept": (AT_A_PAUSE, "undo@fraud-v1", "fraud-v1 is not kept; there are fraud-v2"),
}


@pytest.mark.parametrize(("given", "text", "why"), REFUSED.values(), ids=REFUSED)
def test_a_command_that_means_nothing_is_refused_with_a_reason(given: A, text: str, why: str) -> None:
    after = obeyed(given, text)
    assert after.command
    assert why in after.command.refused
    assert after.changed(command=None) == given.state


def test_promote_full_skips_all_steps_but_not_the_pods() -> None:
    given = A(ready=both(1), at=1, weight=25, split=split(25))
    state = obeyed(given, "promoteFull@fraud-v4")
    after = rollout.advance(state, CANARY, given.world)
    assert after.state.position.weight == 25
    assert after.obstacle
    assert after.obstacle.waits_for is PODS
    after = rollout.advance(state, CANARY, replace(given, ready=both(3)).world)
    assert after.state.position.weight == 100


@pytest.mark.parametrize(
    ("text", "index"), [("promote@fraud-v4", 3), ("promote@fraud-v4/3", 3), ("promoteFull@fraud-v4", 1)]
)
def test_a_command_that_comes_with_changed_steps_is_about_the_new_ones(text: str, index: int) -> None:
    world = replace(AT_A_PAUSE, steps=[{"setWeight": 75}]).world
    after = commands.obey(text, AT_A_PAUSE.state, world, wanted="fraud-v4", kept=())
    assert after.position.index == index
    assert after.command
    assert bool(after.command.refused) == (index == 3)


def test_abort_puts_it_back_until_somebody_says_retry() -> None:
    given = A(ready=both(1), at=1, weight=25, split=split(25))
    state = obeyed(given, "abort@fraud-v4")
    assert state.canary is None
    assert state.history[0].result is Result.ABORTED
    alone = replace(given, split={"fraud-v3": 100}).world
    assert rollout.advance(state, CANARY, alone).state.canary is None
    state = commands.obey("retry@fraud-v4", state, alone, wanted="fraud-v4", kept=())
    assert rollout.advance(state, CANARY, alone).state.canary


def test_pause_and_resume() -> None:
    state = obeyed(A(ready=both(1)), "pause@fraud-v4")
    after = rollout.advance(state, CANARY, A(ready=both(1)).world)
    assert after.state.position.weight == 0
    assert after.obstacle
    assert "resume@fraud-v4" in after.obstacle.message
    state = commands.obey("resume@fraud-v4", state, A().world, wanted="fraud-v4", kept=())
    assert rollout.advance(state, CANARY, A(ready=both(1)).world).state.position.weight == 25


def test_undo_holds_as_long_as_the_same_revision_is_wanted() -> None:
    state = obeyed(A(canary=""), "undo@fraud-v2", wanted="fraud-v3")
    assert state.undo
    assert (state.undo.revision, state.undo.instead_of) == ("fraud-v2", "fraud-v3")
