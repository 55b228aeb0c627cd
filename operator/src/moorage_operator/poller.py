"""Asks one registry, again and again, what the references that are wanted now name; reconciling reads the answers.

It does no I/O of its own and decides nothing about models: it says when to ask, remembers what was answered, and
calls `on_change` when that differs from before. A registry that is down is asked by one probe an interval, not by all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from moorage_operator import errors
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.ports import Registry

PINNED_EVERY = 20
"""A version is immutable: once it is found, only every so many rounds see whether it is still there."""

DOWN_AFTER = 3
"""So many references in a row without an answer, or all there are, and it is the registry that is down."""

JITTER = 0.1
SPREAD = 0.5
"""The part of an interval over which the questions of a round are spread."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What is known of one reference. While the registry can't be reached, `version` stays what it was last."""

    version: ModelVersion | None
    error: errors.RegistryError | None
    last_good: ModelVersion | None
    since: datetime
    """When version or error became what they are."""
    checked_at: datetime
    """When the registry last answered, or failed to."""

    def looks_like(self, other: Answer) -> bool:
        """Would a person who reads both see the same?"""
        return (self.version, _shown(self.error)) == (other.version, _shown(other.error))


class Poller:
    """The answers of one registry. `run` until cancelled; all other methods are for the same event loop."""

    def __init__(
        self,
        registry: Registry,
        *,
        watched: Callable[[], Iterable[ModelRef]],
        on_change: Callable[[ModelRef], None],
        now: Callable[[], datetime],
        interval: float = 5.0,
        concurrency: int = 4,
        observe: Callable[[float, str], None] = lambda seconds, outcome: None,
    ) -> None:
        """`observe` gets the latency in seconds and the outcome ("ok" or an error's reason) of every question."""
        self._registry = registry
        self._watched = watched
        self._on_change = on_change
        self._now = now
        self._interval = interval
        self._concurrency = concurrency
        self._observe = observe
        self._round_number = 0
        self._asked_in: dict[ModelRef, int] = {}
        self._answers: dict[ModelRef, Answer] = {}
        self._queue: asyncio.Queue[ModelRef] = asyncio.Queue()
        self._queued: set[ModelRef] = set()
        self._asking: set[ModelRef] = set()
        self._ask_again: set[ModelRef] = set()
        self._unanswered: set[ModelRef] = set()
        self._down: errors.RegistryUnreachable | None = None

    def answer(self, ref: ModelRef) -> Answer | None:
        """What is known now; None where nothing is yet."""
        return self._answers.get(ref)

    def want(self, ref: ModelRef) -> None:
        """Ask soon, outside the rhythm. Many wishes are one question; none is sent to a registry that is down."""
        if ref not in self._queued:
            self._queued.add(ref)
            self._queue.put_nowait(ref)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._rounds())
            for _ in range(self._concurrency):
                tasks.create_task(self._work())

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            interval = self._interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
            next_round = loop.time() + interval
            try:
                await self._round(spread=interval * SPREAD)
            except Exception:
                log.exception("a round of questions to the registry failed; the next one comes in its time")
            await asyncio.sleep(next_round - loop.time())

    async def _round(self, *, spread: float) -> None:
        refs = set(self._watched())
        self._forget_all_but(refs)
        self._round_number += 1
        if self._down:
            await self._probe(refs)
            return
        due = [ref for ref in refs if self._is_due(ref)]
        for ref in due:
            self.want(ref)
            await asyncio.sleep(spread / len(due))

    async def _probe(self, refs: set[ModelRef]) -> None:
        """Ask one for all: the one that has waited longest, lest a single bad reference hides a good registry."""
        for ref in refs - self._answers.keys():
            self.want(ref)
        if idle := refs - self._asking:
            await self._ask(min(idle, key=self._asked_last))

    async def _work(self) -> None:
        while True:
            ref = await self._queue.get()
            self._queued.discard(ref)
            if self._down:
                self._settle(ref, None, self._down)
            elif ref in self._asking:
                self._ask_again.add(ref)  # the answer on its way may be older than the wish
            else:
                await self._ask(ref)

    async def _ask(self, ref: ModelRef) -> None:
        loop = asyncio.get_running_loop()
        self._asking.add(ref)
        self._asked_in[ref] = self._round_number
        asked_at = loop.time()
        try:
            version, error = await self._question(ref)
        finally:
            self._asking.discard(ref)
        was_open = self._is_open(ref)
        self._settle(ref, version, error)
        self._judge_registry(ref, error, was_open=was_open)
        if ref in self._ask_again:
            self._ask_again.discard(ref)
            self.want(ref)
        _guarded(self._observe, loop.time() - asked_at, error.reason if error else "ok")

    async def _question(self, ref: ModelRef) -> tuple[ModelVersion | None, errors.RegistryError | None]:
        try:
            return await self._registry.resolve(ref), None
        except errors.RegistryError as error:
            return None, error
        except Exception:
            log.exception("the registry adapter failed on %s", ref)
            return None, errors.RegistryUnreachable("the registry could not be asked: see the log of the operator")

    def _judge_registry(self, ref: ModelRef, error: errors.RegistryError | None, *, was_open: bool) -> None:
        """Is it this one reference that gets no answer, or does nobody?"""
        if not isinstance(error, errors.RegistryUnreachable):
            self._unanswered.clear()
            self._back_up()
            return
        self._unanswered.add(ref)
        others = (self._answers.keys() | self._queued | self._asking) - self._unanswered
        # References that never get an answer can't take the registry down again and again: one that got it must fail.
        several = len(self._unanswered) >= DOWN_AFTER and not was_open
        if self._down or several or not others:
            self._go_down(error)

    def _go_down(self, error: errors.RegistryUnreachable) -> None:
        if not self._down:
            log.warning("asking with one probe an interval from now on: %s", error)
        self._down = error
        for ref in list(self._answers):
            self._settle(ref, None, error)

    def _back_up(self) -> None:
        if self._down:
            log.info("the registry answers again")
            self._down = None
            for ref in filter(self._is_open, self._answers):
                self.want(ref)

    def _settle(self, ref: ModelRef, version: ModelVersion | None, error: errors.RegistryError | None) -> None:
        now = self._now()
        before = self._answers.get(ref)
        last_good = version or (before.last_good if before else None)
        if before and isinstance(error, errors.RegistryUnreachable):
            version = before.version  # nothing follows about the model
        answer = Answer(version, error, last_good, since=now, checked_at=now)
        if before and answer.looks_like(before):
            self._answers[ref] = replace(before, checked_at=now)
            return
        self._answers[ref] = answer
        _guarded(self._on_change, ref)

    def _is_due(self, ref: ModelRef) -> bool:
        answer = self._answers.get(ref)
        found_for_good = ref.version and answer and not answer.error
        return not found_for_good or self._round_number - self._asked_last(ref) >= PINNED_EVERY

    def _is_open(self, ref: ModelRef) -> bool:
        """Did its last question stay without an answer?"""
        answer = self._answers.get(ref)
        return bool(answer and isinstance(answer.error, errors.RegistryUnreachable))

    def _asked_last(self, ref: ModelRef) -> int:
        return self._asked_in.get(ref, 0)

    def _forget_all_but(self, refs: set[ModelRef]) -> None:
        for ref in self._answers.keys() - refs:
            del self._answers[ref]
        for ref in self._asked_in.keys() - refs:
            del self._asked_in[ref]
        self._unanswered &= refs


def _shown(error: errors.RegistryError | None) -> tuple[str, str] | None:
    return (error.reason, str(error)) if error else None


def _guarded(callback: Callable[..., None], *arguments: object) -> None:
    """A listener's failure is its own."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("a listener of the registry poll failed")
