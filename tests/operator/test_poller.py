"""When the poller asks, what it remembers, and whom it tells: on a simulated clock, with the registry in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import simulated_time
from fake_registry import FakeRegistry
from moorage_operator import errors
from moorage_operator.core.registry import ModelRef
from moorage_operator.poller import PINNED_EVERY, Answer, Poller

INTERVAL = 10.0
A_ROUND = INTERVAL * 1.2
"""Long enough for one whole round, whatever the jitter."""

CHAMPION = ModelRef("iris", alias="champion")
PINNED = ModelRef("iris", version="1")
DOWN = errors.RegistryUnreachable("registry 'fake' can't be reached")


class World:
    """A registry with the model iris, its champion being version 1, and a poller that watches `wanted`."""

    def __init__(self, *wanted: ModelRef, concurrency: int = 4) -> None:
        self.registry = FakeRegistry()
        self.registry.register("iris")
        self.registry.set_alias("iris", "champion", "1")
        self.wanted = list(wanted)
        self.told: list[ModelRef] = []
        self.observed: list[tuple[float, str]] = []
        self.fault: Exception | None = None
        self.poller = Poller(
            self.registry,
            watched=self._watched,
            on_change=self._listen,
            now=simulated_time.now,
            interval=INTERVAL,
            concurrency=concurrency,
            observe=self._observe,
        )

    @contextlib.asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """While the poller runs."""
        task = asyncio.create_task(self.poller.run())
        try:
            yield
            assert not task.done(), "the poller has ended by itself"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _watched(self) -> Iterable[ModelRef]:
        self._fail()
        return self.wanted

    def _listen(self, ref: ModelRef) -> None:
        self.told.append(ref)
        self._fail()

    def _observe(self, seconds: float, outcome: str) -> None:
        self.observed.append((seconds, outcome))
        self._fail()

    def _fail(self) -> None:
        if self.fault:
            raise self.fault

    def answer(self, ref: ModelRef = CHAMPION) -> Answer:
        found = self.poller.answer(ref)
        assert found is not None
        return found

    def asked(self) -> Counter[ModelRef]:
        return Counter(self.registry.questions)

    def add_aliases(self, count: int) -> list[ModelRef]:
        """So many more references, each of another alias, all wanted."""
        refs = [ModelRef("iris", alias=f"a{number}") for number in range(count)]
        for ref in refs:
            self.registry.set_alias("iris", ref.alias, "1")
        self.wanted += refs
        return refs


def simulated(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on the simulated clock."""

    def run() -> None:
        simulated_time.run(test())

    run.__name__ = test.__name__
    return run


@simulated
async def test_an_alias_that_moves_is_noticed_within_a_round_and_told_once() -> None:
    world = World(CHAMPION)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        world.registry.register("iris")
        world.registry.set_alias("iris", "champion", "2")
        await asyncio.sleep(3 * A_ROUND)
    version = world.answer().version
    assert version is not None
    assert version.version == "2"
    assert world.told == [CHAMPION, CHAMPION]


@simulated
async def test_nothing_is_told_while_nothing_changes_but_the_time_of_the_check_moves_on() -> None:
    world = World(CHAMPION)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        first = world.answer()
        await asyncio.sleep(10 * A_ROUND)
    assert world.told == [CHAMPION]
    assert world.answer().since == first.since
    assert world.answer().checked_at > first.checked_at


@simulated
async def test_references_that_are_equal_are_one_question_a_round() -> None:
    world = World(CHAMPION, ModelRef("iris", alias="champion"), CHAMPION)
    async with world.polling():
        await asyncio.sleep(INTERVAL * 0.6)
    assert world.asked() == {CHAMPION: 1}


@simulated
async def test_a_wish_is_answered_at_once_and_many_wishes_are_one_question() -> None:
    world = World()
    async with world.polling():
        await asyncio.sleep(INTERVAL * 0.1)
        for _ in range(5):
            world.poller.want(CHAMPION)
        await asyncio.sleep(0.01)
        assert world.answer().version is not None
    assert world.asked() == {CHAMPION: 1}


