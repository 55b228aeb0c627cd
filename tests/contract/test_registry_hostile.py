"""What `MlflowRegistry` does with a registry that is sick, misconfigured or hostile. The stub stands where MLflow would."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import mounted
from moorage_operator import errors
from moorage_operator.adapters.access import Access
from moorage_operator.adapters.registry import MlflowRegistry, RegistryDeclaration, sources
from moorage_operator.core.registry import ModelRef, ModelVersion
from stub_http import Reply, Request, Stub, serving

CHAMPION = ModelRef("iris", alias="champion")
URI = "mlflow-artifacts:/1/models/m-1/artifacts"
SECRET = "hunter2"
VERSION = {
    "name": "iris",
    "version": "3",
    "creation_timestamp": 1,
    "run_id": "abc",
    "source": "models:/m-1",
    "status": "READY",
}


class Hostile:
    """Answers like MLflow, but for what a test replaces."""

    def __init__(self) -> None:
        self.version: dict[str, Any] = dict(VERSION)
        self.uri: Any = URI
        self.model: dict[str, Any] = {"name": "iris"}
        self.instead: Reply | None = None
        self.refused: Reply | None = None
        """The answer to all that would change something."""
        self.hangs = False
        """When it is to change something."""

    def __call__(self, request: Request) -> Reply:
        if self.instead:
            return self.instead
        if request.body and self.hangs:
            time.sleep(1.5)
        if request.body and self.refused:
            return self.refused
        if request.path.endswith("/model-versions/get-download-uri"):
            return Reply({"artifact_uri": self.uri})
        if request.path.endswith("/registered-models/get"):
            return Reply({"registered_model": self.model})
        return Reply({"model_version": self.version})


@pytest.fixture
def hostile() -> Hostile:
    return Hostile()


@pytest.fixture
def stub(hostile: Hostile) -> Iterator[Stub]:
    with serving(hostile) as running:
        yield running


def a_registry(url: str, *, deadline: float = 10.0, **declared: Any) -> contextlib.closing[MlflowRegistry]:
    return contextlib.closing(MlflowRegistry(RegistryDeclaration("lab", url, Access(**declared)), deadline=deadline))


async def the_error(url: str, **declared: Any) -> errors.RegistryError:
    with a_registry(url, **declared) as registry, pytest.raises(errors.RegistryError) as raised:
        await registry.resolve(CHAMPION)
    return raised.value


# --- credentials


async def test_credentials_of_the_process_environment_and_of_a_netrc_are_not_sent(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login somebody password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    with a_registry(stub.url) as registry:
        await registry.resolve(CHAMPION)
    assert {*stub.authorizations()} == {None}


async def test_a_credential_that_is_rotated_is_used_for_the_next_question(stub: Stub, tmp_path: Path) -> None:
    login = mounted.Rotated(tmp_path, token="old")
    with a_registry(stub.url, credentials_dir=login.directory) as registry:
        await registry.resolve(CHAMPION)
        login.say(token="new")
        await registry.resolve(CHAMPION)
    assert stub.authorizations() == ["Bearer old"] * 3 + ["Bearer new"]


async def test_of_a_token_and_a_password_the_token_is_used(stub: Stub, tmp_path: Path) -> None:
    both = mounted.secret(tmp_path / "both", username="me", password=SECRET, token="t")
    with a_registry(stub.url, credentials_dir=both) as registry:
        await registry.resolve(CHAMPION)
    assert {*stub.authorizations()} == {"Bearer t"}


@pytest.mark.parametrize(
    "keys", [{}, {"username": "me"}, {"username": "me", "password": ""}, {"token": "a\r\nX-Evil: 1"}, {"token": "\n"}]
)
async def test_an_incomplete_secret_is_refused_before_anything_is_sent(
    stub: Stub, tmp_path: Path, keys: Mapping[str, str]
) -> None:
    error = await the_error(stub.url, credentials_dir=mounted.secret(tmp_path / "secret", **keys))
    assert isinstance(error, errors.RegistryUnauthorized)
    assert "existingSecret needs the keys" in str(error)
    assert stub.requests == []


async def test_two_registries_each_get_their_own_credential_and_no_cookie_of_the_other(
    stub: Stub, hostile: Hostile, tmp_path: Path
) -> None:
    hostile.instead = Reply({}, 500, {"Set-Cookie": f"session={SECRET}; Path=/"})
    ours = mounted.secret(tmp_path / "ours", username="us", password="1")
    theirs = mounted.secret(tmp_path / "theirs", token="2")
    with serving(Hostile()) as other:
        await the_error(stub.url, credentials_dir=ours)
        with a_registry(other.url, credentials_dir=theirs) as registry:
            await registry.resolve(CHAMPION)
    assert stub.authorizations() == ["Basic dXM6MQ=="]
    assert {*other.authorizations()} == {"Bearer 2"}
    assert [request for request in other.requests if "Cookie" in request.headers] == []


async def test_a_redirect_is_not_followed(stub: Stub, hostile: Hostile, tmp_path: Path) -> None:
    with serving(Hostile()) as elsewhere:
        hostile.instead = Reply(status=302, headers={"Location": elsewhere.url})
        error = await the_error(stub.url, credentials_dir=mounted.secret(tmp_path / "secret", token=SECRET))
    assert isinstance(error, errors.RegistryUnreachable)
    assert "redirects to another address (HTTP 302)" in str(error)
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///mlflow", "http:// or https://"),
        ("sqlite:///mlflow.db", "http:// or https://"),
        ("databricks", "http:// or https://"),
        ("http://", "http:// or https://"),
        (f"https://me:{SECRET}@mlflow", "existingSecret"),
        ("http://mlflow?x=1", "a query"),
    ],
)
def test_a_declaration_that_can_not_be_used_is_refused_with_a_sentence(uri: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        RegistryDeclaration("lab", uri)
    assert SECRET not in str(refused.value)


# --- servers that are sick


@contextlib.asynccontextmanager
async def a_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Any server that speaks as it likes: `answer` is one connection, which ends with it and with the block."""
    connections = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(connection, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in filter(None, connections):
            task.cancel()
        await asyncio.gather(*filter(None, connections))


def a_closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_a_server_that_is_down_can_not_be_reached() -> None:
    error = await the_error(a_closed_port())
    assert isinstance(error, errors.RegistryUnreachable)
    assert "'lab' can't be reached" in str(error)


async def test_a_server_that_goes_and_comes_back_answers_as_before(hostile: Hostile) -> None:
    url = a_closed_port()
    port = int(url.rpartition(":")[2])
    with a_registry(url) as registry:
        with serving(hostile, port=port):
            answer = await registry.resolve(CHAMPION)
        with pytest.raises(errors.RegistryUnreachable, match="can't be reached"):
            await registry.resolve(CHAMPION)
        with serving(hostile, port=port):
            assert await registry.resolve(CHAMPION) == answer


async def test_a_host_name_that_does_not_exist_is_said() -> None:
    assert "host name can't be resolved" in str(await the_error("http://mlflow.invalid:5000"))


async def test_a_server_that_never_answers_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        error = await the_error(f"http://127.0.0.1:{silent.getsockname()[1]}", deadline=0.3)
    assert "did not answer in time" in str(error)
    assert time.monotonic() - started < 3


async def test_a_server_that_drips_its_answer_is_given_up_and_its_thread_comes_back() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # the other side hangs up
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

    async with a_server(drip) as url, asyncio.timeout(10):
        with a_registry(url, deadline=0.3) as registry:
            for _ in range(6):  # more than it has threads
                with pytest.raises(errors.RegistryUnreachable, match="in time"):
                    await registry.resolve(CHAMPION)
            await asyncio.to_thread(registry._pool.shutdown, wait=True)


async def test_a_kept_connection_that_the_server_has_just_closed_is_no_outage(hostile: Hostile) -> None:
    async def one_answer_a_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        body = hostile(Request(path.partition("?")[0], {}, {})).payload()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await reader.readline()  # the next request comes on the same connection, and gets no answer

    async with a_server(one_answer_a_connection) as url:
        with a_registry(url) as registry:
            for _ in range(3):
                assert (await registry.resolve(CHAMPION)).version == "3"


@pytest.mark.parametrize(
    ("reply", "reason", "says"),
    [
        (Reply(f"<html>{SECRET}</html>".encode(), 404), "RegistryUnreachable", "check its trackingURI"),
        (Reply(f"<html>{SECRET}</html>".encode()), "RegistryUnreachable", "check its trackingURI"),
        (Reply({"error_code": "INTERNAL_ERROR", "message": SECRET}, 500), "RegistryUnreachable", "HTTP 500"),
        (Reply(SECRET.encode(), 503), "RegistryUnreachable", "HTTP 503"),
        (Reply(SECRET.encode(), 429), "RegistryUnreachable", "slow down"),
        (Reply(SECRET.encode(), 401), "RegistryUnauthorized", "existingSecret"),
        (Reply(b"Permission denied", 403), "RegistryUnauthorized", "READ"),
        (Reply(b"Invalid Host header - possible DNS", 403), "RegistryUnreachable", "--allowed-hosts"),
        (Reply([SECRET]), "RegistryUnreachable", "check its trackingURI"),
        (Reply(b"[" * 100_000), "RegistryUnreachable", "check its trackingURI"),
        (Reply({"error_code": [SECRET]}, 400), "RegistryUnreachable", "HTTP 400"),
        (Reply({}), "RegistryUnreachable", "check its trackingURI"),
        (Reply(b"x" * (5 << 20)), "RegistryUnreachable", "more than 4096 KiB"),
        (Reply(b"half", headers={"Content-Length": "100"}), "RegistryUnreachable", ""),
    ],
)
async def test_a_refusal_says_what_to_do_and_nothing_that_the_server_wrote(
    stub: Stub, hostile: Hostile, reply: Reply, reason: str, says: str
) -> None:
    hostile.instead = reply
    error = await the_error(stub.url, deadline=3.0)
    assert (error.reason, says in str(error), SECRET in str(error)) == (reason, True, False), str(error)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(SECRET.encode(), 403), "grant it EDIT in MLflow, or declare the registry with readOnly: true"),
        (Reply(SECRET.encode(), 401), "existingSecret"),
        (Reply(SECRET.encode(), 503), "HTTP 503"),
        (Reply(b"", 307, {"Location": "http://169.254.169.254/"}), "redirects to another address"),
    ],
)
async def test_what_it_is_told_may_be_refused_alone(stub: Stub, hostile: Hostile, reply: Reply, says: str) -> None:
    hostile.refused = reply
    with a_registry(stub.url, deadline=3.0) as registry:
        for telling in (
            registry.set_tags("iris", "3", {"verdict": SECRET}),
            registry.move_alias("iris", "champion", away_from="3", to="2"),
        ):
            with pytest.raises(errors.RegistryError) as raised:
                await telling
            assert (says in str(raised.value), SECRET in str(raised.value)) == (True, False), str(raised.value)


