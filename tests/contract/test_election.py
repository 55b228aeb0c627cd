"""The election with its thread, its own client and real time, on the real API server and on `FakeCluster` alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import contender
from fake_cluster import FakeCluster
from fixtures_cluster import Api
from moorage_operator import errors
from moorage_operator.adapters import cluster
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Ref
from moorage_operator.election import Candidate, Connect, Election, Timing
from moorage_operator.ports import Cluster

QUICK = Timing(lease=4, renew_deadline=3, retry=0.4)
TESTS = Path(__file__).parent.parent


class Ground:
    """Where candidates meet: a cluster and a Lease of their own."""

    def __init__(self, connect: Connect, namespace: str) -> None:
        self.connect = connect
        self.lease = Ref(kinds.LEASE, namespace, f"lease-{uuid.uuid4().hex[:8]}")
        self.lost: list[str] = []

    @contextlib.asynccontextmanager
    async def candidate(self, name: str, connect: Connect | None = None) -> AsyncIterator[Election]:
        election = Election(
            Candidate(self.lease, name, timing=QUICK), connect or self.connect, on_lost=lambda: self.lost.append(name)
        )
        election.start()
        try:
            yield election
        finally:
            await election.stop()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "fake":
        client: Cluster = FakeCluster()
        return Ground(lambda: contextlib.nullcontext(client), "contract")
    api: Api = request.getfixturevalue("api")
    return Ground(lambda: cluster.connect(api.kubeconfig), request.getfixturevalue("namespace"))


async def leads(election: Election, within: float = 5) -> float:
    """Seconds until it did."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        await election.acquired()
    election.check()
    return time.monotonic() - began


async def until(condition: Callable[[], bool], within: float) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def test_one_leads_and_hands_over_when_it_stops(ground: Ground) -> None:
    async with ground.candidate("first") as first:
        await leads(first)
        async with ground.candidate("second") as second:
            await asyncio.wait({waiting := asyncio.create_task(second.acquired())}, timeout=QUICK.lease + 1)
            assert (first.leading, waiting.done()) == (True, False)

            await first.stop()

            assert await leads(second) < QUICK.lease
            with pytest.raises(errors.LeadershipLost):
                first.check()
    assert ground.lost == []


async def test_an_election_that_never_started_can_be_stopped(ground: Ground) -> None:
    election = Election(Candidate(ground.lease, "idle", timing=QUICK), ground.connect, on_lost=lambda: None)
    await election.stop()

    with pytest.raises(errors.LeadershipLost):
        election.check()


async def test_without_credentials_an_election_ends_and_says_so(ground: Ground, tmp_path: Path) -> None:
    missing = str(tmp_path / "no-kubeconfig")
    async with ground.candidate("nobody", lambda: cluster.connect(missing)):
        await until(lambda: ground.lost == ["nobody"], 10)


async def test_the_lease_reads_as_kubectl_expects(ground: Ground) -> None:
    async with ground.candidate("first") as first, ground.connect() as client:
        await leads(first)
        held = await client.get(ground.lease)
        await first.stop()
        released = await client.get(ground.lease)

    assert held is not None
    assert released is not None
    assert (held["spec"]["holderIdentity"], held["spec"]["leaseDurationSeconds"]) == ("first", QUICK.lease)
    assert held["spec"]["renewTime"].endswith("Z")
    assert not released["spec"].get("holderIdentity")


async def test_a_blocked_event_loop_does_not_cost_the_lease(ground: Ground) -> None:
    async with ground.candidate("first") as first, ground.candidate("second") as second:
        await until(lambda: first.leading or second.leading, 5)
        leader = first if first.leading else second
        time.sleep(QUICK.lease + 1)  # noqa: ASYNC251 -- this is what blocks it

        leader.check()
        assert first.leading != second.leading


async def test_a_deleted_lease_stays_with_its_holder(ground: Ground) -> None:
    async with ground.candidate("first") as first, ground.connect() as client:
        await leads(first)
        async with ground.candidate("second") as second:
            await until(lambda: bool(second._candidate._seen), 5)
            lease = await client.get(ground.lease)
            assert lease is not None
            await client.delete(
                ground.lease, uid=lease["metadata"]["uid"], resource_version=lease["metadata"]["resourceVersion"]
            )
            await asyncio.wait({waiting := asyncio.create_task(second.acquired())}, timeout=QUICK.lease + 1)

            first.check()
            assert not waiting.done()
            assert await client.get(ground.lease) is not None


