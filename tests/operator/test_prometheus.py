"""`adapters.prometheus` against a server that answers as Prometheus does, and as it should not."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import certificates
import mounted
import stub_http
from moorage_operator import __main__ as program
from moorage_operator import errors, settings
from moorage_operator.adapters import web
from moorage_operator.adapters.access import OPEN, Access
from moorage_operator.adapters.prometheus import MOST_BYTES, MOST_WORDS, HttpPrometheus
from stub_http import Reply, Request, Stub
from stub_prometheus import answer, matrix, refusal, scalar, text, vector

QUERY = 'sum(rate(refunds_total{revision="fraud-v4"}[5m])) > 0'
PASSWORD = "the-password"


def always(reply: Reply) -> Callable[[Request], Reply]:
    return lambda request: reply


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub_http.serving(always(vector("1"))) as stub:
        yield stub


@asynccontextmanager
async def asking(url: str, how: Access = OPEN) -> AsyncIterator[HttpPrometheus]:
    async with web.connect() as session:
        yield HttpPrometheus(session, url, how)


async def problem(url: str, how: Access = OPEN) -> str:
    async with asking(url, how) as prometheus:
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


# --- one that wants credentials, or has a certificate of its own authority


BASIC = "Basic " + base64.b64encode(f"moorage:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    ("keys", "header"),
    [
        ({"username": "moorage", "password": PASSWORD}, BASIC),
        ({"username": "moorage\n", "password": f"{PASSWORD}\n"}, BASIC),
        ({"username": "mü", "password": "a:b"}, "Basic bcO8OmE6Yg=="),
        ({"token": "a-token"}, "Bearer a-token"),
        ({"token": "a-token", "username": "moorage", "password": PASSWORD}, "Bearer a-token"),
    ],
)
async def test_a_query_carries_what_the_secret_says(
    server: Stub, tmp_path: Path, keys: dict[str, str], header: str
) -> None:
    async with asking(server.url, Access(mounted.secret(tmp_path, **keys))) as prometheus:
        await prometheus.value(QUERY)

    assert server.authorizations() == [header]


async def test_without_a_secret_a_query_carries_nothing(
    server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login somebody password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with asking(server.url) as prometheus:
        await prometheus.value(QUERY)

    assert server.authorizations() == [None]


async def test_a_credential_that_is_rotated_is_used_for_the_next_query(server: Stub, tmp_path: Path) -> None:
    login = mounted.Rotated(tmp_path, token="old")
    async with asking(server.url, Access(login.directory)) as prometheus:
        await prometheus.value(QUERY)
        login.say(username="moorage", password=PASSWORD)
        await prometheus.value(QUERY)

    assert server.authorizations() == ["Bearer old", BASIC]


@pytest.mark.parametrize(
    "keys", [{}, {"username": "me"}, {"password": PASSWORD}, {"token": f"{PASSWORD}\r\nX-Evil: 1"}]
)
async def test_an_incomplete_secret_is_told_and_nothing_is_sent(
    server: Stub, tmp_path: Path, keys: dict[str, str]
) -> None:
    words = await problem(server.url, Access(mounted.secret(tmp_path, **keys)))

    assert words == (
        "Prometheus: its existingSecret needs the keys 'username' and 'password', or the key 'token', as printable text"
    )
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("secret", [{"username": "moorage", "password": PASSWORD}, {"token": PASSWORD}])
async def test_refused_credentials_are_told_with_what_to_do_and_are_in_no_message_and_no_log(
    server: Stub, tmp_path: Path, caplog: pytest.LogCaptureFixture, secret: dict[str, str], status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = lambda request: refusal(
        status, "unauthorized", f"no such thing: {request.headers['Authorization']}"
    )
    words = await problem(server.url, Access(mounted.secret(tmp_path, **secret)))

    assert words == (
        f"Prometheus answers with HTTP {status}: "
        "it wants other credentials (prometheus.existingSecret in the operator's chart)"
    )
    assert not [line for line in caplog.messages if PASSWORD in line or BASIC in line]


async def test_a_redirect_is_not_followed_and_takes_no_password_with_it(server: Stub, tmp_path: Path) -> None:
    with stub_http.serving(always(vector("1"))) as elsewhere:
        server.answer = always(Reply(b"", 302, {"Location": f"{elsewhere.url}/api/v1/query"}))
        words = await problem(server.url, Access(mounted.secret(tmp_path, token=PASSWORD)))

        assert words == "Prometheus answers with HTTP 302"
        assert server.authorizations() == [f"Bearer {PASSWORD}"]
        assert elsewhere.requests == []


async def test_no_cookie_outlives_a_query(server: Stub) -> None:
    reply = vector("1")
    server.answer = always(Reply(reply.body, headers={"Set-Cookie": "session=1; Path=/"}))
    async with asking(server.url.replace("127.0.0.1", "localhost")) as prometheus:
        for _ in range(2):
            await prometheus.value(QUERY)

    assert [request.headers.get("Cookie") for request in server.requests] == [None, None]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://me:{PASSWORD}@prometheus", "prometheus.url must not hold a user name or password: put them into a Secret"),
        ("prometheus:9090", "prometheus.url must be an http:// or https:// address"),
        ("http://prometheus?tenant=1", "prometheus.url must not have a query"),
    ],
)  # fmt: skip
async def test_an_address_that_can_not_be_used_is_refused_at_the_start(url: str, words: str) -> None:
    with pytest.raises(ValueError, match="prometheus") as refused:
        async with asking(url):
            pass

    assert str(refused.value).startswith(words)
    assert PASSWORD not in str(refused.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("tls"), "prometheus", "IP:127.0.0.1")


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[Stub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with stub_http.serving(always(vector("1")), tls=context) as stub:
        yield stub


async def test_a_certificate_is_trusted_with_its_ca_bundle_only(
    tls_server: Stub, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = certificates.make(tmp_path / "other", "prometheus", "IP:127.0.0.1")
    untrusted = "Prometheus has a TLS certificate that is not trusted: set its caBundle to the authority that signed it"

    assert await problem(tls_server.url) == untrusted
    assert await problem(tls_server.url, Access(ca_bundle=other)) == untrusted
    async with asking(tls_server.url, Access(ca_bundle=certificate[0])) as prometheus:
        assert await prometheus.value(QUERY) == 1.0


async def test_a_certificate_for_another_name_is_not_trusted(tls_server: Stub, certificate: tuple[Path, Path]) -> None:
    by_another_name = tls_server.url.replace("127.0.0.1", "localhost")

    assert "is not trusted" in await problem(by_another_name, Access(ca_bundle=certificate[0]))


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
async def test_a_ca_bundle_that_is_none_is_told(tls_server: Stub, tmp_path: Path, text: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)

    assert await problem(tls_server.url, Access(ca_bundle=bundle)) == (
        "Prometheus can't be asked: is its caBundle there, and a PEM file?"
    )


async def test_a_registry_of_that_name_has_access_of_its_own(tmp_path: Path) -> None:
    chosen = settings.Settings(
        images=settings.Images(runtime="r", runtime_gpu="g"),
        router=settings.RouterSection(image="o"),
        registries=(
            settings.RegistrySettings(name="prometheus", tracking_uri="http://m", ca_bundle="one", credentials_directory="/a"),
        ),
        prometheus=settings.PrometheusSettings(url="http://p", ca_bundle="other", credentials_directory="/b"),
    )  # fmt: skip
    async with web.connect() as session:
        of_prometheus = program._prometheus(chosen.prometheus, session, tmp_path)._how
    registry = program._registries(chosen, tmp_path)["prometheus"]
    registry.close()
    of_registry = registry._declaration.how

    assert (of_registry.credentials_dir, of_prometheus.credentials_dir) == (Path("/a"), Path("/b"))
    assert [how.ca_bundle.read_text() for how in (of_registry, of_prometheus) if how.ca_bundle] == ["one", "other"]