@simulated
async def test_a_wish_during_a_question_asks_once_more_for_the_answer_may_be_older_than_the_wish() -> None:
    world = World()
    world.registry.delay[CHAMPION] = 1.0
    async with world.polling():
        world.poller.want(CHAMPION)
        await asyncio.sleep(0.5)
        world.poller.want(CHAMPION)
        world.poller.want(CHAMPION)
        await asyncio.sleep(0.4)
        assert world.asked() == {CHAMPION: 1}, "two questions at once could be answered in the wrong order"
        await asyncio.sleep(3)
    assert world.asked() == {CHAMPION: 2}


@simulated
async def test_a_pinned_version_is_asked_every_round_only_while_it_fails() -> None:
    missing = ModelRef("iris", version="9")
    world = World(PINNED, missing)
    async with world.polling():
        await asyncio.sleep(INTERVAL * (PINNED_EVERY - 4))
        assert world.asked()[PINNED] == 1
        assert world.asked()[missing] >= PINNED_EVERY - 7
        await asyncio.sleep(INTERVAL * PINNED_EVERY)
    assert world.asked()[PINNED] == 2


@simulated
async def test_an_unreachable_registry_keeps_the_answer_and_marks_it() -> None:
    world = World(CHAMPION)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        good = world.answer().version
        world.registry.failure = DOWN
        await asyncio.sleep(A_ROUND)
    assert world.answer().version == good
    assert world.answer().error == DOWN
    assert world.told == [CHAMPION, CHAMPION]


@simulated
async def test_an_alias_that_is_gone_leaves_no_version_but_the_last_good_one_is_remembered() -> None:
    world = World(CHAMPION)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        good = world.answer().version
        world.registry.delete_alias("iris", "champion")
        await asyncio.sleep(A_ROUND)
    assert world.answer().version is None
    assert isinstance(world.answer().error, errors.AliasNotFound)
    assert world.answer().last_good == good


@simulated
async def test_a_registry_that_is_down_gets_one_probe_an_interval_and_all_references_are_marked() -> None:
    world = World(CHAMPION, PINNED)
    world.add_aliases(200)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        world.registry.failure = DOWN
        await asyncio.sleep(2 * A_ROUND)
        world.registry.questions.clear()
        await asyncio.sleep(10 * INTERVAL)
    assert 8 <= len(world.registry.questions) <= 12
    assert all(world.answer(ref).error == DOWN for ref in world.wanted)


@simulated
async def test_a_registry_that_comes_back_is_noticed_within_an_interval_and_all_references_heal() -> None:
    world = World(CHAMPION, PINNED)
    world.add_aliases(200)
    world.registry.failure = DOWN
    async with world.polling():
        await asyncio.sleep(3 * A_ROUND)
        world.registry.failure = None
        await asyncio.sleep(A_ROUND)
    assert [ref for ref in world.wanted if world.answer(ref).error] == []
    assert all(world.answer(ref).version for ref in world.wanted)


@simulated
async def test_a_wish_while_the_registry_is_down_is_answered_without_a_question() -> None:
    world = World(CHAMPION)
    world.registry.failure = DOWN
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        world.registry.questions.clear()
        for number in range(100):
            world.poller.want(ModelRef("iris", alias=f"new{number}"))
        await asyncio.sleep(0.01)
        assert world.answer(ModelRef("iris", alias="new99")).error == DOWN
        assert world.registry.questions == []


@simulated
async def test_references_that_never_get_an_answer_do_not_take_the_others_down() -> None:
    world = World(CHAMPION, *(ModelRef("iris", version=str(number)) for number in range(1, 4)))
    broken = world.add_aliases(5)
    for _ in range(2):
        world.registry.register("iris")
    world.registry.failures = dict.fromkeys(broken, DOWN)
    async with world.polling():
        await asyncio.sleep(5 * A_ROUND)
        world.told.clear()
        await asyncio.sleep(50 * A_ROUND)
    assert world.told == []
    assert [ref for ref in world.wanted if world.answer(ref).error] == broken