async def test_one_that_hangs_when_it_is_told_something_still_answers_questions(stub: Stub, hostile: Hostile) -> None:
    with a_registry(stub.url, deadline=1.0) as registry:
        hostile.hangs = True
        tellings = [asyncio.create_task(registry.set_tags("iris", "3", {"verdict": "failed"})) for _ in range(6)]
        await asyncio.sleep(0.1)
        started = time.monotonic()
        assert (await registry.resolve(CHAMPION)).version == "3"
        assert time.monotonic() - started < 0.8
        for outcome in await asyncio.gather(*tellings, return_exceptions=True):
            assert isinstance(outcome, errors.RegistryUnreachable)


@pytest.mark.parametrize("lie", [{"name": "another"}, {"version": "4"}, {"version": "../x"}])
async def test_nothing_is_written_by_an_answer_that_lies(stub: Stub, hostile: Hostile, lie: dict[str, Any]) -> None:
    hostile.version |= lie
    with a_registry(stub.url) as registry:
        with pytest.raises(errors.RegistryUnreachable):
            await registry.set_tags("iris", "3", {"verdict": "failed"})
        if lie != {"version": "4"}:
            with pytest.raises(errors.RegistryUnreachable):
                await registry.move_alias("iris", "champion", away_from="3", to="2")
    assert not [request for request in stub.requests if request.body]


