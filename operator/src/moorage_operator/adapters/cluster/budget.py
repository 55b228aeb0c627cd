"""A token bucket: how many writes a second all workers together may make."""

from __future__ import annotations

import asyncio


class Budget:
    """`take()` returns at once while the burst lasts, then `per_second` times a second, first come first served."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._burst_seconds = burst / per_second
        self._next_free = 0.0

    async def take(self) -> None:
        # Each taker reserves its own moment before it waits, so takers need no lock and keep their order.
        now = asyncio.get_running_loop().time()
        self._next_free = max(self._next_free, now - self._burst_seconds) + self._interval
        if self._next_free > now:
            await asyncio.sleep(self._next_free - now)
