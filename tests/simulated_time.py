"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do: hours in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.BaseSelector):
    """Waits for no time at all, but notes how long it was asked to."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.elapsed = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if timeout is None and not ready:
            raise RuntimeError("nothing is left that could ever happen: the test waits for ever")
        if not ready:
            self.elapsed += max(timeout or 0.0, 0.0)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time` and every `sleep` and timeout follow the simulated clock."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a test to its end on a fresh simulated clock."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(test)


def now() -> datetime:
    """The wall clock of the running simulation."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())
