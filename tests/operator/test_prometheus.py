"""`adapters.prometheus` against a server that answers as Prometheus does, and as it should not."""

from __future__ import annotations

import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

import stub_http
from moorage_operator import errors
from moorage_operator.adapters import web
from moorage_operator.adapters.prometheus import MOST_BYTES, MOST_WORDS, HttpPrometheus
from stub_http import Reply, Request, Stub
from stub_prometheus import answer, matrix, refusal, scalar, text, vector

QUERY = 'sum(rate(refunds_total{revision="fraud-v4"}[5m])) > 0'


def always(reply: Reply) -> Callable[[Request], Reply]:
    return lambda request: reply


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub_http.serving(always(vector("1"))) as stub:
        yield stub


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[HttpPrometheus]:
    async with web.connect() as session:
        yield HttpPrometheus(session, url)


async def problem(url: str) -> str:
    async with asking(url) as prometheus:
        with pytest.raises(errors.QueryFailed) as caught:
            await prometheus.value(QUERY)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (vector("0.25"), 0.25),
        (vector("-1e-3"), -0.001),
        (scalar("42"), 42.0),
    ],
)
async def test_one_series_or_a_scalar_is_a_number(server: Stub, reply: Reply, value: float) -> None:
    server.answer = always(reply)
    async with asking(f"{server.url}/") as prometheus:
        assert await prometheus.value(QUERY) == value

    assert [(request.path, request.query) for request in server.requests] == [("/api/v1/query", {"query": QUERY})]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (vector(), "the query gives 0 series, and not one"),
        (vector("1", "2"), "the query gives 2 series, and not one"),
        (vector("NaN"), "the query gives NaN"),
        (vector("+Inf"), "the query gives +Inf"),
        (matrix("1"), "the query gives a matrix, and not one number"),
        (matrix(), "the query gives a matrix, and not one number"),
        (text("1"), "the query gives a string, and not one number"),
        (answer("vector", [{"metric": {}, "histogram": [1, {}]}]), "Prometheus answers with something else: "),
        (vector("many"), "Prometheus answers with something else: "),
        (Reply({"status": "success"}), "Prometheus answers with something else: "),
        (Reply(b"<html>"), "Prometheus answers with something else: "),
        (refusal(400, "bad_data", "1:5: parse error"), "Prometheus answers with HTTP 400: 1:5: parse error"),
        (Reply(b"<html>", 404), "Prometheus answers with HTTP 404"),
        (Reply(b"\xff", 502), "Prometheus answers with HTTP 502"),
        (Reply(b"", 503), "Prometheus answers with HTTP 503"),
        (Reply(b" " * (MOST_BYTES + 1)), f"Prometheus answers with more than {MOST_BYTES} bytes"),
    ],
)
async def test_anything_else_is_no_number_and_the_message_says_why(server: Stub, reply: Reply, words: str) -> None:
    server.answer = always(reply)

    assert (await problem(server.url)).startswith(words)


async def test_a_long_refusal_is_cut(server: Stub) -> None:
    server.answer = always(refusal(422, "execution", "duplicate series " * 100))

    assert len(await problem(server.url)) == len("Prometheus answers with HTTP 422: ") + MOST_WORDS


async def test_without_a_url_the_message_says_where_one_is_set() -> None:
    assert await problem("") == "no Prometheus is declared in the operator's chart (prometheus.url)"


async def test_nobody_there_is_a_failed_query() -> None:
    with stub_http.serving(always(vector("1"))) as stub:
        gone = stub.url

    assert await problem(gone) == "Prometheus does not answer: ClientConnectorError"


async def test_one_that_takes_too_long_is_not_waited_for(server: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def late(request: Request) -> Reply:
        over.wait(10)
        return vector("1")

    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.05)
    server.answer = late
    words = await problem(server.url)
    over.set()

    assert words == "Prometheus does not answer: TimeoutError"


async def test_a_redirect_is_not_followed_and_takes_no_password_with_it(server: Stub) -> None:
    with stub_http.serving(always(vector("1"))) as elsewhere:
        server.answer = always(Reply(b"", 302, {"Location": f"{elsewhere.url}/api/v1/query"}))
        with_password = server.url.replace("://", "://moorage:the-password@")
        words = await problem(with_password)

        assert words == "Prometheus answers with HTTP 302"
        assert server.authorizations() == ["Basic " + base64.b64encode(b"moorage:the-password").decode()]
        assert elsewhere.requests == []


async def test_a_password_in_the_url_is_in_no_message() -> None:
    with stub_http.serving(always(vector("1"))) as stub:
        gone = stub.url.replace("://", "://moorage:the-password@")

    assert "the-password" not in await problem(gone)
