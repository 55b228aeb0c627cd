"""The queries of docs/rollouts.md, asked of a real Prometheus by the whole operator: what they let pass, and what they do not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import yaml

import documents
import prometheus_server
from documents import REPOSITORY
from moorage_operator.adapters import web
from moorage_operator.adapters.prometheus import HttpPrometheus
from prometheus_server import Page, PrometheusServer
from world import KEY, World

RATES: dict[str, dict[str, dict[str, float | dict[str, float]]]] = {
    "refunds": {
        "fine": {"refunds_total": 1.0, "payments_total": 100.0},
        "harmful": {"refunds_total": 5.0, "payments_total": 100.0},
        "unscraped": {},
        "unasked": {"refunds_total": 0.0, "payments_total": 0.0},
        "without a refund": {"payments_total": 100.0},
    },
    "refunds-or-none": {
        "fine": {"payments_total": 100.0},
        "harmful": {"refunds_total": 5.0, "payments_total": 100.0},
        "unscraped": {},
        "unasked": {"payments_total": 0.0},
    },
    "slower-payments": {
        "fine": {"payment_seconds_bucket": {"0.1": 90.0, "0.5": 100.0, "2": 100.0, "+Inf": 100.0}},
        "harmful": {"payment_seconds_bucket": {"0.1": 10.0, "0.5": 20.0, "2": 100.0, "+Inf": 100.0}},
        "unscraped": {},
        "unasked": {"payment_seconds_bucket": {"0.1": 0.0, "0.5": 0.0, "2": 0.0, "+Inf": 0.0}},
    },
}
"""By guard and by what happens to the new version: how much is counted in a second. Stable is fine."""
ENDS = {"fine": "Promoted", "harmful": "RolledBack"}
WHY_NOT = {
    "unscraped": "the query gives 0 series, and not one",
    "unasked": "the query gives NaN",
    "without a refund": "the query gives 0 series, and not one",
}


def examples(node: Any) -> Iterator[dict[str, Any]]:
    """The guards with a query in a document, however deep."""
    if isinstance(node, dict) and "prometheus" in node and "name" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from examples(child)


GUARDS = {
    guard["name"]: guard
    for path in documents.files()
    for text in documents.fences(path, "yaml")
    for document in yaml.safe_load_all(text)
    for guard in examples(document)
}
CASES = [(guard, fate) for guard, fates in RATES.items() for fate in fates]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PrometheusServer, Page]]:
    with prometheus_server.scraping(tmp_path_factory.mktemp("prometheus")) as found:
        yield found


@pytest.fixture
async def served(scraped: tuple[PrometheusServer, Page]) -> AsyncIterator[World]:
    """Version 3 answers, and the operator asks the real Prometheus."""
    # More patience than the operator has: a test machine may be busy.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        made = World()
        made.prometheus = HttpPrometheus(session, scraped[0].url)
        made.restart()
        made.move_alias("3")
        made.apply(replicas=2)
        await made.settle()
        yield made


def count(page: Page, guard: str, revision: str, fate: str) -> None:
    """From now on."""
    labels = f'namespace="{KEY.namespace}",revision="{revision}"'
    for name, rate in RATES[guard][fate].items():
        edges = rate.items() if isinstance(rate, dict) else [("", rate)]
        for edge, per_second in edges:
            of_edge = f',le="{edge}"' if edge else ""
            page.rates[f"{name}{{{labels}{of_edge}}}"] = per_second


def wait_until_scraped(server: PrometheusServer, page: Page) -> None:
    """Twice: one value has no rate."""
    for series in page.rates:
        server.wait_for(f"rate({series}[5m])")


async def judged(served: World, version: str, guard: str, fate: str, scraped: tuple[PrometheusServer, Page]) -> None:
    """A rollout of that version, which fares like that, until nobody waits for evidence any more."""
    server, page = scraped
    served.apply(
        rollout={
            "steps": [{"setWeight": 25}, {"analysis": {"duration": "1m"}}],
            "analysis": {"guards": [GUARDS[guard]], "timeoutSeconds": 120},
        }
    )
    served.move_alias(version)
    await served.settle()
    count(page, guard, served.revision("3"), "fine")
    count(page, guard, served.revision(version), fate)
    wait_until_scraped(server, page)
    for _ in range(16):
        await served.pass_time(12)


def test_each_query_in_the_documents_is_tried_here() -> None:
    assert set(GUARDS) == set(RATES)


@pytest.mark.parametrize(("guard", "fate"), CASES, ids=["-".join(case) for case in CASES])
async def test_a_query_promotes_puts_back_or_waits(
    served: World, scraped: tuple[PrometheusServer, Page], guard: str, fate: str
) -> None:
    version = str(100 + CASES.index((guard, fate)))  # each has counters of its own
    await judged(served, version, guard, fate, scraped)

    [line] = served.status["analysis"]
    if fate in ENDS:
        assert served.status["history"][0]["result"] == ENDS[fate]
        assert served.traffic() == (version if fate == "fine" else "3")
        assert f"(max {GUARDS[guard]['prometheus']['max']:g})" in line["message"]
    else:
        assert served.traffic() == f"{version}+3"
        assert served.status["weights"]["applied"] == 25
        assert (line["verdict"], line["message"]) == ("noTraffic", f"no number: {WHY_NOT[fate]}")
        assert f"inconclusive: {guard}: no number: {WHY_NOT[fate]}" in served.status["message"]


def test_the_rate_of_a_young_counter_is_too_low_and_a_quotient_is_not(scraped: tuple[PrometheusServer, Page]) -> None:
    server, page = scraped
    page.rates |= {"young_total": 5.0, "young_payments_total": 100.0}
    wait_until_scraped(server, page)
    rate, quotient = "sum(rate(young_total[5m]))", "sum(rate(young_total[5m])) / sum(rate(young_payments_total[5m]))"

    low, exact = (float(server.result(query)[0]["value"][1]) for query in (rate, quotient))

    assert low < 2.5
    assert exact == pytest.approx(0.05, rel=0.01)


def test_the_documents_know_how_long_an_answer_may_take() -> None:
    [told] = re.findall(r"no answer within (\d+) s", (REPOSITORY / "docs/rollouts.md").read_text())

    assert float(told) == web.TIMEOUT_SECONDS
