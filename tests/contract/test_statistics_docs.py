"""docs/statistics.md says what the code does: its numbers and words are those of the code, its tables those of the benchmark."""

from __future__ import annotations

import math
import re

from scipy import stats

from benchmarks import alarms, cli, detection, power
from documents import REPOSITORY
from moorage_operator.core import analysis, broken, evidence, guards
from moorage_operator.core.guards import Verdict
from moorage_operator.core.judgement import Analysis

TEXT = (REPOSITORY / "docs/statistics.md").read_text()
HARM, SAFE = evidence.harm_alternatives(1.0), evidence.safe_alternatives(1.0)
NUMBERS = {
    "`alpha`, over all guards": f"{Analysis().alpha:.0%}".replace("%", " %"),
    "a version just at the limit is called safe": f"{100 * guards.BETA:g} % of the times",
    "harm is shown by an e-value of": "1/`alpha` × guards",
    "safety is shown by an e-value of": f"{math.exp(guards.SAFE_BOUND):.3g}",
    "alternatives for harm: the odds ratio, times `tolerate`": f"{min(HARM):.3g} to {max(HARM):.3g}",
    "alternatives for safety: the odds ratio, times `maxOddsRatio`": f"{min(SAFE):.3g} to {max(SAFE):.3g}",
    "odds ratio below which `feedback` is safe": f"{guards.SAFE_FEEDBACK_RATIO}",
    "half of so many requests need less evidence": f"{broken.LEAST_REQUESTS}",
    "e-value of one tick for that": f"{math.exp(broken.ALONE):,.0f}",
    "e-value of all ticks for that": f"{math.exp(broken.TOGETHER):,.0f}",
    "looks in a row out of bounds, of a query, for harm": f"{analysis.QUERY_TICKS}",
    "looks in a row within bounds, of a query, to be safe after it was not": f"{analysis.SAFE_QUERY_TICKS}",
    "false alarms about the weight": f"1 in {math.exp(analysis.RATIO_ALARM):,.0f}",
    "looks at stable before the first weight, to know about bursts": (
        f"{analysis.LEAST_BASELINE_TICKS} to {analysis.MOST_BASELINE_TICKS}"
    ),
}


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]


def between(begin: str, end: str) -> str:
    return TEXT.split(begin)[1].split(end)[0]


def test_each_verdict_is_explained() -> None:
    explained = {re.sub("`", "", row[0]) for row in rows(between("## Four words", "\n## "))[1:]}

    assert explained == {verdict.value for verdict in Verdict}


def test_the_numbers_are_those_of_the_code() -> None:
    assert {row[0]: row[1] for row in rows(between("## What alpha covers", "\n## "))[1:]} == NUMBERS


def test_four_guards_share_one_alpha_as_it_says() -> None:
    assert f"4/`alpha` = {1 / guards.alpha_of_each(Analysis().alpha, 4):g} instead of" in TEXT


def test_half_is_what_it_says() -> None:
    assert broken.RATE == 0.5
    assert "half of at least 20 requests, while stable fails less than half as often" in TEXT


def table(section: str) -> list[list[str]]:
    return rows(between(f"<!-- {section}: made by `hack/bench` -->", f"<!-- {section}: end -->"))


def test_its_tables_have_the_columns_that_the_benchmark_makes() -> None:
    assert table("traffic")[0] == detection.TRAFFIC_TITLES
    assert [row[0] for row in table("traffic")[1:]] == [str(rate) for rate in detection.RATES]
    assert [row[0] for row in table("latency")[1:]] == [f"{100 * (times - 1):.0f} %" for times in power.SLOWER]
    assert table("feedback")[0] == power.FEEDBACK_TITLES
    assert [row[0] for row in table("feedback")[1:]] == list(power.WAYS)


def test_every_case_that_the_tests_simulate_is_in_the_table_of_false_alarms() -> None:
    titles, *found = table("alarms")

    assert titles == alarms.TITLES
    assert {row[0]: row[2] for row in found} == {
        name: f"{100 * case.allowed:g} %" for name, case in alarms.CASES.items()
    }


def test_no_case_of_the_table_is_above_what_luck_may_do() -> None:
    for (name, case), row in zip(alarms.CASES.items(), table("alarms")[1:], strict=True):
        found, runs = map(int, re.findall(r"[0-9]+", row[1])[:2])

        assert runs == cli.ALARM_SEEDS
        assert found <= stats.binom.ppf(0.999, runs, case.allowed), name
