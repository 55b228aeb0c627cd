"""Leader election by a Lease: at most one operator writes.

`Candidate` is the protocol, on any event loop. `Election` runs one candidate in a thread with an event loop and a client
of its own: when the operator's main event loop is blocked, the Lease is still renewed by what is left of the process, or
lost; either way `check()`, called before every write, is right. A candidate leads at most once: who lost must end.

Others' renewals are judged by when we saw the Lease change, never by the times that stand in it: clocks differ.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage_operator import errors
from moorage_operator.core.kinds import Manifest, Ref
from moorage_operator.ports import Cluster

Connect = Callable[[], AbstractAsyncContextManager[Cluster]]

_log = logging.getLogger("moorage.election")


@dataclass(frozen=True)
class Timing:
    """In seconds; a leader gives up at `renew_deadline`, others take over at `lease`: the gap is the safety margin."""

    lease: int = 15
    renew_deadline: float = 10.0
    retry: float = 2.0


class Candidate:
    """One process that wants to lead, `identity` being its own alone."""

    def __init__(
        self, lease: Ref, identity: str, *, timing: Timing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.leading = False
        self._lease = lease
        self._identity = identity
        self._timing = timing
        self._clock = clock
        self._renewed = float("-inf")  # when the last renewal that succeeded was sent
        self._resource_version = ""
        self._seen: dict[str, Any] = {}  # the Lease's spec as last seen, and since when
        self._seen_since = float("-inf")

    def check(self) -> None:
        """The fence, callable from any thread."""
        if not self.leading or self._clock() - self._renewed > self._timing.renew_deadline:
            raise errors.LeadershipLost(f"{self._identity} does not hold {self._lease}")

    async def acquire(self, cluster: Cluster) -> None:
        """Return as the leader."""
        while True:
            if await self._attempt(self._try_acquire(cluster), self._timing.renew_deadline):
                break
            await asyncio.sleep(self._until_next_attempt())
        self.leading = True
        _log.info("%s leads: it holds %s", self._identity, self._lease)

    async def keep(self, cluster: Cluster) -> None:
        """Renew; return when the Lease is lost."""
        while self.leading:
            await asyncio.sleep(min(self._timing.retry, max(0.0, self._left())))
            if self._left() <= 0:
                self._lose("it could not be renewed in time")
            else:
                await self._attempt(self._renew(cluster), self._left())

    async def release(self, cluster: Cluster) -> None:
        """Let another take over at once. The caller has stopped all writing."""
        if self.leading:
            self.leading = False
            released = self._seen | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
            await self._attempt(self._write(cluster, released), self._timing.renew_deadline)

    async def _attempt(self, action: Coroutine[Any, Any, bool], left: float) -> bool:
        """Whether it succeeded; half the deadline is the most, so that one lost connection leaves time for another."""
        try:
            async with asyncio.timeout(min(left, self._timing.renew_deadline / 2)):
                return await action
        except (errors.Conflict, errors.AlreadyExists) as error:
            _log.info("another was first: %s", error)
            return False
        except Exception as error:  # whatever fails is a failed attempt, the deadline alone decides
            _log.warning("%s: %s", self._lease, str(error) or type(error).__name__)
            return False

    async def _try_acquire(self, cluster: Cluster) -> bool:
        live = await cluster.get(self._lease)
        if live is not None:
            self._observe(live)
        # A Lease that vanished is not one that ran out: its holder may live and make it again, so we wait as long.
        if self._is_held_by_another() and not self._is_expired():
            return False
        return await (self._create(cluster) if live is None else self._write(cluster, self._own_spec()))

    async def _renew(self, cluster: Cluster) -> bool:
        try:
            return await self._write(cluster, self._seen | {"renewTime": _micro_time()})
        except (errors.Conflict, errors.Invalid) as error:
            _log.info("%s was changed by another: %s", self._lease, error)
        live = await cluster.get(self._lease)
        if live is None:
            return await self._create(cluster)
        self._observe(live)
        if self._is_held_by_another():
            self._lose(f"{self._seen['holderIdentity']} holds it")
            return False
        # Perhaps it was our own write whose answer got lost.
        is_ours = self._seen.get("holderIdentity") == self._identity
        return await self._write(cluster, self._seen | {"renewTime": _micro_time()} if is_ours else self._own_spec())

    async def _create(self, cluster: Cluster) -> bool:
        sent = self._clock()
        kind = self._lease.kind
        metadata = {"name": self._lease.name, "namespace": self._lease.namespace}
        lease = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": self._own_spec()}
        return self._written(await cluster.create(lease), sent)

    async def _write(self, cluster: Cluster, spec: dict[str, Any]) -> bool:
        sent = self._clock()
        same = {"op": "test", "path": "/metadata/resourceVersion", "value": self._resource_version}
        return self._written(
            await cluster.patch(self._lease, [same, {"op": "add", "path": "/spec", "value": spec}]), sent
        )

    def _written(self, live: Manifest, sent: float) -> bool:
        # The answer may have taken long: the promise to the others began when they could see it.
        self._renewed = sent
        self._observe(live)
        return True

    def _observe(self, live: Manifest) -> None:
        self._resource_version = live["metadata"]["resourceVersion"]
        if live.get("spec", {}) != self._seen:
            self._seen, self._seen_since = live.get("spec", {}), self._clock()

    def _own_spec(self) -> dict[str, Any]:
        """The Lease as ours from now on."""
        now = _micro_time()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.lease,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": self._seen.get("leaseTransitions", -1) + 1,
        }

    def _is_held_by_another(self) -> bool:
        return self._seen.get("holderIdentity") not in {None, "", self._identity}

    def _is_expired(self) -> bool:
        return self._until_expiry() <= 0

    def _until_expiry(self) -> float:
        """By the holder's own promise, counted from when we saw its last renewal."""
        promised: float = self._seen.get("leaseDurationSeconds", self._timing.lease)
        return self._seen_since + promised - self._clock()

    def _until_next_attempt(self) -> float:
        """Not later than the moment when the Lease runs out: takeover is what users wait for."""
        pause = self._timing.retry * random.uniform(1, 1.2)  # noqa: S311 -- spreads the candidates, guards no secret
        return pause if self._is_expired() else min(pause, self._until_expiry())

    def _left(self) -> float:
        return self._renewed + self._timing.renew_deadline - self._clock()

    def _lose(self, why: str) -> None:
        self.leading = False
        _log.error("%s leads no more: %s", self._identity, why)


