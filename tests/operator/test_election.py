"""The protocol on a simulated clock and a cluster in memory; `contract/test_election.py` runs it for real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import pytest

import simulated_time
from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Manifest, Ref
from moorage_operator.election import Candidate, Timing
from moorage_operator.ports import Cluster

T = TypeVar("T")

LEASE = Ref(kinds.LEASE, "moorage", "operator")


class Link:
    """One candidate's way to the cluster, that can be cut (`refused`), go silent, or lose answers."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.state = "up"

    async def get(self, ref: Ref) -> Manifest | None:
        return await self._pass(self.cluster.get(ref))

    async def create(self, manifest: Manifest) -> Manifest:
        return await self._pass(self.cluster.create(manifest))

    async def patch(self, ref: Ref, operations: Any) -> Manifest:
        return await self._pass(self.cluster.patch(ref, operations))

    async def _pass(self, call: Coroutine[Any, Any, T]) -> T:
        if self.state == "answers lost":
            await call
        if self.state == "up":
            return await call
        call.close()
        if self.state == "silent":
            await asyncio.Event().wait()
        raise errors.Unreachable("cut")


class Process:
    """One operator: its candidate, its link, and since when it leads."""

    def __init__(self, cluster: FakeCluster, name: str, *, skew: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.link = Link(cluster)
        self.candidate = Candidate(LEASE, name, timing=Timing(), clock=lambda: loop.time() + skew)
        self.led_from: float | None = None
        self.led_until: float | None = None
        self.task = asyncio.create_task(self._live(self.link))

    async def _live(self, cluster: Any) -> None:
        link: Cluster = cluster
        try:
            await self.candidate.acquire(link)
            self.led_from = asyncio.get_running_loop().time()
            await self.candidate.keep(link)
            self.led_until = asyncio.get_running_loop().time()
        finally:
            await self.candidate.release(link)

    def may_write(self) -> bool:
        try:
            self.candidate.check()
        except errors.LeadershipLost:
            return False
        return True

    async def die(self) -> None:
        """No release: the process is gone at once."""
        self.candidate.leading = False
        await self.stop()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def a_leader_and_a_standby(cluster: FakeCluster) -> tuple[Process, Process]:
    leader = Process(cluster, "leader")
    await asyncio.sleep(1)
    standby = Process(cluster, "standby", skew=1e6)
    await asyncio.sleep(60)
    assert (leader.may_write(), standby.may_write()) == (True, False)
    return leader, standby


async def seconds_until_it_leads(process: Process) -> float:
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(120):
        while not process.may_write():
            await asyncio.sleep(0.1)
    return asyncio.get_running_loop().time() - began


def simulate(test: Awaitable[None]) -> None:
    async def run() -> None:
        await test

    simulated_time.run(run())


def test_the_first_candidate_makes_the_lease_and_keeps_it() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        await asyncio.sleep(600)
        lease = await cluster.get(LEASE)

        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "leader"
        assert lease["spec"]["leaseTransitions"] == 0
        assert (leader.may_write(), standby.may_write()) == (True, False)
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_times_are_written_in_utc_with_microseconds() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        lease = await cluster.get(LEASE)
        assert lease is not None
        assert lease["spec"]["renewTime"].endswith("Z")
        assert len(lease["spec"]["renewTime"]) == len("2026-01-01T00:00:00.000000Z")
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_a_dead_leader_is_replaced_within_twenty_seconds_and_not_before_its_lease_ran_out() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        await leader.die()

        assert 12 < await seconds_until_it_leads(standby) < 20
        lease = await cluster.get(LEASE)
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 1
        await standby.stop()

    simulate(scenario())


def test_a_leader_that_stops_hands_over_at_once() -> None:
    async def scenario() -> None:
        leader, standby = await a_leader_and_a_standby(FakeCluster())
        await leader.stop()

        assert not leader.may_write()
        assert await seconds_until_it_leads(standby) < 3
        await standby.stop()

    simulate(scenario())


@pytest.mark.parametrize("failure", ["refused", "silent", "answers lost"])
def test_a_leader_that_is_cut_off_stops_writing_before_another_begins(failure: str) -> None:
    async def scenario() -> None:
        leader, standby = await a_leader_and_a_standby(FakeCluster())
        cut = asyncio.get_running_loop().time()
        leader.link.state = failure
        await leader.task

        assert not leader.may_write()
        assert leader.led_until is not None
        assert leader.led_until - cut <= 10
        assert standby.led_from is None
        await seconds_until_it_leads(standby)
        assert standby.led_from is not None
        assert standby.led_from - leader.led_until > 2
        await standby.stop()

    simulate(scenario())


@pytest.mark.parametrize("failure", ["refused", "silent", "answers lost"])
def test_a_short_outage_costs_nothing(failure: str) -> None:
    async def scenario() -> None:
        leader, standby = await a_leader_and_a_standby(FakeCluster())
        leader.link.state = failure
        await asyncio.sleep(5)
        leader.link.state = "up"
        await asyncio.sleep(60)

        assert leader.may_write()
        assert leader.led_until is None
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_the_fence_closes_when_time_passes_without_a_renewal_even_if_no_code_of_ours_ran() -> None:
    async def scenario() -> None:
        frozen_for = 0.0
        loop = asyncio.get_running_loop()
        candidate = Candidate(LEASE, "frozen", timing=Timing(), clock=lambda: loop.time() + frozen_for)
        await candidate.acquire(FakeCluster())
        candidate.check()
        frozen_for = 10.1

        with pytest.raises(errors.LeadershipLost, match="frozen"):
            candidate.check()

    simulate(scenario())


def test_a_leader_whose_lease_was_taken_gives_up_at_its_next_renewal() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        cluster.edit(LEASE, lambda lease: lease["spec"].update(holderIdentity="usurper"))
        await asyncio.sleep(2.1)

        assert not leader.may_write()
        await standby.stop()

    simulate(scenario())


def test_a_lease_that_someone_deleted_is_made_again_by_its_holder() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        for _ in range(20):
            cluster.remove(LEASE)
            await asyncio.sleep(2.7)

        assert (leader.may_write(), standby.may_write()) == (True, False)
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_a_touched_lease_is_still_ours() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        for number in range(20):
            cluster.edit(LEASE, lambda lease, n=number: lease["metadata"].update(labels={"touched": str(n)}))  # type: ignore[misc]
            await asyncio.sleep(2.7)
        lease = await cluster.get(LEASE)

        assert leader.may_write()
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 0
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_nonsense_in_the_times_of_the_lease_changes_nothing() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        leader, standby = await a_leader_and_a_standby(cluster)
        for renewed in ("1970-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"):
            cluster.edit(LEASE, lambda lease, t=renewed: lease["spec"].update(renewTime=t))  # type: ignore[misc]
            await asyncio.sleep(1)
            assert (leader.may_write(), standby.may_write()) == (True, False)
        await asyncio.sleep(60)
        assert (leader.may_write(), standby.may_write()) == (True, False)
        for process in (leader, standby):
            await process.stop()

    simulate(scenario())


def test_of_many_candidates_never_two_may_write() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        processes = [Process(cluster, f"candidate-{number}", skew=number * 1e5) for number in range(5)]
        remaining = list(processes)
        while remaining:
            async with asyncio.timeout(60):
                while not (leaders := [process for process in remaining if process.may_write()]):
                    await asyncio.sleep(0.05)
            for _ in range(300):
                assert sum(process.may_write() for process in processes) <= 1
                await asyncio.sleep(0.05)
            remaining.remove(leaders[0])
            leaders[0].link.state = "silent"
            await leaders[0].task

    simulate(scenario())