class Wire:
    """A TCP connection to the API server that a test can make go silent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self.silent = False
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for pump in self._pumps:
                pump.cancel()
            for writer in self._writers:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, up_writer]
        self._pumps |= {
            asyncio.create_task(self._pump(reader, up_writer)),
            asyncio.create_task(self._pump(up_reader, writer)),
        }

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)
        writer.close()


def kubeconfig_over(wire: Wire, api: Api, file: Path) -> str:
    settings = json.loads(api.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    target = settings["clusters"][0]["cluster"]
    target.update(server=wire.url, **{"tls-server-name": urlsplit(target["server"]).hostname})
    file.write_text(json.dumps(settings))
    return str(file)


class Contender:
    """A process of `contender.py`, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[tuple[str, float]] = []
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, kubeconfig: str, namespace: str, name: str, timing: Timing) -> Contender:
        numbers = (str(timing.lease), str(timing.renew_deadline), str(timing.retry))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, contender.__file__, kubeconfig, namespace, name, *numbers),
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def says(self, what: str, within: float) -> float:
        """When it said that for the first time."""
        await until(lambda: what in dict(self.said), within)
        return dict(reversed(self.said))[what]

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._listener

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            self.said.append((message["what"], message["at"]))


@contextlib.asynccontextmanager
async def two_contenders(
    api: Api, namespace: str, timing: Timing, *, first_by: str = ""
) -> AsyncIterator[tuple[Contender, Contender]]:
    """The first leads; it may have a kubeconfig of its own."""
    first = await Contender.start(first_by or api.kubeconfig, namespace, "first", timing)
    await first.says("may write", within=30)
    second = await Contender.start(api.kubeconfig, namespace, "second", timing)
    await second.says("saw the lease", within=30)
    try:
        yield first, second
    finally:
        for process in (first, second):
            await process.end()
        api.kubectl("-n", namespace, "delete", f"lease/{contender.LEASE}")


@pytest.mark.cluster
async def test_a_leader_that_is_cut_off_is_gone_before_another_leads(api: Api, namespace: str, tmp_path: Path) -> None:
    settings = json.loads(api.kubectl("config", "view", "--minify", "-o", "json"))
    server = urlsplit(settings["clusters"][0]["cluster"]["server"])
    async with Wire(server.hostname or "", server.port or 443).open() as wire:
        config = kubeconfig_over(wire, api, tmp_path / "kubeconfig")
        async with two_contenders(api, namespace, QUICK, first_by=config) as (first, second):
            wire.silent = True
            cut = time.monotonic()
            lost = await first.says("lost", within=QUICK.renew_deadline + 1)
            led = await second.says("may write", within=2 * QUICK.lease)

            assert await first.process.wait() == contender.LOST
            assert cut < lost < led < cut + QUICK.lease + 2


@pytest.mark.cluster
@pytest.mark.parametrize("timing", [QUICK, pytest.param(Timing(), marks=pytest.mark.long)], ids=["quick", "real"])
async def test_a_killed_leader_is_replaced(api: Api, namespace: str, timing: Timing) -> None:
    async with two_contenders(api, namespace, timing) as (first, second):
        first.process.kill()
        killed = time.monotonic()
        waited = await second.says("may write", within=30) - killed

        assert waited < timing.lease + 2 * timing.retry + 1
        assert waited < 20


@pytest.mark.cluster
async def test_a_frozen_leader_may_not_write_when_it_thaws(api: Api, namespace: str) -> None:
    async with two_contenders(api, namespace, QUICK) as (first, second):
        os.kill(first.process.pid, signal.SIGSTOP)
        await second.says("may write", within=3 * QUICK.lease)
        thawed = time.monotonic()
        os.kill(first.process.pid, signal.SIGCONT)

        async with asyncio.timeout(5):
            assert await first.process.wait() == contender.LOST
        await first.end()
        assert not [what for what, at in first.said if at > thawed and what == "may write"]
        assert second.process.returncode is None
