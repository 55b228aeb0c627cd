"""One model and its life: Loading → Ready or Failed, predictions in a bounded thread pool, draining. No web framework here.

The event loop only waits: loading and predicting happen in threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from moorage_runtime import engines, errors, feedback, limits, telemetry, threads
from moorage_runtime.codecs import answers, arrays
from moorage_runtime.codecs import signature as signatures

logger = logging.getLogger(__name__)

WEDGED_SECONDS = 120.0
"""A prediction that runs for longer holds its thread for good: the process says so at /healthz and is started again."""


@dataclass(frozen=True)
class Model:
    """A model that answers, and all that its descriptions are made of."""

    engine: engines.Engine
    signature: signatures.Signature
    example: arrays.Arrays
    """What it was warmed up with: from the model's own input example, or made from the signature."""


@dataclass(frozen=True)
class Loading:
    pass


@dataclass(frozen=True)
class Ready:
    model: Model


@dataclass(frozen=True)
class Failed:
    error: errors.LoadError


State: TypeAlias = Loading | Ready | Failed


class ModelService:
    """Predicts as soon as `load` has ended well; what it is asked before that is `NotReady`."""

    def __init__(
        self,
        *,
        name: str,
        version: str,
        metrics: telemetry.Metrics,
        bounds: limits.Limits | None = None,
        address: str = "",
    ) -> None:
        self.name = name
        self.version = version
        self.metrics = metrics
        self.limits = bounds or limits.Limits()
        self.feedback = feedback.Feedback(revision=metrics.revision, address=address, metrics=metrics)
        self.state: State = Loading()
        self.draining = False
        self._pool = concurrent.futures.ThreadPoolExecutor(threads.workers(), thread_name_prefix="model")
        self._running: dict[object, float] = {}
        self._admitted = 0
        self._change = asyncio.Event()

    async def load(self, loader: Callable[[], Model]) -> None:
        """Run the loader in a thread; afterwards `state` tells how it went. Never raises for a model's fault."""
        started = time.monotonic()
        try:
            model = await asyncio.get_running_loop().run_in_executor(self._pool, loader)
        except errors.LoadError as error:
            if error.__cause__ is not None:  # a library's own words; the reason itself is logged as the process ends
                logger.error("the model can't be loaded", exc_info=error.__cause__)
            self.state = Failed(error)
            self.tell()
            return
        seconds = time.monotonic() - started
        self.metrics.loaded(seconds)
        self.state = Ready(model)
        self.tell()
        logger.info("%s version %s is ready on %s in %.2f s", self.name, self.version, model.engine.name, seconds)

    @property
    def model(self) -> Model:
        """The loaded model; `NotReady` while there is none."""
        match self.state:
            case Ready(model):
                return model
            case Failed(error):
                raise errors.NotReady(f"the model can't be served: {error}")
        raise errors.NotReady("the model is being loaded: try again in a moment")

    async def predict(self, inputs: arrays.Arrays, *, seconds: float | None = None) -> answers.Prediction:
        """Run the model on one request's arrays, in the seconds that the caller has, if that is less than the limit.

        What the model raises is a `ModelFault`, its own words go to the log.
        """
        engine = self.model.engine
        if self._admitted >= self.limits.max_concurrency:
            raise errors.Overloaded(
                f"{self._admitted} requests are being answered, no more are taken: try again in a moment"
            )
        allowed = self.limits.request_timeout_seconds
        work = [inputs]
        self._admitted += 1
        try:
            async with asyncio.timeout(allowed if seconds is None else min(seconds, allowed)) as deadline:
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, engine, work)
        except Exception as error:
            if deadline.expired():
                raise errors.DeadlineExceeded("no prediction in the time that the request had") from error
            logger.exception("the model failed on a request")
            raise errors.ModelFault(
                "the model failed on this input, which its signature allows: the log of the pod has the reason"
            ) from error
        finally:
            self._admitted -= 1
            work.clear()  # what was given up may wait for its thread for long: not with its arrays

    def drain(self) -> None:
        """From now on not ready, and answering all the same."""
        self.draining = True
        self.tell()

    def change(self) -> asyncio.Event:
        """Set when readiness may have changed after this call."""
        return self._change

    def tell(self) -> None:
        """Wake up those who wait for a change."""
        change, self._change = self._change, asyncio.Event()
        change.set()

    def require(self, name: str, version: str) -> None:
        """`NotFound` for any other model; no version means the one that is here."""
        if name != self.name or version not in ("", self.version):
            raise errors.NotFound(f"this server has the model {self.name} in version {self.version}, and no other")

    def not_ready_because(self) -> str:
        """Empty while requests are welcome."""
        if self.draining:
            return "draining: this pod is about to end"
        match self.state:
            case Ready():
                return ""
            case Failed(error):
                return f"{error.reason}: {error}"
        return "loading the model"

    def unhealthy_because(self, now: float) -> str:
        """Empty while the process does its work; `now` is on the monotonic clock."""
        oldest = min(list(self._running.values()), default=now)
        if now - oldest > WEDGED_SECONDS:
            return f"a prediction has been running for {now - oldest:.0f} s"
        return ""

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, engine: engines.Engine, work: list[arrays.Arrays]) -> answers.Prediction:
        inputs = work.pop()
        key = object()
        self._running[key] = time.monotonic()
        try:
            return engine.predict(inputs)
        finally:
            del self._running[key]
