"""From how many seconds on a request is slow, whoever answers and however few: stable may be silent, quiet, or slower than any edge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from moorage_operator.core import analysis, latencies
from moorage_operator.core.analysis import Report
from moorage_operator.core.counted import Sample
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis, Latency
from moorage_operator.core.state import Measured
from moorage_operator.core.ticks import Arms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARMS = Arms("v3", "v4", by_haproxy=True, by_gateway=False, is_sticky=False, weight=10)
NOTHING = Report((), Measured())


def asked(**latency: float) -> Analysis:
    return msgspec.convert({"guards": [{"name": "slow", "latency": latency}]}, Analysis)


ABSOLUTE, RELATIVE = asked(maxSeconds=0.2), asked(quantile=0.95)


def answers(revision: str, requests: int, **below: int) -> dict[tuple[str, ...], float]:
    """So many requests, and of them so many `below` an edge: e0_2 is 0.2 s."""
    arm = {"v3": "stable", "v4": "canary"}[revision]
    edges = {edge.removeprefix("e").replace("_", "."): count for edge, count in below.items()} | {"+Inf": requests}
    return {(revision, "seconds", arm, "v2", edge): count for edge, count in edges.items()}


def look(
    guards: Analysis, before: Report, *answered: dict[tuple[str, ...], float], weight: int = ARMS.weight
) -> Report:
    counts = {name: count for each in answered for name, count in each.items()}
    sample = Sample(NOW, NOW + timedelta(seconds=15), counts)
    return analysis.heed(guards, before.judged, before.measured, sample, replace(ARMS, weight=weight))


def missing(guards: Analysis, report: Report) -> str:
    return analysis.missing(guards, report.judged, weight=10, last_step=False)


class TestASilentStable:
    """The version that answers nothing is the one that the new one mends."""

    def test_does_not_hold_up_a_guard_with_a_time_of_its_own(self) -> None:
        after = look(ABSOLUTE, NOTHING, answers("v4", 120, e0_1=110, e0_2=118, e0_3=120))

        [found] = after.judged
        assert (found.state.threshold, found.canary_requests, found.state.canary_bad) == (0.2, 120, 2)
        assert missing(ABSOLUTE, after) == ""

    def test_leaves_nothing_to_compare_with_and_the_guard_says_so(self) -> None:
        after = look(RELATIVE, NOTHING, answers("v4", 120, e0_2=118))

        assert after.judged[0].verdict is Verdict.NO_TRAFFIC
        words = "not judged: 0 of 20 answers of stable that tell its own latency"
        assert missing(RELATIVE, after) == f"slow: 0 of 100 requests of the new version have been judged ({words})"

    def test_and_a_silent_canary_are_no_verdict(self) -> None:
        [found] = look(ABSOLUTE, NOTHING).judged

        assert (found.verdict, found.message) == (Verdict.NO_TRAFFIC, "no request has been judged yet")


class TestAQuietBaseline:
    CANARY = answers("v4", 50, e0_1=10, e0_2=20)

    def test_goes_on_beside_the_canary_and_is_no_evidence_itself(self) -> None:
        baseline = look(RELATIVE, NOTHING, answers("v3", 5, e0_1=4, e0_2=5), weight=0)
        first = look(RELATIVE, baseline, answers("v3", 30, e0_1=20, e0_2=29), self.CANARY)
        assert first.judged[0].verdict is Verdict.NO_TRAFFIC
        assert first.judged[0].message == "not judged: 5 of 20 answers of stable that tell its own latency"

        [found] = look(RELATIVE, first, answers("v3", 30, e0_1=20, e0_2=30), self.CANARY).judged
        assert found.state.threshold == 0.2
        assert (found.state.stable_requests, found.canary_requests, found.state.canary_bad) == (30, 50, 30)

    def test_that_never_was_is_the_same(self) -> None:
        first = look(RELATIVE, NOTHING, answers("v3", 30, e0_1=29, e0_2=30), self.CANARY)
        [found] = look(RELATIVE, first, answers("v3", 30, e0_1=20, e0_2=30), self.CANARY).judged

        assert (found.state.threshold, found.state.stable_requests) == (0.1, 30)

    def test_is_over_when_the_threshold_is_known(self) -> None:
        report = look(RELATIVE, NOTHING, answers("v3", 30, e0_1=29, e0_2=30), weight=0)
        for _ in range(3):
            report = look(RELATIVE, report, answers("v3", 30, e0_1=0, e0_2=30), self.CANARY)

        assert report.measured.latencies == {"0.1": 29, "0.2": 30, "+Inf": 30}
        assert report.judged[0].state.threshold == 0.1

    def test_of_another_guard_is_kept_beside_one_that_judges(self) -> None:
        both = msgspec.convert(
            {"guards": [{"name": str(share), "latency": {"quantile": share}} for share in (0.5, 0.99)]}, Analysis
        )
        report = NOTHING
        for _ in range(3):
            report = look(both, report, answers("v3", 60, e0_1=40, e0_2=60), self.CANARY)

        assert [item.canary_requests for item in report.judged] == [100, 50]
        assert [item.state.threshold for item in report.judged] == [0.1, 0.2]


@pytest.mark.parametrize(("quantile", "requests"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)])
def test_so_many_answers_tell_a_quantile(quantile: float, requests: int) -> None:
    assert latencies.least(Latency(quantile)) == requests


class TestBeyondTheLastEdge:
    def test_stables_own_quantile_is_the_last_edge(self) -> None:
        baseline = look(RELATIVE, NOTHING, answers("v3", 100, e20=50, e30=80), weight=0)
        [found] = look(RELATIVE, baseline, answers("v3", 90, e20=45, e30=72), answers("v4", 50, e30=5)).judged

        assert (found.state.threshold, found.state.canary_bad, found.verdict) == (30, 45, Verdict.HARM)
        assert found.message.endswith(
            "; stable's own quantile is beyond 30 s, the last edge of the histogram, which is taken instead"
        )

    def test_as_slow_as_such_a_stable_is_no_harm(self) -> None:
        report = look(RELATIVE, NOTHING, answers("v3", 100, e20=50, e30=80), weight=0)
        for _ in range(20):
            report = look(RELATIVE, report, answers("v3", 90, e20=45, e30=72), answers("v4", 50, e30=40))

        assert report.judged[0].verdict is Verdict.CONTINUE
        assert missing(RELATIVE, report) == ""

    def test_a_time_of_the_guards_own_is_the_last_edge_too(self) -> None:
        [found] = look(asked(maxSeconds=12.0), NOTHING, answers("v3", 90, e10=90), answers("v4", 50, e10=50)).judged

        assert found.state.threshold == 10
        assert "maxSeconds is beyond 10 s" in found.message

    def test_within_it_nothing_is_said(self) -> None:
        baseline = look(RELATIVE, NOTHING, answers("v3", 100, e20=50, e30=96), weight=0)
        [found] = look(RELATIVE, baseline, answers("v3", 90, e20=45, e30=72), answers("v4", 50, e30=40)).judged

        assert found.state.threshold == 30
        assert "beyond" not in found.message
