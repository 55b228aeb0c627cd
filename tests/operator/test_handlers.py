"""kopf as the event source, against an API server whose watches end in every way: what is created afterwards is fed all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest

import certificates
from moorage_operator import errors, handlers
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, Kind, Manifest
from stub_api import ApiServer

WITHIN_SECONDS = 30.0  # kopf alone takes five to end
SILENT_SECONDS = 0.5


class Fed:
    """What reached the operator."""

    watches: asyncio.Task[None]

    def __init__(self) -> None:
        self.names: list[str] = []
        self.terminated = asyncio.Event()
        self._more = asyncio.Event()

    def __call__(self, kind: Kind, event: str, manifest: Manifest) -> None:
        if kind is MODEL_DEPLOYMENT:
            self.names.append(manifest["metadata"]["name"])
            self._more.set()

    def start(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.terminated.set)

    async def has(self, name: str) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while name not in self.names:
                self._more.clear()
                await self._more.wait()

    async def end(self) -> str:
        """Of the watches, with what they say."""
        with pytest.raises(errors.OperatorError) as caught:
            await asyncio.wait_for(self.watches, WITHIN_SECONDS)
        return str(caught.value)


def settings() -> kopf.OperatorSettings:
    """Ours, with a silence that ends soon enough for a test."""
    made = handlers.make_settings()
    made.watching.inactivity_timeout = SILENT_SECONDS
    made.process.ultimate_exiting_timeout = None  # it would kill this very process
    return made


@asynccontextmanager
async def watching(server: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fed]:
    """The operator's watches, once they are there. A file `ca.crt` in the folder is the authority that they trust."""
    monkeypatch.setenv("KUBECONFIG", str(log_in(server, folder)))
    fed = Fed()
    fed.watches = watches = asyncio.create_task(handlers.watch(fed, settings=settings(), started=fed.start))
    try:
        server.create("before")
        await fed.has("before")
        async with asyncio.timeout(WITHIN_SECONDS):
            await server.is_watched()
        yield fed
    finally:
        watches.cancel()
        await asyncio.gather(watches, return_exceptions=True)


def log_in(server: ApiServer, folder: Path) -> Path:
    """A kubeconfig for the token that the server wants now."""
    file, authority = folder / "kubeconfig", folder / "ca.crt"
    file.write_text(
        json.dumps(server.kubeconfig_with({"certificate-authority": str(authority)} if authority.exists() else {}))
    )
    return file


def failure(code: int) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "no leader"}}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    made = ApiServer()
    await made.start()
    yield made
    await made.stop()


async def test_what_is_created_is_fed(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.create("after")
        await fed.has("after")


async def test_after_a_version_that_is_too_old_it_watches_again(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.end_watches(failure(410))
        server.create("after")
        await fed.has("after")


async def test_any_other_error_in_the_stream_ends_the_process_and_the_next_one_is_fed(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.end_watches(failure(500))
        words = await fed.end()
        assert words.startswith("the watches have ended: ")
        assert "no leader" in words
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.create("after")
        await fed.has("after")


async def test_signals_are_ours_as_soon_as_it_has_started(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(WITHIN_SECONDS):
            await fed.terminated.wait()
        server.create("after")
        await fed.has("after")


async def test_after_a_time_without_an_api_server_it_watches_again(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        await server.stop()
        await asyncio.sleep(2)
        server.create("after")
        await server.start()
        await fed.has("after")


async def test_a_stream_that_has_gone_silent_is_given_up(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.silence_watches()
        server.create("after")
        await fed.has("after")
        assert server.watched > 1


async def test_a_token_that_was_rotated_is_read_again(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(server, tmp_path, monkeypatch) as fed:
        server.token = "another-token"
        log_in(server, tmp_path)
        server.end_watches()
        server.create("after")
        await fed.has("after")


@pytest.mark.parametrize("seconds_too_late", [0, 2])
async def test_an_authority_that_is_replaced_is_trusted_by_the_next_connection(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds_too_late: float
) -> None:
    """First a bundle of the old one and the new one, as it is done; the kubelet may bring it later than the server changes."""
    old, new = (certificates.make(tmp_path / name, name, "IP:127.0.0.1") for name in ("old", "new"))
    bundle = tmp_path / "ca.crt"
    bundle.write_text(old[0].read_text())
    await server.stop()
    server.certificate = old
    await server.start()
    async with watching(server, tmp_path, monkeypatch) as fed:
        await server.stop()
        server.certificate = new
        await server.start()
        server.create("after")
        await asyncio.sleep(seconds_too_late)
        assert "after" not in fed.names
        bundle.write_text(old[0].read_text() + new[0].read_text())
        await fed.has("after")


def test_a_silent_stream_costs_no_more_than_75_seconds() -> None:
    """The API server sends a bookmark each minute, so an earlier end would cut streams that are well."""
    found: Any = handlers.make_settings().watching

    assert 60 < found.inactivity_timeout + found.reconnect_backoff <= 75


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_a_pod_needs_no_dns_to_watch(host: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="a-token")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: account)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    found = handlers._log_in()

    assert found
    assert (found.server, found.token) == (server, "a-token")


def test_a_kubeconfig_that_is_named_is_used_in_a_pod_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the client of adapters.cluster: to watch one API server and to write to another would be a disaster."""
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: pytest.fail("not asked for"))
    monkeypatch.setenv("KUBECONFIG", str(log_in(ApiServer(), tmp_path)))

    found = handlers._log_in(settings=kopf.OperatorSettings())

    assert found
    assert found.server == "http://127.0.0.1:0"