# --- answers that lie


@pytest.mark.parametrize(
    "lie",
    [
        {"version": 3.5},
        {"version": "../../etc"},
        {"version": "0x3"},
        {"version": ""},
        {"version": "9" * 400},
        {"version": {"a": 1}},
        {"run_id": "../../x"},
        {"run_id": "a" * 65},
        {"name": "iris2"},
    ],
)
async def test_a_version_that_is_not_one_is_no_answer(stub: Stub, hostile: Hostile, lie: dict[str, Any]) -> None:
    hostile.version |= lie
    error = await the_error(stub.url)
    assert (error.reason, "does not answer like MLflow" in str(error)) == ("RegistryUnreachable", True), str(error)


async def test_another_model_than_the_one_asked_for_is_not_taken(stub: Stub, hostile: Hostile) -> None:
    hostile.version["name"] = "Iris"
    error = await the_error(stub.url)
    assert isinstance(error, errors.ModelNotFound)
    assert "no model 'iris', but 'Iris'" in str(error)


async def test_another_version_than_the_one_asked_for_is_not_taken(stub: Stub) -> None:
    with a_registry(stub.url) as registry, pytest.raises(errors.RegistryUnreachable):
        await registry.resolve(ModelRef("iris", version="4"))


@pytest.mark.parametrize(
    ("status", "says"),
    [("PENDING_REGISTRATION", "still being registered"), ("FAILED_REGISTRATION", "register it again")],
)
async def test_a_version_that_is_not_ready_is_no_answer(stub: Stub, hostile: Hostile, status: str, says: str) -> None:
    hostile.version["status"] = status
    error = await the_error(stub.url)
    assert isinstance(error, errors.VersionNotReady)
    assert says in str(error)


