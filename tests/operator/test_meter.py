"""What is counted between two looks: by processes that end, are silent, or were not there before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from moorage_operator import meter
from moorage_operator.core import counted
from moorage_operator.core.actions import Measure
from moorage_operator.core.counted import Look, Reading, Sample
from moorage_operator.core.kinds import EVENT
from world import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPOSITION = """\
# HELP moorage_requests_total Prediction requests answered
# TYPE moorage_requests_total counter
moorage_requests_total{arm="canary",code="200",model="m",protocol="v2",revision="fraud-v4",version="4"} 12.0
moorage_requests_total{arm="canary",code="500",model="a \\"quoted\\" name",protocol="v2",revision="fraud-v4",version="4"} 3.0
moorage_requests_created{arm="canary",code="500",model="m",protocol="v2",revision="fraud-v4",version="4"} 1.7e+09
moorage_request_seconds_bucket{arm="canary",le="0.2",model="m",protocol="v2",revision="fraud-v4",version="4"} 11.0
moorage_request_seconds_sum{arm="canary",model="m",protocol="v2",revision="fraud-v4",version="4"} 1.1
moorage_shadow_total{outcome="agree",revision="fraud-v4"} 7.0
moorage_feedback_total{arm="canary",revision="fraud-v4",verdict="wrong"} 2.0
moorage_in_flight_requests{model="m",revision="fraud-v4",version="4"} 4.0
moorage_requests_total{arm="canary",code="200"} NaN
moorage_requests_total{arm="canary",code="200"} +Inf
moorage_requests_total{arm="canary",code="200"} 1e999
moorage_requests_total{arm="canary",code="200"} 1e+30
moorage_requests_total{arm="canary",code="200"} 1.2.3
moorage_requests_total nonsense
process_start_time_seconds 1.76e+09
"""


def test_of_a_runtime_only_the_counters_that_matter_are_read() -> None:
    found = counted.of_runtime(EXPOSITION)

    assert found == Reading(
        "1.76e+09",
        {
            ("requests", "canary", "v2", "200"): 12,
            ("requests", "canary", "v2", "500"): 3,
            ("seconds", "canary", "v2", "0.2"): 11,
            ("shadow", "fraud-v4", "agree"): 7,
            ("feedback", "fraud-v4", "canary", "wrong"): 2,
        },
        in_flight=4,
    )


def test_what_a_hostile_pod_writes_is_bounded() -> None:
    lines = [f'moorage_requests_total{{arm="{number}",protocol="v2",code="200"}} 1' for number in range(9000)]

    assert len(counted.of_runtime("\n".join(lines)).counters) == counted.MOST_SERIES


def reading(count: float, life: str = "first") -> Reading:
    return Reading(life, {("router", "canary", "requests"): count})


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": reading(10)}, {"a": reading(15)}, 5),
        ({"a": reading(10), "b": reading(1)}, {"a": reading(15), "b": reading(3)}, 7),
        ({"a": reading(10)}, {"a": reading(4_000_000, "second")}, 0),
        ({"a": reading(10)}, {"a": reading(15), "new": reading(99)}, 5),
        ({"a": reading(10), "gone": reading(5)}, {"a": reading(15)}, 5),
        ({"a": reading(10)}, {"a": reading(4)}, 0),
    ],
    ids=["grown", "two", "another agent", "not there before", "gone", "fallen without a reason"],
)
def test_what_happened_between_two_looks(before: dict[str, Reading], after: dict[str, Reading], found: int) -> None:
    sample = counted.between(Look(NOW, before), Look(NOW + timedelta(seconds=15), after))

    assert sample.count("router", "canary", "requests") == found
    assert (sample.since, sample.until) == (NOW, NOW + timedelta(seconds=15))


@pytest.mark.parametrize(
    ("before", "after", "is_whole"),
    [
        ({"a": reading(10)}, {"a": reading(15)}, True),
        ({"a": reading(10)}, {"a": reading(4, "second")}, False),
        ({"a": reading(10)}, {"a": reading(15), "new": reading(99)}, False),
        ({"a": reading(10), "gone": reading(5)}, {"a": reading(15)}, False),
    ],
    ids=["grown", "started anew", "not there before", "gone"],
)
def test_whether_a_pod_may_have_counted_what_nobody_knows(
    before: dict[str, Reading], after: dict[str, Reading], is_whole: bool
) -> None:
    def look(readings: dict[str, Reading], *, all_answered: bool = True) -> Look:
        runtimes = {("v4", pod): reading for pod, reading in readings.items()}
        return Look(NOW, runtimes=runtimes, all_answered=all_answered)

    assert counted.between(look(before), look(after)).is_whole is is_whole
    assert not counted.between(look(before, all_answered=False), look(after)).is_whole
    assert not counted.between(look(before), look(after, all_answered=False)).is_whole


@pytest.mark.parametrize(
    ("in_flight", "life", "broken_off"), [(3, "first", 0), (3, "second", 3), (0, "second", 1)], ids=str
)
def test_a_pod_that_began_anew_has_broken_off_what_it_was_answering(in_flight: int, life: str, broken_off: int) -> None:
    before = Look(NOW, runtimes={("v4", "a"): Reading("first", in_flight=in_flight)})
    sample = counted.between(before, Look(NOW, runtimes={("v4", "a"): Reading(life, in_flight=9)}))

    assert sample.count("v4", counted.BROKEN_OFF) == broken_off
    assert sample.count(None, counted.RESTARTS) == (life != "first")


def test_counters_are_found_by_parts_of_their_names() -> None:
    sample = Sample(
        NOW, NOW, {("v4", "requests", arm, code): 1 for arm in ("canary", "stable") for code in ("0", "13", "14")}
    )

    assert sample.count("v4", "requests", None, None) == 6
    assert sample.count(None, "requests", "canary", frozenset({"13", "14"})) == 2
    assert sample.count("v4", "requests", "canary") == 0


ANALYSIS = {"minRequests": 100, "initialDelaySeconds": 10}
STEPS = [{"setWeight": 25}, {"pause": {"duration": "1m"}}, {"setWeight": 50}, {"pause": {}}]


@pytest.fixture
async def rolling() -> World:
    """Version 4 has 25 %, and has been warm for a second. The canary before it was a bad one."""
    made = World()
    made.agents.traffic.by_arm["canary"].update(requests=5000, bad=4000)
    made.move_alias("3")
    made.apply(replicas=4, rollout={"steps": STEPS, "analysis": ANALYSIS})
    await made.settle()
    made.move_alias("4")
    await made.settle()
    await made.pass_time(11)
    return made


def send(served: World, *, canary: int, bad: int, protocol: str = "v2") -> None:
    traffic, code = served.agents.traffic, 13 if protocol == "grpc" else 503
    traffic.send("canary", served.revision("4"), canary, bad=bad, protocol=protocol, code=code)
    traffic.send("stable", served.revision("3"), 3 * canary, bad=canary // 50, protocol=protocol, code=code)


async def test_a_good_version_goes_on_when_enough_has_been_seen(rolling: World) -> None:
    send(rolling, canary=60, bad=1)
    await rolling.pass_time(60)
    assert rolling.status["weights"]["desired"] == 25
    assert "errors: 60 of 100 requests of the new version have been judged" in rolling.status["message"]
    assert rolling.status["analysis"][0]["verdict"] == "continue"
    send(rolling, canary=60, bad=1)
    await rolling.pass_time(15)
    assert rolling.status["weights"] == {"desired": 50, "applied": 50, "verified": True}
    assert rolling.status["analysis"][0]["canaryRequests"] == 120


@pytest.mark.parametrize("protocol", ["v2", "grpc"])
async def test_a_version_that_fails_is_put_back_with_its_evidence(rolling: World, protocol: str) -> None:
    send(rolling, canary=100, bad=30, protocol=protocol)
    await rolling.pass_time(15)
    assert rolling.traffic() == "3"
    assert rolling.condition("Ready") == ("False", "RolledBack")
    words = "errors: 30 of 100 (30.00%) failed, at stable 2 of 300 (0.67%): worse"
    assert words in rolling.status["rejected"][0]["message"]
    assert words in rolling.status["history"][0]["message"]
    assert rolling.tags["4"]["moorage.rollout.reason"] == "AnalysisFailed"
    assert words in rolling.tags["4"]["moorage.rollout.message"]
    assert rolling.status["analysis"][0]["verdict"] == "harm"
    (told,) = [item for item in rolling.all(EVENT) if item["reason"] == "RolledBack"]
    assert told["type"] == "Warning"
    assert "was put back" in told["note"]
    assert words in told["note"]
    assert "kubectl annotate" in told["note"]
    assert "retry@" in told["note"]


async def test_what_was_counted_before_the_canary_was_warm_does_not_matter() -> None:
    served = World()
    served.move_alias("3")
    served.apply(replicas=4, rollout={"steps": STEPS, "analysis": ANALYSIS})
    await served.settle()
    served.move_alias("4")
    await served.settle()
    send(served, canary=100, bad=90)
    for _ in range(4):
        await served.pass_time(10)
    assert served.status["canary"]["modelVersion"] == "4"
    assert served.status["analysis"][0]["verdict"] == "noTraffic"


async def test_a_new_operator_keeps_the_evidence_and_counts_from_its_first_look(rolling: World) -> None:
    send(rolling, canary=90, bad=0)
    await rolling.pass_time(15)
    rolling.restart()
    await rolling.settle()
    assert rolling.status["analysis"][0]["canaryRequests"] == 90
    await rolling.pass_time(15)
    assert rolling.status["analysis"][0]["canaryRequests"] == 90, "what was heeded is not heeded again"
    send(rolling, canary=90, bad=0)
    await rolling.pass_time(15)
    assert rolling.status["analysis"][0]["canaryRequests"] == 180


async def test_a_restart_does_not_take_back_that_requests_come_otherwise_than_by_weight(rolling: World) -> None:
    rolling.agents.traffic.send("canary", rolling.revision("4"), 300, bad=1)
    rolling.agents.traffic.send("stable", rolling.revision("3"), 300, bad=1)
    await rolling.pass_time(15)
    assert "abort it, or find out why" in rolling.status["message"]
    rolling.cluster.writes.clear()
    rolling.restart()
    await rolling.settle()
    assert not rolling.cluster.writes


async def test_a_pod_that_dies_again_and_again_does_not_hide_its_errors(rolling: World) -> None:
    canary = rolling.revision("4")
    for _ in range(3):
        send(rolling, canary=50, bad=20, protocol="grpc")
        await rolling.pass_time(15)
        rolling.agents.traffic.restart(canary)
    assert rolling.traffic() == "3"


async def test_that_counts_were_lost_is_told(rolling: World) -> None:
    for _ in range(2):
        send(rolling, canary=50, bad=0)
        await rolling.pass_time(15)
        rolling.agents.traffic.restart(rolling.revision("4"))
    await rolling.pass_time(15)
    assert "a pod or a router began anew 2 times" in rolling.status["analysis"][0]["message"]


async def test_an_agent_that_is_started_anew_beside_its_haproxy_accuses_nobody_of_the_past(rolling: World) -> None:
    send(rolling, canary=50, bad=0)
    await rolling.pass_time(15)
    (pod, *_) = sorted(rolling.agents.states)
    rolling.agents.started_at[pod] = "just now"
    await rolling.pass_time(15)
    assert rolling.status["analysis"][0]["canaryRequests"] == 50
    send(rolling, canary=20, bad=0)
    await rolling.pass_time(15)
    assert rolling.status["analysis"][0]["canaryRequests"] == 70
    assert "a pod or a router began anew once" in rolling.status["analysis"][0]["message"]


async def test_a_router_that_is_asked_while_it_is_told_something_accuses_nobody_of_the_past(rolling: World) -> None:
    send(rolling, canary=50, bad=0)
    await rolling.pass_time(15)
    rolling.agents.busy.add("*")
    await rolling.pass_time(15)
    rolling.agents.busy.clear()
    send(rolling, canary=20, bad=0)
    await rolling.pass_time(15)
    assert rolling.status["analysis"][0]["canaryRequests"] == 70


async def test_without_a_rollout_nothing_is_asked(rolling: World) -> None:
    rolling.move_alias("3")
    await rolling.settle()
    assert not rolling.meter._rollouts


@pytest.fixture
async def by_pods() -> World:
    """As `rolling`, without a router."""
    made = World()
    made.move_alias("3")
    made.apply(replicas=3, traffic={"router": "replicas"}, rollout={"steps": STEPS})
    await made.settle()
    made.move_alias("4")
    await made.settle()
    await made.pass_time(11)
    return made


async def test_without_a_router_the_pods_say_what_failed(by_pods: World) -> None:
    by_pods.agents.traffic.send("", by_pods.revision("4"), 100, bad=30)
    by_pods.agents.traffic.send("", by_pods.revision("3"), 300, bad=3)
    await by_pods.pass_time(15)
    assert by_pods.traffic() == "3"
    assert "30 of 100 (30.00%) failed" in by_pods.status["rejected"][0]["message"]


async def test_without_a_router_what_died_with_a_pod_has_failed(by_pods: World) -> None:
    """It crashes at every tenth request, and has counted none of those."""
    traffic, canary = by_pods.agents.traffic, by_pods.revision("4")
    for _ in range(12):
        traffic.restart(canary)
        traffic.send("", canary, 9)
        traffic.send("", by_pods.revision("3"), 90)
        await by_pods.pass_time(15)
    assert by_pods.traffic() == "3"
    assert "failed, at stable 0 of" in by_pods.status["rejected"][0]["message"]


@pytest.mark.parametrize(
    ("at_once", "milliseconds", "is_due"),
    [(True, 999, False), (True, 1000, True), (False, 14_999, False), (False, 15_000, True)],
)
def test_two_looks_never_have_the_same_second(at_once: bool, milliseconds: int, is_due: bool) -> None:
    wanted = Measure(("fraud-v3", "fraud-v4"), {}, timedelta(seconds=15), at_once=at_once, is_cut=False)
    rollout = meter._Rollout(wanted, base=Look(NOW))

    assert rollout.is_due(NOW + timedelta(milliseconds=milliseconds)) is is_due


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("seconds", [-600, -365 * 24 * 3600])
async def test_a_clock_that_is_put_back_does_not_hide_what_fails(rolling: World, seconds: int, restarted: bool) -> None:
    send(rolling, canary=60, bad=0)
    await rolling.pass_time(15)
    rolling.now += timedelta(seconds=seconds)
    if restarted:
        rolling.restart()
    await rolling.settle()
    for _ in range(3):
        send(rolling, canary=60, bad=20)
        await rolling.pass_time(15)
    assert rolling.traffic() == "3"
    assert rolling.condition("Ready") == ("False", "RolledBack")


async def test_a_pause_is_no_longer_for_a_clock_that_is_put_back(rolling: World) -> None:
    rolling.now -= timedelta(days=365)
    await rolling.settle()
    for _ in range(6):
        send(rolling, canary=60, bad=0)
        await rolling.pass_time(15)
    assert rolling.status["weights"]["desired"] == 50
