"""The work queue between what happens (watch events, polls, timers) and `reconcile(key)`. It knows nothing of either.

The semantics are client-go's: a key waits at most once, is worked on by one worker at a time, and a key that is added
while it is worked on is worked on once more afterwards. All of it belongs to one event loop, whose clock it uses.

Keys come in groups (namespaces), and what is slow in one holds up no other: the next key is one of the group that is worked on least,
and a worker whose pass takes long leaves it to itself and goes on with the next one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 120.0
DEADLINE_SECONDS = 30.0

SLOW_SECONDS = 0.5
"""So long a worker waits for a pass: an admission webhook may hold up each write for 30 s."""
SLOW_AT_ONCE = 64
"""Passes that no worker waits for, at most. With the workers' they have to fit into the client's 100 connections."""


def _one_group(_: object) -> Hashable:
    """First come, first served."""
    return None


class WorkQueue(Generic[K]):
    """First come, first served, within a group."""

    def __init__(self, *, group: Callable[[K], Hashable] = _one_group, jitter: random.Random | None = None) -> None:
        self._group = group
        self._jitter = jitter or random.Random()  # noqa: S311 -- spreads retries, guards no secret
        self._waiting: dict[Hashable, dict[K, float]] = {}  # by group, when each was added; a dict keeps that order
        self._available = asyncio.Semaphore(0)  # counts the keys in `_waiting`
        self._working: set[K] = set()
        self._busy: Counter[Hashable] = Counter()  # how many keys of each group are worked on
        self._dirty: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._held: dict[K, float] = {}  # until when
        self._taken_at = float("-inf")

    def add(self, key: K) -> None:
        if self._held.get(key, 0.0) > _now():
            self.add_after(key, self._held[key] - _now())
        elif key in self._working:
            self._dirty.add(key)
        else:
            waiting = self._waiting.setdefault(self._group(key), {})
            if key not in waiting:
                waiting[key] = _now()
                self._available.release()

    def add_after(self, key: K, seconds: float) -> None:
        """Add it later; of several such wishes for one key the earliest counts."""
        timer = self._timers.get(key)
        due = _now() + seconds
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due, self._ring, key)

    def retry(self, key: K, *, at_least: float = 0.0) -> None:
        """Add it after a delay that grows with each failure in a row; until `at_least` is over nothing else adds it either."""
        at_least = min(at_least, LONGEST_BACKOFF_SECONDS)
        if at_least:
            self._held[key] = _now() + at_least
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded because a float overflows at 2**1024.
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures, 20))
        self.add_after(key, max(at_least, self._jitter.uniform(0, longest)))

    def forget(self, key: K) -> None:
        """It succeeded: the next failure counts as the first."""
        self._failures.pop(key, None)
        self._held.pop(key, None)

    async def get(self) -> K:
        """The next key; `done()` must follow."""
        await self._available.acquire()
        group = min(self._waiting, key=lambda group: (self._busy[group], self._oldest_in(group)))
        waiting = self._waiting[group]
        key = next(iter(waiting))
        del waiting[key]
        if not waiting:
            del self._waiting[group]
        self._working.add(key)
        self._busy[group] += 1
        self._taken_at = _now()
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        self._busy -= Counter([self._group(key)])
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    @property
    def depth(self) -> int:
        """How many keys wait for a worker; one that waits for a timer does not."""
        return sum(map(len, self._waiting.values()))

    @property
    def oldest_seconds(self) -> float:
        """How long the first in line has been waiting."""
        return _now() - min(map(self._oldest_in, self._waiting)) if self._waiting else 0.0

    @property
    def stuck_seconds(self) -> float:
        """How long there has been a key to take, and none was taken."""
        return min(self.oldest_seconds, _now() - self._taken_at)

    async def run(
        self,
        workers: int,
        handle: Callable[[K], Awaitable[None]],
        *,
        failed: Callable[[K, Exception], float],
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Work until cancelled. `failed` is told each failure, a missed deadline too, and says how long to wait at least."""

        slow: set[asyncio.Task[None]] = set()

        async def work() -> None:
            while True:
                key = await self.get()
                working = group.create_task(self._work_on(key, handle, failed, deadline), name=f"pass over {key}")
                await asyncio.wait({working}, timeout=SLOW_SECONDS)
                while not working.done() and len(slow) >= SLOW_AT_ONCE:
                    await asyncio.wait({working, *slow}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    slow.add(working)
                    working.add_done_callback(slow.discard)

        # What a standby collected did not wait for workers: there were none.
        self._waiting = {group: dict.fromkeys(waiting, _now()) for group, waiting in self._waiting.items()}
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(work(), name=f"worker {number}")

    async def _work_on(
        self,
        key: K,
        handle: Callable[[K], Awaitable[None]],
        failed: Callable[[K, Exception], float],
        deadline: float,
    ) -> None:
        try:
            async with asyncio.timeout(deadline):
                await handle(key)
        except Exception as error:  # one key's failure, whatever it is, must not stop the others
            self.retry(key, at_least=failed(key, error))
        else:
            self.forget(key)
        finally:
            self.done(key)

    def _oldest_in(self, group: Hashable) -> float:
        return next(iter(self._waiting[group].values()))

    def _ring(self, key: K) -> None:
        del self._timers[key]
        self.add(key)


def _now() -> float:
    return asyncio.get_running_loop().time()
