"""The arithmetic of hack/bench, what its plain script writes, and one small run on a real cluster of its own."""

from __future__ import annotations

import subprocess
from collections import Counter

import msgspec
import pytest

from benchmarks import detection, figures, population, processes, report, shadows, streams
from fixtures_cluster import REPOSITORY
from moorage_operator.core import kinds
from moorage_operator.core.evidence import Tick
from moorage_operator.settings import Settings


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2), (75, 3), (76, 4), (99, 4), (100, 4)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert figures.percentile([4, 2, 1, 3], percent) == expected


def test_a_spread_shows_the_range_where_there_is_one() -> None:
    assert figures.spread([1234.5]) == "1,234.5"
    assert figures.spread([3.0, 1.0, 2.0], 2) == "2.00 (1.00–3.00)"


def test_seconds_are_shown_with_milliseconds_while_they_are_few() -> None:
    assert figures.seconds([0.1, 0.25, 12.345]) == "0.250 / 12.3 / 12.3"


def test_a_case_is_compared_with_the_same_round_of_the_first() -> None:
    def a_round(milliseconds: float, **copies: int) -> shadows.Round:
        seconds = [milliseconds / 1000] * 3
        return shadows.Round(seconds, seconds, 1000 / milliseconds, 0.001, (Counter(copies), Counter()))

    found = {shadows.NOBODY: [a_round(2), a_round(4)], "an equal one": [a_round(3, agree=2), a_round(5, agree=1)]}
    lines = report.shadows(found).splitlines()

    assert lines[3].startswith("| an equal one | 4.00; ×1.38 (1.25–1.50) |")
    assert lines[3].endswith(" 267; ×0.73 (0.67–0.80) | 1.00; ×1.00 |")
    assert lines[-1] == "| an equal one | 3 `agree` |  |"


def test_what_was_used_is_the_difference_without_what_did_not_change() -> None:
    before = processes.Usage(10.0, 2.0, Counter({("get", "pods"): 3, ("apply", "services"): 1}))
    after = processes.Usage(14.0, 2.5, Counter({("get", "pods"): 3, ("apply", "services"): 5}))

    used = after.since(before)

    assert (used.moment, used.cpu_seconds, used.writes, used.reads) == (4.0, 0.5, 4, 0)
    assert used.requests == {("apply", "services"): 4}


def test_the_plain_script_writes_just_the_children_that_are_waited_for() -> None:
    platform = msgspec.convert(processes.configuration("http://mlflow"), Settings).platform()
    (model_deployment,) = population.model_deployments(1)

    children = population.children_of(model_deployment, platform)

    found = Counter(kinds.ref_of(child).kind for child in children)
    assert found == population.CHILDREN


GOOD, BAD, NOBODY = Tick(100, 0, 900, 0), Tick(100, 6, 900, 0), Tick(0, 0, 900, 0)


@pytest.mark.parametrize(
    ("minutes", "failures", "ticks", "verdict_after"),
    [
        (1, 1, [BAD] * 8, 4),
        (1, 2, [BAD] * 12, 8),
        (1, 2, [BAD] * 4 + [GOOD] * 4 + [BAD] * 4, 12),
        (1, 1, [BAD, GOOD, GOOD, GOOD] * 3, None),
        (1, 1, [NOBODY] * 12, None),
        (5, 1, [BAD] * 30, 20),
    ],
    ids=["one", "two", "not in a row", "good on the whole", "nobody asked", "a longer window"],
)
def test_a_rule_with_a_threshold_counts_windows(
    minutes: int, failures: int, ticks: list[Tick], verdict_after: int | None
) -> None:
    rule = detection.Threshold(0.95, minutes, failures)
    verdicts = [rule.sees(tick) for tick in ticks]

    assert (verdicts.index(True) + 1 if True in verdicts else None) == verdict_after


def test_all_rules_see_the_same_requests_and_each_ends_with_its_verdict() -> None:
    broken = streams.Stream(100, streams.steady(0.01), worse=20)
    found = detection.measure(broken, runs=3, hours=0.5)

    assert [len(item.looks) for item in found.values()] == [3] * len(found)
    assert [set(item.looks) for item in found.values()] == [{1}, {80}, {80}, {20}, {20}]


def test_what_is_seldom_caught_has_no_median() -> None:
    assert detection._caught(detection.Found(4, [8], [100])) == "25 %"
    assert detection._caught(detection.Found(3, [8, 40], [1234, 5678])) == "67 %, 10 min, 5,700"


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_small_run_measures_operator_and_script() -> None:
    command = ["hack/bench", "scale", "--count", "3", "--repeat", "1", "--name", "bench-test"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=590, check=False)

    assert done.returncode == 0, done.stderr
    assert [line.split("|")[2].strip() for line in done.stdout.splitlines() if line.startswith("| 3 |")][:2] == [
        "operator",
        "plain script",
    ]
