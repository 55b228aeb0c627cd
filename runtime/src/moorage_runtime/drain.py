"""How the process leaves without losing a request: not ready → go on accepting while that spreads → then the server may stop.

Whoever asks first starts it (preStop's /drain, or SIGTERM); everyone else waits for the same end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from moorage_runtime import service

logger = logging.getLogger(__name__)


class Drainer:
    def __init__(
        self, served: service.ModelService, seconds: float, *, give_up: Callable[[], None] = lambda: None
    ) -> None:
        """`give_up` ends what nobody waits for, as soon as the drain begins."""
        self._served = served
        self._give_up = give_up
        self._seconds = seconds
        self._spread: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Returns when every router has had time to see that this pod is not ready."""
        if self._spread is None:
            self._served.drain()
            self._give_up()
            logger.info("draining: not ready, accepting for another %g s", self._seconds)
            self._spread = asyncio.create_task(asyncio.sleep(self._seconds))
        # A caller that goes away does not end the wait of the others.
        await asyncio.shield(self._spread)
