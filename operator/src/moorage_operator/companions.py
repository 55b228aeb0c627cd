"""What works beside reconciling, in its own time. A pass reads what each of them knows, says what it wants of it, and waits for none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from moorage_operator.core.actions import Measure
from moorage_operator.core.counted import Sample
from moorage_operator.core.names import Key
from moorage_operator.core.notices import Errand, Report
from moorage_operator.core.observed import Answer
from moorage_operator.core.registry import ModelRef
from moorage_operator.core.routing import RouterView


class Answers(Protocol):
    """What the registries said (`pollers.Pollers`)."""

    def answer(self, registry: str, ref: ModelRef) -> Answer | None:
        """The last answer, or None; then it is being asked for, and the key is queued again when it comes."""


class Routers(Protocol):
    """What the routers hold (`routers.Routers`)."""

    def view(self, key: Key) -> RouterView:
        """As the agents said last."""

    def has_asked(self, namespace: str) -> bool:
        """Whether this process has asked all router pods that are ready."""

    def awaited(self, key: Key, *, by: bool) -> None:
        """Whether this ModelDeployment waits for its routers; then they are asked often."""


class Meter(Protocol):
    """What routers and runtimes count while a rollout is judged (`meter.Meter`)."""

    def sample(self, key: Key) -> Sample | None:
        """What happened since the look that was heeded last."""

    def measure(self, key: Key, wanted: Measure | None, *, heeded: Sample | None) -> None:
        """What to count from now on; `heeded` is the sample whose consequences are in the status."""


class Errands(Protocol):
    """What registries are told (`tellers.Tellers`)."""

    def reports(self, key: Key) -> Mapping[Errand, Report]:
        """What has come of the errands that are wanted; the key is queued again when there is more."""

    def want(self, key: Key, errands: Collection[Errand]) -> None:
        """Just these are still to be done."""
