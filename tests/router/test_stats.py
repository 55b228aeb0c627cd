"""HAProxy's statistics, typed, and counters that outlive its workers."""

from __future__ import annotations

import pytest

from moorage_operator.router import stats
from moorage_operator.router.stats import Counters, Ledger, Pool, Sample, Worker

STAT = """\
# pxname,svname,status,stot,scur,req_tot,hrsp_4xx,hrsp_5xx,srv_abrt,cli_abrt,econ,eresp,wretr,
fraud,FRONTEND,OPEN,9,0,9,,,,,,,,
fraud:stable:http,10.0.0.1:8080,UP,,,,,,,,,,,
fraud:stable:http,10.0.0.2:8080,UP 1/2,,,,,,,,,,,
fraud:stable:http,10.0.0.3:8080,DOWN,,,,,,,,,,,
fraud:stable:http,10.0.0.4:8080,MAINT,,,,,,,,,,,
fraud:stable:http,BACKEND,UP,103,2,100,64,1,2,4,8,16,32,
"""


def a_sample(
    requests: int, *, pid: int = 7, uptime: int = 10, backend: str = "a", unanswered: int = 0, cut: int = 0
) -> Sample:
    return Sample(Worker(pid, uptime, "x"), {backend: Pool(Counters(requests=requests), (), unanswered, cut)})


def test_bad_is_what_the_caller_saw_each_request_once() -> None:
    counters = stats.parse_stat(STAT)["fraud:stable:http"].counters

    assert counters == Counters(requests=100, bad=5, canceled=4, connect_errors=8, response_errors=16, retries=32)


def test_a_call_that_is_canceled_counts_once_before_its_answer_and_in_it() -> None:
    """Of HAProxy 3.0: three calls canceled before the answer, then one in it."""
    rows = """\
# pxname,svname,status,stot,scur,req_tot,hrsp_4xx,hrsp_5xx,srv_abrt,cli_abrt,econ,eresp,wretr,
fraud:stable:grpc,BACKEND,UP,5,0,5,3,0,0,7,0,0,0,
"""
    assert stats.parse_stat(rows)["fraud:stable:grpc"].counters == Counters(requests=5, bad=4, canceled=4)


def test_servers_are_up_or_rest_or_neither() -> None:
    servers = stats.parse_stat(STAT)["fraud:stable:http"].servers

    assert [(server.up, server.resting) for server in servers] == [
        (True, False), (True, False), (False, False), (False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "Unknown command", "{}"])
def test_another_answer_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no statistics"):
        stats.parse_stat(text)


@pytest.mark.parametrize(
    "later",
    [{"pid": 8, "uptime": 0}, {"pid": 7, "uptime": 0}, {"pid": 7, "uptime": 11}],
    ids=["reload", "same number", "same age"],
)
def test_counters_go_on_when_another_worker_begins_at_nothing(later: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.take(a_sample(100))
    ledger.take(a_sample(120, uptime=11))
    ledger.take(a_sample(5, pid=later["pid"], uptime=later["uptime"]))
    ledger.take(a_sample(6, pid=later["pid"], uptime=later["uptime"] + 1))

    assert ledger.total("a").requests == 126


def test_a_backend_that_went_with_a_reload_is_forgotten_at_the_next() -> None:
    ledger = Ledger()
    ledger.take(a_sample(100, backend="gone"))
    ledger.take(a_sample(5, pid=8, backend="new"))
    ledger.take(a_sample(5, pid=9, backend="gone"))

    assert ledger.total("gone").requests == 5
    assert ledger.total("new").requests == 5


def test_a_request_that_haproxy_lost_without_a_word_is_a_bad_request() -> None:
    ledger = Ledger()
    assert stats.parse_stat(STAT)["fraud:stable:http"].unanswered == 1
    for unanswered in (0, 3, 3):
        ledger.take(a_sample(100, unanswered=unanswered, cut=unanswered - 1))
    ledger.take(a_sample(5, pid=8))

    assert (ledger.total("a").requests, ledger.total("a").bad) == (108, 3)


def test_one_that_only_looked_lost_while_it_began_is_not() -> None:
    ledger = Ledger()
    for unanswered in (0, 1, 0, -1, 1, 0):
        ledger.take(a_sample(100, unanswered=unanswered))

    assert ledger.total("a").bad == 0


def test_an_answer_that_was_cut_short_is_a_bad_request() -> None:
    ledger = Ledger()
    ledger.take(a_sample(100, cut=2))

    assert (ledger.total("a").requests, ledger.total("a").bad) == (100, 2)