class Election:
    """A candidate in its own thread. `on_lost` is called there, when the process must no longer act: it should end."""

    def __init__(self, candidate: Candidate, connect: Connect, *, on_lost: Callable[[], None]) -> None:
        self._candidate = candidate
        self._connect = connect
        self._on_lost = on_lost
        self._acquired: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    @property
    def leading(self) -> bool:
        return self._candidate.leading

    def check(self) -> None:
        """The fence: raises `LeadershipLost`."""
        self._candidate.check()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    async def acquired(self) -> None:
        """Return once this process leads."""
        await asyncio.shield(asyncio.wrap_future(self._acquired))

    async def stop(self) -> None:
        """Release the Lease, if it is ours, and end; `on_lost` is not called. May be called more than once, or unstarted."""
        if not self._thread.ident:
            return
        with contextlib.suppress(RuntimeError):  # the thread has ended by itself
            self._loop.call_soon_threadsafe(self._stopped.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        graceful = False
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                graceful = runner.run(self._main())
        finally:
            self._candidate.leading = False
            if not graceful:
                self._on_lost()

    async def _main(self) -> bool:
        """Whether it ended because it was asked to."""
        stopped = asyncio.create_task(self._stopped.wait())
        campaign = asyncio.create_task(self._campaign())
        await asyncio.wait({stopped, campaign}, return_when=asyncio.FIRST_COMPLETED)
        graceful = stopped.done()
        for task in (stopped, campaign):
            task.cancel()
        _, outcome = await asyncio.gather(stopped, campaign, return_exceptions=True)
        if isinstance(outcome, Exception):
            _log.error("the election ended: %s: %s", type(outcome).__name__, outcome)
        return graceful

    async def _campaign(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(self._connect())
            try:
                await self._candidate.acquire(cluster)
                self._acquired.set_result(None)
                await self._candidate.keep(cluster)
            finally:
                await self._candidate.release(cluster)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
