"""What an analysis remembers, and what it must not mix: other hypotheses, other edges, other weights, requests that nobody assigned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from moorage_operator.core import analysis, broken, evidence, guards
from moorage_operator.core.analysis import Report
from moorage_operator.core.counted import Sample
from moorage_operator.core.evidence import Tick
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis
from moorage_operator.core.state import Judged, Measured
from moorage_operator.core.ticks import Arms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARMS = Arms("v3", "v4", by_haproxy=True, by_gateway=False, is_sticky=False, weight=10)
REQUESTS = {"router canary requests": 100, "router stable requests": 900}


def an_analysis(*kinds: dict[str, Any]) -> Analysis:
    return msgspec.convert(
        {"guards": [{"name": f"guard-{place}"} | kind for place, kind in enumerate(kinds)]}, Analysis
    )


def seen(
    asked: Analysis,
    counts: Mapping[str, float],
    *,
    before: tuple[Judged, ...] = (),
    measured: Measured | None = None,
    arms: Arms = ARMS,
) -> Report:
    sample = Sample(NOW, NOW + timedelta(seconds=15), {tuple(name.split()): value for name, value in counts.items()})
    return analysis.heed(asked, before, measured or Measured(), sample, arms)


def failing(canary: int, stable: int) -> dict[str, int]:
    return REQUESTS | {"router canary bad": canary, "router stable bad": stable}


STRICT, LENIENT = an_analysis({"errorRate": {}}), an_analysis({"errorRate": {"tolerate": 3.0, "maxRate": "2%"}})


class TestAChangedGuard:
    def test_its_evidence_starts_anew(self) -> None:
        before = seen(STRICT, failing(4, 9)).judged
        kept, changed = seen(STRICT, failing(0, 9), before=before), seen(LENIENT, failing(0, 9), before=before)

        assert kept.judged[0].canary_requests == 200
        assert changed.judged[0].canary_requests == 100
        assert changed.judged == seen(LENIENT, failing(0, 9)).judged

    def test_what_was_safe_by_other_words_is_not_enough(self) -> None:
        lenient, strict = (msgspec.structs.replace(item, require="safe") for item in (LENIENT, STRICT))
        judged = seen(lenient, {name: 20 * value for name, value in failing(0, 0).items()}).judged

        assert judged[0].verdict is Verdict.SAFE
        assert analysis.missing(lenient, judged, weight=50, last_step=True) == ""
        assert "0 of 100 requests" in analysis.missing(strict, judged, weight=50, last_step=True)

    def test_the_baseline_stays(self) -> None:
        measured = Measured(baseline=((1000, 0), (1000, 50)) * 5)
        before = seen(STRICT, failing(0, 9), measured=measured)
        changed = seen(LENIENT, failing(0, 9), before=before.judged, measured=before.measured)

        assert changed.judged[0].state.dispersion == before.judged[0].state.dispersion > 10

    def test_a_new_query_counts_its_own_ticks(self) -> None:
        first, second = (an_analysis({"prometheus": {"query": query, "max": 1}}) for query in ("a", "b"))
        queried = Sample(NOW, NOW, {}, {"guard-0": 2.0})
        judged = analysis.heed(first, (), Measured(), queried, ARMS).judged

        assert analysis.heed(second, judged, Measured(), queried, ARMS).judged[0].state.canary_bad == 1

    def test_other_settings_change_no_evidence(self) -> None:
        before = seen(STRICT, failing(4, 9)).judged
        patient = msgspec.structs.replace(STRICT, min_requests=5000, alpha=0.001)

        assert seen(patient, failing(0, 9), before=before).judged[0].canary_requests == 200


def test_a_weight_of_zero_in_between_forgets_nothing() -> None:
    before = seen(STRICT, failing(4, 9))
    at_zero = seen(STRICT, REQUESTS, before=before.judged, arms=replace(ARMS, weight=0))

    assert at_zero.judged == before.judged
    assert seen(STRICT, failing(0, 9), before=at_zero.judged).judged[0].canary_requests == 200


SLOW = {"latency": {"quantile": 0.95, "maxSeconds": 0.2}}
ON_TIME = {"v3 seconds stable v2 0.2": 890, "v3 seconds stable v2 +Inf": 900}
OTHER_EDGES = {"v4 seconds canary v2 0.25": 190, "v4 seconds canary v2 +Inf": 200}
SAME_EDGE = {"v4 seconds canary v2 0.20": 190, "v4 seconds canary v2 +Inf": 200}
ODD_EDGES = {"v4 seconds canary v2 soon": 1, "v4 seconds canary v2 nan": 1, "v3 seconds stable v2 -1": 900}


class TestEdges:
    def test_a_runtime_with_other_edges_is_not_called_slow(self) -> None:
        [found] = seen(an_analysis(SLOW), ON_TIME | OTHER_EDGES).judged

        assert (found.verdict, found.canary_requests) == (Verdict.NO_TRAFFIC, 0)

    @pytest.mark.parametrize("more", [{}, ODD_EDGES], ids=["plain", "beside what is no number"])
    def test_an_edge_is_a_number_however_it_is_written(self, more: dict[str, float]) -> None:
        [found] = seen(an_analysis(SLOW), ON_TIME | SAME_EDGE | more).judged

        assert (found.state.threshold, found.canary_requests, found.state.canary_bad) == (0.2, 200, 10)

    def test_the_canarys_own_edges_do_not_decide(self) -> None:
        wide = {name.replace("0.2", "0.3"): value for name, value in ON_TIME.items()}
        [found] = seen(an_analysis(SLOW), wide | SAME_EDGE).judged

        assert found.state.threshold == 0.3


FEEDBACK = {
    "v3 feedback v4 canary wrong": 10, "v4 feedback v4 canary right": 90, "v3 feedback v4  wrong": 50,
    "v3 feedback v4 canary/match wrong": 50, "v3 feedback v3 stable right": 900,
}  # fmt: skip


def test_words_on_answers_that_no_weight_assigned_do_not_count() -> None:
    counts = {tuple(name.split(" ")): value for name, value in FEEDBACK.items()}
    sample = Sample(NOW, NOW, counts)
    behind_router = analysis.heed(an_analysis({"feedback": {}}), (), Measured(), sample, ARMS)
    by_replicas = analysis.heed(an_analysis({"feedback": {}}), (), Measured(), sample, replace(ARMS, by_haproxy=False))

    assert (behind_router.judged[0].canary_requests, behind_router.judged[0].state.canary_bad) == (100, 10)
    assert (by_replicas.judged[0].canary_requests, by_replicas.judged[0].state.canary_bad) == (50, 50)


PAIRS = {"v3 pairs v4 canary_wrong": 60, "v3 pairs v4 stable_wrong": 20, "v3 pairs v4 both_wrong": 400}


class TestPairsWithAMargin:
    def test_what_is_tolerated_is_no_harm(self) -> None:
        """60 and 20 differ, but 460 wrong answers are just a tenth more than 420."""
        strict, lenient = (an_analysis({"feedback": {"margin": margin}}) for margin in (0.0, 0.2))

        assert seen(strict, PAIRS).judged[0].verdict is Verdict.HARM
        assert seen(lenient, PAIRS).judged[0].verdict is Verdict.NO_TRAFFIC
        assert seen(lenient, PAIRS).judged[0].harm < 1

    def test_what_is_beyond_it_is_harm(self) -> None:
        beyond = PAIRS | {"v3 pairs v4 canary_wrong": 200, "v3 pairs v4 both_wrong": 50}

        assert seen(an_analysis({"feedback": {"margin": 0.2}}), beyond).judged[0].verdict is Verdict.HARM

    @pytest.mark.parametrize(("canary", "stable"), [(0, 0), (5, 1), (40, 22), (3, 90)])
    def test_without_a_margin_it_is_mcnemars_test(self, canary: int, stable: int) -> None:
        assert evidence.paired_within(0.0, canary, stable, 7) == pytest.approx(
            evidence.paired(canary, stable), abs=0.05
        )

    @pytest.mark.parametrize("margin", [0.1, 1.0, 10.0])
    def test_the_mean_of_a_pair_is_at_most_one_where_the_hypothesis_just_holds(self, margin: float) -> None:
        stable_wrong, both = 0.03, 0.02  # of all pairs; the canary's share follows from the margin
        canary_wrong = (1 + margin) * (stable_wrong + both) - both
        shares = {(1, 0, 0): canary_wrong, (0, 1, 0): stable_wrong, (0, 0, 1): both}
        shares[0, 0, 0] = 1 - sum(shares.values())

        mean = sum(share * 2.718281828459045 ** evidence.paired_within(margin, *pair) for pair, share in shares.items())
        assert mean == pytest.approx(1)


class TestBroken:
    ERRORS = guards.errors("errors", tolerate=1.0, max_odds_ratio=1.5, max_rate=0.005)

    def after(self, *ticks: Tick) -> bool:
        state = guards.State()
        for tick in ticks:
            state = guards.observe(self.ERRORS, state, tick)
        return broken.is_broken(self.ERRORS, state, ticks[-1])

    def test_half_of_twenty_is_chance_where_stable_fails_every_fifth_time(self) -> None:
        assert broken.half_fails(Tick(20, 10, 180, 36))
        assert not self.after(*[Tick(20, 4, 180, 36)] * 20, Tick(20, 10, 180, 36))

    def test_an_hour_of_good_answers_excuses_nothing(self) -> None:
        assert self.after(*[Tick(150, 1, 1350, 13)] * 240, Tick(150, 100, 1350, 13))

    def test_a_tick_in_which_stable_was_not_asked_needs_no_evidence(self) -> None:
        assert self.after(Tick(20, 0, 180, 0), Tick(20, 10, 0, 0))

    def test_few_requests_in_each_tick_add_up(self) -> None:
        assert self.after(*[Tick(4, 2, 40, 1)] * 5)

    def test_both_failing_while_the_canary_has_most_of_its_requests_is_not_the_canarys_fault(self) -> None:
        good, outage = [Tick(50, 0, 950, 1)] * 50, [Tick(500, 400, 500, 400)] * 20
        sums = Tick(50 * 50 + 20 * 500, 8000, 50 * 950 + 20 * 500, 50 + 8000)

        assert broken.half_fails(sums), "what sums alone would say"
        assert not self.after(*good, *outage)
