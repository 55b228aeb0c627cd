"""The work queue between what happens (watch events, polls, timers) and `reconcile(key)`. It knows nothing of either.

The semantics are client-go's: a key waits at most once, is worked on by one worker at a time, and a key that is added
while it is worked on is worked on once more afterwards. All of it belongs to one event loop, whose clock it uses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 120.0
DEADLINE_SECONDS = 30.0


class WorkQueue(Generic[K]):
    """First come, first served."""

    def __init__(self, *, jitter: random.Random | None = None) -> None:
        self._jitter = jitter or random.Random()  # noqa: S311 -- spreads retries, guards no secret
        self._waiting: dict[K, float] = {}  # when each was added; a dict keeps that order
        self._available = asyncio.Semaphore(0)  # counts `_waiting`
        self._working: set[K] = set()
        self._dirty: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting[key] = _now()
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
        """Add it after a delay that grows with each failure in a row."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded because a float overflows at 2**1024.
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures, 20))
        self.add_after(key, max(at_least, self._jitter.uniform(0, longest)))

    def forget(self, key: K) -> None:
        """It succeeded: the next failure counts as the first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; `done()` must follow."""
        await self._available.acquire()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    @property
    def depth(self) -> int:
        """How many keys wait for a worker; one that waits for a timer does not."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """How long the first in line has been waiting."""
        return _now() - next(iter(self._waiting.values())) if self._waiting else 0.0

    async def run(
        self,
        workers: int,
        handle: Callable[[K], Awaitable[None]],
        *,
        failed: Callable[[K, Exception], float],
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Work until cancelled. `failed` is told each failure, a missed deadline too, and says how long to wait at least."""

        async def work() -> None:
            while True:
                key = await self.get()
                try:
                    await self._handle(key, handle, failed, deadline)
                finally:
                    self.done(key)

        # What a standby collected did not wait for workers: there were none.
        self._waiting = dict.fromkeys(self._waiting, _now())
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(work(), name=f"worker {number}")

    async def _handle(
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

    def _ring(self, key: K) -> None:
        del self._timers[key]
        self.add(key)


def _now() -> float:
    return asyncio.get_running_loop().time()
