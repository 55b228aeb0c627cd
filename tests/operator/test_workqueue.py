from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import pytest

import simulated_time
from moorage_operator.workqueue import LONGEST_BACKOFF_SECONDS, SLOW_AT_ONCE, SLOW_SECONDS, WorkQueue


class MostJitter(random.Random):
    """Always the longest delay."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def clock() -> float:
    return asyncio.get_running_loop().time()


class Recorder:
    """A handler that fails as often as it is told, takes its time, and notes when it was called."""

    def __init__(self, *, failures: int = 0, seconds: float = 0.0) -> None:
        self.calls: list[tuple[object, float]] = []
        self.errors: list[str] = []
        self.at_least = 0.0
        self._failures = failures
        self._seconds = seconds

    async def handle(self, key: object) -> None:
        self.calls.append((key, clock()))
        await asyncio.sleep(self._seconds)
        if self._failures:
            self._failures -= 1
            raise ValueError(key)

    def failed(self, key: object, error: Exception) -> float:
        self.errors.append(f"{key}: {type(error).__name__}")
        return self.at_least


async def work(queue: WorkQueue[str], recorder: Recorder, *, workers: int = 1, until: float) -> None:
    """Let the workers run for so many simulated seconds."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(until):
            await queue.run(workers, recorder.handle, failed=recorder.failed)


def simulate(test: Coroutine[Any, Any, None]) -> None:
    simulated_time.run(test)


def test_a_key_added_twice_is_handled_once() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder()
        for key in ("a", "b", "a"):
            queue.add(key)
        await work(queue, recorder, until=1)

        assert recorder.calls == [("a", 0), ("b", 0)]

    simulate(scenario())


def test_a_key_added_while_it_is_handled_is_handled_once_more_afterwards() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(seconds=2)
        queue.add("a")
        for moment in (0.5, 1.0, 1.5):
            queue_loop = asyncio.get_running_loop()
            queue_loop.call_at(moment, queue.add, "a")
        await work(queue, recorder, workers=3, until=10)

        assert recorder.calls == [("a", 0), ("a", 2)]

    simulate(scenario())


def test_different_keys_are_handled_at_the_same_time_by_so_many_workers() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(seconds=0.4)
        for key in "abc":
            queue.add(key)
        await work(queue, recorder, workers=2, until=10)

        assert recorder.calls == [("a", 0), ("b", 0), ("c", 0.4)]

    simulate(scenario())


def test_failures_in_a_row_wait_longer_and_longer_up_to_the_cap_and_success_starts_over() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](jitter=MostJitter()), Recorder(failures=12)
        queue.add("a")
        await work(queue, recorder, until=1000)
        times = [moment for _, moment in recorder.calls]
        waits = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]

        assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 120, 120]

        recorder._failures = 1
        queue.add("a")
        await work(queue, recorder, until=10)
        assert recorder.calls[-1][1] - recorder.calls[-2][1] == pytest.approx(0.2)

    simulate(scenario())


def test_the_hook_can_make_a_retry_wait_longer() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(failures=1)
        recorder.at_least = 7
        queue.add("a")
        await work(queue, recorder, until=20)

        assert recorder.calls == [("a", 0), ("a", 7)]
        assert recorder.errors == ["a: ValueError"]

    simulate(scenario())


def test_what_the_hook_says_holds_for_whoever_adds_the_key_meanwhile() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(failures=1, seconds=0.2)
        recorder.at_least = 7
        queue.add("a")
        for moment in (0.1, 3.0, 5.0, 8.0):
            asyncio.get_running_loop().call_at(moment, queue.add, "a")
        await work(queue, recorder, until=20)

        assert recorder.calls == [("a", 0), ("a", 7.2), ("a", 8)]

    simulate(scenario())


def test_the_hook_can_put_nothing_off_for_ever() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(failures=1)
        recorder.at_least = 1e9
        queue.add("a")
        await work(queue, recorder, until=500)

        assert recorder.calls == [("a", 0), ("a", LONGEST_BACKOFF_SECONDS)]

    simulate(scenario())