async def test_names_of_the_registry_are_shown_short_and_harmless(stub: Stub, hostile: Hostile) -> None:
    aliases = [{"alias": f"\x1b[31m{number}" + "a" * 1000, "version": "1"} for number in range(500)]
    hostile.model["aliases"] = aliases
    hostile.version = {}

    def answer(request: Request) -> Reply:
        missing = Reply({"error_code": "INVALID_PARAMETER_VALUE"}, 400)
        return missing if request.path.endswith("/registered-models/alias") else hostile(request)

    stub.answer = answer
    error = await the_error(stub.url)
    assert isinstance(error, errors.AliasNotFound)
    assert "and 490 more" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 1000


# --- where artifacts may lie


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/models/1",
        "gs://bucket/models/1",
        "abfss://container@account.dfs.core.windows.net/models/1",
        "wasbs://container@account.blob.core.windows.net/models/1",
        "models:/m-0123",
        "mlflow-artifacts:/1/models/m-1/artifacts",
        "mlflow-artifacts://mlflow:5000/1/models",
        "http://mlflow:5000/api/2.0/mlflow-artifacts/artifacts/1",
    ],
)
def test_an_address_that_every_pod_may_read_is_taken_as_it_is(uri: str) -> None:
    assert sources.checked(uri, model="m", tracking_uri="http://mlflow:5000/prefix") == uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///mlruns/1", "--serve-artifacts"),
        ("/mlruns/1", "--serve-artifacts"),
        ("mlruns/1", "--serve-artifacts"),
        ("FILE:///mlruns/1", "--serve-artifacts"),
        ("hdfs://namenode/models", "not supported"),
        ("dbfs:/models", "not supported"),
        ("ftp://host/models", "not supported"),
        ("javascript:alert(1)", "not supported"),
        ("http://169.254.169.254/latest/meta-data", "another host"),
        ("http://mlflow:80/models", "another host"),
        ("https://mlflow:5000/models", "another host"),
        ("http://mlflow:5000@evil/models", "another host"),
        ("http://me@mlflow:5000/models", "another host"),
        ("mlflow-artifacts://evil/1", "another host"),
        ("models://evil/m-1", "another host"),
        (f"s3://key:{SECRET}@bucket/models", "credential"),
        (f"https://store/models?sig={SECRET}", "another host"),
        (f"s3://bucket/models?sig={SECRET}", "credential"),
        ("mlflow-artifacts:/1/../../etc/passwd", "'..'"),
        ("mlflow-artifacts:/1/%252e%252e/etc/passwd", "'..'"),
        ("s3://bucket\\..\\x", "no usable address"),
        ("s3://bucket/\x00", "no usable address"),
        ("s3://bucket/" + "a" * 3000, "no usable address"),
        ("", "no usable address"),
        ("http://[::1", "not a URI"),
        ("http://mlflow:99999/x", "not a URI"),
    ],
)
def test_an_address_where_no_pod_may_be_sent_is_refused(uri: str, says: str) -> None:
    with pytest.raises(errors.SourceRefused, match=says) as refused:
        sources.checked(uri, model="m", tracking_uri="http://mlflow:5000")
    assert SECRET not in str(refused.value)


async def test_it_is_the_download_address_that_is_checked(stub: Stub, hostile: Hostile) -> None:
    hostile.uri = "file:///etc"
    error = await the_error(stub.url)
    assert isinstance(error, errors.SourceRefused)
    assert "'iris' version 3" in str(error)


# --- how often it asks


async def test_a_poll_is_one_request_while_nothing_changes(stub: Stub) -> None:
    with a_registry(stub.url) as registry:
        first = await registry.resolve(CHAMPION)
        stub.requests.clear()
        assert await registry.resolve(CHAMPION) == first == ModelVersion("iris", "3", "abc", URI)
    assert len(stub.requests) == 1


async def test_a_model_that_was_deleted_and_registered_anew_is_asked_for_its_address_again(
    stub: Stub, hostile: Hostile
) -> None:
    with a_registry(stub.url) as registry:
        await registry.resolve(CHAMPION)
        hostile.version["creation_timestamp"] = 2
        hostile.uri = "s3://elsewhere/m"
        assert (await registry.resolve(CHAMPION)).source == "s3://elsewhere/m"


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    no_password = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_stub(hostile: Hostile, certificate: Path) -> Iterator[Stub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(hostile, tls=context) as running:
        yield running


async def test_a_certificate_is_trusted_with_its_ca_bundle_only(tls_stub: Stub, certificate: Path) -> None:
    with a_registry(tls_stub.url, ca_bundle=certificate) as registry:
        assert (await registry.resolve(CHAMPION)).version == "3"
    assert "set its caBundle" in str(await the_error(tls_stub.url))


async def test_a_ca_bundle_that_is_missing_is_said(tls_stub: Stub, tmp_path: Path) -> None:
    assert "is its caBundle there" in str(await the_error(tls_stub.url, ca_bundle=tmp_path / "nothing"))
