"""What guards ask, asked of a real Prometheus and of the stub that the other tests have: one contract for both."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import certificates
import mounted
import prometheus_server
import stub_http
from moorage_operator import errors
from moorage_operator.adapters import web
from moorage_operator.adapters.access import OPEN, Access
from moorage_operator.adapters.prometheus import HttpPrometheus
from prometheus_server import Page, PrometheusServer
from router_traffic import until
from stub_http import Reply
from stub_prometheus import matrix, refusal, scalar, text, vector

TWO_SERIES = 'label_replace(vector(1), "pod", "a", "", "") or vector(2)'
SLOW = "count_over_time(vector(1)[{}d:1s])"
UNCLOSED = 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis'
REFUSED = refusal(400, "bad_data", UNCLOSED)
ODD = "1+1;a&b=c %41 #é/?"
USER = "moorage"
PASSWORD = "test"
BCRYPT = "$2b$04$hNf2lSsxfm0.i4a.1kVpSORlJqwqYFZ3x1Am1frBDy6/wVn4lx8/i"
UNAUTHORIZED = (
    "Prometheus answers with HTTP 401: it wants other credentials (prometheus.existingSecret in the operator's chart)"
)

CASES: dict[str, tuple[str, Reply, float | str]] = {
    "a scalar":                ("42",                             scalar("42"),      42.0),
    "one series":              ("vector(-0.25)",                  vector("-0.25"),   -0.25),
    "a tiny number":           ("vector(1e-7)",                   vector("1e-07"),   1e-7),
    "the longest query":       (" + ".join(500 * ["1"]),          scalar("500"),     500.0),
    "no series":               ("nobody_counts_this",             vector(),          "the query gives 0 series, and not one"),
    "two series":              (TWO_SERIES,                       vector("1", "2"),  "the query gives 2 series, and not one"),
    "nothing of nothing":      ("vector(0) / vector(0)",          vector("NaN"),     "the query gives NaN"),
    "scalars by zero":         ("0 / 0",                          scalar("NaN"),     "the query gives NaN"),
    "something of nothing":    ("vector(1) / vector(0)",          vector("+Inf"),    "the query gives +Inf"),
    "less than nothing":       ("vector(-1) / vector(0)",         vector("-Inf"),    "the query gives -Inf"),
    "a range":                 ("vector(1)[1ms:2ms]",             matrix("1"),       "the query gives a matrix, and not one number"),
    "a range of nothing":      ("nobody_counts_this[1m]",         matrix(),          "the query gives a matrix, and not one number"),
    "text":                    ('"1"',                            text("1"),         "the query gives a string, and not one number"),
    "no PromQL":               ("sum(",                           REFUSED,          f"Prometheus answers with HTTP 400: {UNCLOSED}"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the operator has: a test machine may be busy."""
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 20)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PrometheusServer, Page]]:
    """A Prometheus that has scraped a page more than once."""
    with prometheus_server.scraping(tmp_path_factory.mktemp("prometheus")) as (server, page):
        page.rates[f'odd_total{{name="{ODD}"}}'] = 1.0
        for edge, rate in (("0.1", 90.0), ("0.5", 100.0), ("+Inf", 100.0)):
            page.rates[f'payment_seconds_bucket{{le="{edge}"}}'] = rate
        page.rates['silent_seconds_bucket{le="+Inf"}'] = 0.0
        server.wait_for("rate(silent_seconds_bucket[1m])")
        yield server, page


@pytest.fixture(scope="module")
def real(scraped: tuple[PrometheusServer, Page]) -> PrometheusServer:
    return scraped[0]


@asynccontextmanager
async def asking(url: str, how: Access = OPEN) -> AsyncIterator[HttpPrometheus]:
    async with web.connect() as session:
        yield HttpPrometheus(session, url, how)


async def asked(prometheus: HttpPrometheus, query: str) -> float | str:
    """The number, or why there is none."""
    try:
        return await prometheus.value(query)
    except errors.QueryFailed as error:
        return str(error)


async def outcome(url: str, query: str, how: Access = OPEN) -> float | str:
    async with asking(url, how) as prometheus:
        return await asked(prometheus, query)


@pytest.mark.parametrize(("query", "reply", "wanted"), CASES.values(), ids=CASES)
async def test_what_a_query_gives_is_a_number_or_says_why_not(
    real: PrometheusServer, query: str, reply: Reply, wanted: float | str
) -> None:
    with stub_http.serving(lambda request: reply) as stub:
        assert {"real": await outcome(real.url, query), "stub": await outcome(stub.url, query)} == {
            "real": wanted,
            "stub": wanted,
        }