def test_the_next_key_is_one_of_the_group_that_is_worked_on_least() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](group=lambda key: key[0]), Recorder(seconds=0.4)
        for key in ("a1", "a2", "a3", "b1", "b2"):
            queue.add(key)
        await work(queue, recorder, workers=2, until=10)

        assert recorder.calls == [("a1", 0), ("b1", 0), ("a2", 0.4), ("b2", 0.4), ("a3", 0.8)]

    simulate(scenario())


def test_a_worker_waits_for_a_slow_key_only_so_long_and_for_too_many_of_them_longer() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[int](), Recorder(seconds=40)
        for key in range(SLOW_AT_ONCE + 2):
            queue.add(key)
        running = asyncio.create_task(queue.run(1, recorder.handle, failed=recorder.failed, deadline=60))
        await asyncio.sleep(100)
        moments = [moment for _, moment in recorder.calls]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert moments[1] == SLOW_SECONDS
        assert max(begun_in_the_last_40_seconds(moments)) == SLOW_AT_ONCE + 1

    def begun_in_the_last_40_seconds(moments: list[float]) -> list[int]:
        return [len([begun for begun in moments if moment - 40 < begun <= moment]) for moment in moments]

    simulate(scenario())


def test_a_line_that_gets_shorter_is_not_stuck() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(seconds=20)
        assert queue.stuck_seconds == 0
        for number in range(200):
            queue.add(str(number))
        running = asyncio.create_task(queue.run(1, recorder.handle, failed=recorder.failed))
        await asyncio.sleep(40)
        assert queue.oldest_seconds == 40
        assert queue.stuck_seconds < 20
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.sleep(100)
        assert queue.stuck_seconds > 90

    simulate(scenario())


def test_jitter_is_full() -> None:
    async def scenario() -> None:
        queue = WorkQueue[int](jitter=random.Random(1))
        for key in range(1000):
            queue.retry(key)
        delays = [timer.when() for timer in queue._timers.values()]

        assert 0 <= min(delays) < 0.01
        assert 0.19 < max(delays) <= 0.2

    simulate(scenario())


def test_of_two_wishes_for_later_the_earlier_counts() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder()
        for key, seconds in (("a", 5.0), ("a", 3.0), ("a", 9.0)):
            queue.add_after(key, seconds)
        await work(queue, recorder, until=20)

        assert recorder.calls == [("a", 3)]

    simulate(scenario())


def test_a_handler_that_hangs_is_cut_off_at_the_deadline_and_retried() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](jitter=MostJitter()), Recorder(seconds=40)
        queue.add("a")
        await work(queue, recorder, until=35)

        assert recorder.calls == [("a", 0), ("a", 30.2)]
        assert recorder.errors == ["a: TimeoutError"]

    simulate(scenario())


def test_depth_and_age_tell_of_the_line() -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]()
        assert (queue.depth, queue.oldest_seconds) == (0, 0)
        queue.add("a")
        await asyncio.sleep(2)
        queue.add("b")
        await asyncio.sleep(1)
        assert (queue.depth, queue.oldest_seconds) == (2, 3)
        assert await queue.get() == "a"
        assert (queue.depth, queue.oldest_seconds) == (1, 1)

    simulate(scenario())


def test_what_a_standby_collected_counts_as_waiting_only_since_there_are_workers() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(seconds=2)
        for key in "ab":
            queue.add(key)
        await asyncio.sleep(3600)
        running = asyncio.create_task(queue.run(1, recorder.handle, failed=recorder.failed))
        await asyncio.sleep(0.25)

        assert (queue.depth, queue.oldest_seconds) == (1, 0.25)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    simulate(scenario())


def test_a_cancelled_worker_loses_no_key() -> None:
    async def scenario() -> None:
        queue, recorder = WorkQueue[str](), Recorder(seconds=5)
        queue.add("a")
        await work(queue, recorder, until=1)
        queue.add("a")
        await work(queue, recorder, until=10)

        assert recorder.calls == [("a", 0), ("a", 1)]

    simulate(scenario())
