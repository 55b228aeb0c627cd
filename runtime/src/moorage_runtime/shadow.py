"""Shadows: after a request is answered, the same request goes to another revision, its answer is compared, counted, and thrown away.

A bounded queue and a few threads of its own: the caller has its answer before anything here begins, and what can't be done soon is
dropped and counted. So is what the other revision has no capacity for: that says nothing of its answers. The threads compute in the
interpreter that answers the callers, so they may only take a small share of its time. No web framework here.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from moorage_runtime import arms, feedback, peers, revisions, telemetry
from moorage_runtime.codecs import comparing

logger = logging.getLogger(__name__)

HEADER = "x-moorage-shadow"
MAX_BYTES = 256 * 1024
"""Of a request and its answer together: larger ones are not copied."""

MAX_ANSWER_BYTES = 2 * MAX_BYTES
"""Of the other revision. What is much larger is no equal answer, and reading it as JSON would stop the interpreter."""

MAX_WAITING = 32
WORKERS = 2
CPU_SHARE = 0.02
"""Of one core, for all workers together. Each call of theirs into the system hands the interpreter over and back: callers lose more
than that share, measured at 0.1 about twice of it, and without a bound half of what the pod can answer."""

TIMEOUT_SECONDS = 5.0
SLOW_SECONDS = 2.0
"""A revision that takes longer to answer has no capacity to spare for copies."""

FAILURES_IN_A_ROW = 5
PAUSE_SECONDS = 30.0

_OVERLOADED = (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE)

AGREE, DISAGREE, FAILED, DROPPED = "agree", "disagree", "failed", "dropped"


@dataclass(frozen=True)
class Copy:
    """A request that was answered with `answer`, and where its copy goes."""

    revision: str
    protocol: str
    path: str
    content_type: str
    body: bytes
    answer: bytes
    identifier: str


class Overloaded(Exception):
    """The other revision says that it can take no more for now."""


Send: TypeAlias = Callable[[Copy, float], tuple[int, bytes]]
"""Status and body of the other revision's answer. Raises `Overloaded`, `TimeoutError` where there is none within so many seconds, and
another `OSError` or `http.client.HTTPException` where there is no whole one at all."""


class Shadows:
    """`offer` never waits and never raises: it runs on the way of the caller's next request."""

    def __init__(
        self,
        *,
        revision: str,
        metrics: telemetry.Metrics,
        answers: feedback.Answers,
        send: Send,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._revision = revision
        self._metrics = metrics
        self._answers = answers
        self._send = send
        self._now = now
        self._waiting: queue.Queue[Copy | None] = queue.Queue(MAX_WAITING)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._paused_until: dict[str, float] = {}
        self._over = threading.Event()

    def target(self, marked: bytes, arm: str) -> str:
        """The revision that a copy goes to: another one of this deployment, and never from a copy. Empty for all else.

        Nothing else that a header may name is ever resolved.
        """
        revision = marked.decode("latin-1")
        if not marked or arm == arms.SHADOW or revision == self._revision:
            return ""
        return revision if revisions.is_sibling(revision, self._revision) else ""

    def offer(self, copy: Copy) -> None:
        if (
            self._over.is_set()
            or len(copy.body) + len(copy.answer) > MAX_BYTES
            or self._now() < self._paused_until.get(copy.revision, 0)
        ):
            self._count(copy, DROPPED)
            return
        if not self._threads:
            self._start()
        try:
            self._waiting.put_nowait(copy)
        except queue.Full:
            self._count(copy, DROPPED)

    def close(self) -> None:
        """What waits is dropped: nobody waits for it."""
        self._over.set()
        try:
            while True:
                copy = self._waiting.get_nowait()
                if copy is not None:
                    self._count(copy, DROPPED)
        except queue.Empty:
            for _ in self._threads:
                self._waiting.put_nowait(None)

    def _start(self) -> None:
        for number in range(WORKERS):
            # A daemon: it may wait for another pod's answer when the process ends.
            thread = threading.Thread(target=self._work, name=f"shadow_{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (copy := self._waiting.get()) is not None:
            began, computed = time.monotonic(), time.thread_time()
            try:
                self._count(copy, self._outcome(copy))
            except Exception:
                logger.exception("a shadow failed in the runtime itself")
                self._count(copy, FAILED)
            self._over.wait(rest(time.monotonic() - began, time.thread_time() - computed))

    def _outcome(self, copy: Copy) -> str:
        if self._now() < self._paused_until.get(copy.revision, 0):
            return DROPPED
        started = self._now()
        try:
            status, answer = self._send(copy, TIMEOUT_SECONDS)
        except Overloaded:
            # Its callers may be refused next, and a guard would call that its fault.
            self._note(copy.revision, times=FAILURES_IN_A_ROW)
            return DROPPED
        except (OSError, http.client.HTTPException) as error:
            self._note(copy.revision, times=1)
            return DROPPED if isinstance(error, TimeoutError) else FAILED
        # A model that fails on every copy is the very thing to be found out: that stops nothing.
        self._note(copy.revision, times=0 if self._now() - started <= SLOW_SECONDS else 1)
        return self._compared(copy, answer) if status == http.client.OK else FAILED

    def _compared(self, copy: Copy, answer: bytes) -> str:
        try:
            theirs = comparing.outputs(copy.protocol, answer)
            same = comparing.agree(comparing.outputs(copy.protocol, copy.answer), theirs)
        except comparing.NoAnswer:
            return FAILED
        self._answers.keep_shadow(copy.identifier, copy.revision, answer)
        return AGREE if same else DISAGREE

    def _note(self, revision: str, *, times: int) -> None:
        """How many times in a row it was too slow, or not there; none begins anew."""
        with self._lock:
            failures = self._failures.get(revision, 0) + times if times else 0
            if failures >= FAILURES_IN_A_ROW:
                logger.warning("no shadows to %s for %g s: it is slow or overloaded", revision, PAUSE_SECONDS)
                self._paused_until = {revision: self._now() + PAUSE_SECONDS}
                failures = 0
            self._failures = {revision: failures}  # there is one canary at a time

    def _count(self, copy: Copy, outcome: str) -> None:
        self._metrics.shadowed(copy.revision, outcome)


def rest(took: float, computed: float) -> float:
    """Seconds until a worker may begin the next copy; waiting for an answer was rest, too."""
    return max(0.0, computed * WORKERS / CPU_SHARE - took)


def by_http(port: int, model: str) -> Send:
    """To the revision's headless Service, whose pods listen where this one does."""

    def send(copy: Copy, seconds: float) -> tuple[int, bytes]:
        # The version in a path is this revision's.
        path = f"/v2/models/{model}/infer" if copy.protocol == "v2" else copy.path
        headers = {"content-type": copy.content_type, arms.HEADER: arms.SHADOW}
        to = (copy.revision, port)
        answer = peers.post(to, path, copy.body, headers=headers, seconds=seconds, at_most=MAX_ANSWER_BYTES)
        if answer.status in _OVERLOADED and answer.asks_to_wait:
            raise Overloaded
        if answer.status == http.client.GATEWAY_TIMEOUT:
            raise TimeoutError
        return answer.status, answer.body

    return send