@pytest.mark.parametrize(("query", "reply"), [case[:2] for case in CASES.values()], ids=CASES)
def test_the_stub_answers_as_the_real_one_does(real: PrometheusServer, query: str, reply: Reply) -> None:
    with stub_http.serving(lambda request: reply) as stub:
        assert answered(stub.url, query) == answered(real.url, query)


def answered(url: str, query: str) -> tuple[int, Any]:
    """Status and document, without times and labels."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:  # noqa: S310 - on loopback
            status, document = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    return status, document | {"data": {name: without_times(part) for name, part in document["data"].items()}}


def without_times(part: Any) -> Any:
    match part:
        case [float() | int(), str() as value]:
            return ["now", value]
        case list():
            return [without_times(item) for item in part]
        case {"metric": _, **values}:
            return {"metric": "any labels"} | {name: without_times(value) for name, value in values.items()}
        case _:
            return part


async def test_a_query_arrives_as_it_was_written(real: PrometheusServer) -> None:
    query = f'sum(\n  rate(odd_total{{name="{ODD}"}}[1m])  # a comment\n) > bool 0 + 0'

    assert await outcome(real.url, query) == 1.0


async def test_a_quantile_is_a_number_and_none_where_nobody_asked(real: PrometheusServer) -> None:
    quantile = "histogram_quantile(0.95, sum by (le) (rate({}_seconds_bucket[5m])))"

    assert await outcome(real.url, quantile.format("payment")) == pytest.approx(0.3, rel=0.01)
    assert await outcome(real.url, quantile.format("silent")) == "the query gives NaN"
    assert await outcome(real.url, quantile.format("absent")) == "the query gives 0 series, and not one"


async def test_who_takes_too_long_is_not_waited_for(real: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.1)

    assert await outcome(real.url, SLOW.format(30)) == "Prometheus does not answer: TimeoutError"


async def test_a_query_that_takes_too_long_for_prometheus_is_told_as_that(tmp_path: Path) -> None:
    with PrometheusServer(tmp_path, arguments=("--query.timeout=1ms",)).running() as server:
        server.wait_for("1")
        found = await outcome(server.url, f"{SLOW.format(1)} / {SLOW.format(1)}")

    assert found == "Prometheus answers with HTTP 503: query timed out in expression evaluation"


async def test_it_may_go_and_come_back(tmp_path: Path) -> None:
    server = PrometheusServer(tmp_path)
    async with asking(server.url) as prometheus:

        async def answers() -> bool:
            return await asked(prometheus, "42") == 42.0

        for _ in range(2):
            with server.running():
                await until(answers, "it answers")
            assert str(await asked(prometheus, "42")).startswith("Prometheus does not answer: ")


async def test_one_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.2)
    with PrometheusServer(tmp_path).running() as server:
        server.wait_for("1")
        with server.frozen():
            assert await outcome(server.url, "42") == "Prometheus does not answer: TimeoutError"


async def test_it_may_live_below_a_path(tmp_path: Path) -> None:
    with PrometheusServer(tmp_path, prefix="/prometheus").running() as server:
        server.wait_for("1")

        assert await outcome(f"{server.url}/", "42") == 42.0
        assert await outcome(server.url.removesuffix("/prometheus"), "42") == "Prometheus answers with HTTP 404"


async def test_it_may_want_a_password_and_show_the_certificate_of_its_own_authority(tmp_path: Path) -> None:
    certificate, key = certificates.make(tmp_path / "tls", "prometheus", "IP:127.0.0.1")
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    with PrometheusServer(
        tmp_path, web={"basic_auth_users": {USER: BCRYPT}, "tls_server_config": tls}
    ).running() as server:
        url, login = (
            server.url.replace("http://", "https://"),
            mounted.Rotated(tmp_path, username=USER, password=PASSWORD),
        )
        async with asking(url, Access(login.directory, certificate)) as prometheus:

            async def answers() -> bool:
                return await asked(prometheus, "42") == 42.0

            await until(answers, "it takes the password, and is trusted")
            login.say(username=USER, password="guessed")
            assert await asked(prometheus, "42") == UNAUTHORIZED
            login.say(token=PASSWORD)
            assert await asked(prometheus, "42") == UNAUTHORIZED
            login.say(username=USER, password=PASSWORD)
            assert await asked(prometheus, "42") == 42.0

        assert await outcome(url, "42", Access(ca_bundle=certificate)) == UNAUTHORIZED
        assert "TLS certificate that is not trusted" in str(await outcome(url, "42", Access(login.directory)))