@simulated
async def test_one_reference_at_a_time_without_an_answer_is_no_registry_that_is_down() -> None:
    world = World(CHAMPION)
    world.add_aliases(5)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        for ref in world.wanted:
            world.registry.failures = {ref: DOWN}
            await asyncio.sleep(2 * A_ROUND)
            assert [other for other in world.wanted if world.answer(other).error] == [ref]


@simulated
async def test_a_reference_that_never_gets_an_answer_does_not_hide_that_the_registry_is_back() -> None:
    world = World(ModelRef("a-model", alias="first-of-all"), CHAMPION, PINNED)
    world.registry.failure = DOWN
    async with world.polling():
        await asyncio.sleep(3 * A_ROUND)
        world.registry.failure = None
        world.registry.failures = {world.wanted[0]: DOWN}
        await asyncio.sleep(4 * A_ROUND)
    assert [ref for ref in world.wanted if world.answer(ref).error] == world.wanted[:1]


@simulated
async def test_references_that_are_new_while_the_registry_is_down_are_marked_like_the_others() -> None:
    world = World(CHAMPION)
    world.registry.failure = DOWN
    async with world.polling():
        await asyncio.sleep(3 * A_ROUND)
        new = world.add_aliases(10)
        await asyncio.sleep(A_ROUND)
        assert [world.answer(ref).error for ref in new] == [DOWN] * 10


@simulated
async def test_a_slow_reference_does_not_slow_the_others() -> None:
    world = World(CHAMPION)
    slow = world.add_aliases(1)[0]
    world.registry.delay[slow] = 100 * INTERVAL
    async with world.polling():
        await asyncio.sleep(20 * A_ROUND)
    assert world.asked()[slow] == 1
    assert world.asked()[CHAMPION] >= 20


@simulated
async def test_a_round_never_has_more_questions_under_way_than_its_concurrency() -> None:
    world = World(concurrency=3)
    for ref in world.add_aliases(100):
        world.registry.delay[ref] = 1.0
    async with world.polling():
        for ref in world.wanted:
            world.poller.want(ref)
        await asyncio.sleep(1.5)
        assert len(world.registry.questions) == 6


@simulated
async def test_a_reference_that_nobody_wants_any_more_is_forgotten() -> None:
    world = World(CHAMPION)
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        world.wanted.clear()
        await asyncio.sleep(A_ROUND)
        world.registry.questions.clear()
        await asyncio.sleep(5 * A_ROUND)
    assert world.poller.answer(CHAMPION) is None
    assert world.registry.questions == []


@simulated
async def test_an_adapter_that_breaks_its_promise_is_a_registry_without_an_answer() -> None:
    world = World(CHAMPION)
    world.registry.failure = KeyError("password=hunter2")
    async with world.polling():
        await asyncio.sleep(A_ROUND)
        assert isinstance(world.answer().error, errors.RegistryUnreachable)
        assert "hunter2" not in str(world.answer().error)
        world.registry.failure = None
        await asyncio.sleep(2 * A_ROUND)
    assert world.answer().error is None


@simulated
async def test_an_index_or_a_listener_that_fails_does_not_end_the_poll() -> None:
    world = World(CHAMPION)
    world.fault = KeyError("a fault of the caller")
    async with world.polling():
        world.poller.want(CHAMPION)
        await asyncio.sleep(3 * A_ROUND)
        assert world.answer().version is not None
        world.registry.delete_alias("iris", "champion")
        world.fault = None
        await asyncio.sleep(2 * A_ROUND)
    assert world.told == [CHAMPION, CHAMPION]


@simulated
async def test_each_question_is_observed_with_its_latency_and_its_outcome() -> None:
    missing = ModelRef("iris", alias="nobody")
    world = World()
    world.registry.delay[CHAMPION] = 2.0
    async with world.polling():
        world.poller.want(CHAMPION)
        world.poller.want(missing)
        await asyncio.sleep(3)
    assert world.observed == [(0.0, "AliasNotFound"), (2.0, "ok")]
