"""What the conditions are made from, and what one is: the words that `conditions`, `scaling` and `status` share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelVersion
from moorage_operator.core.rollout import Progress
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.waiting import World

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    """A condition without its times; they are filled in when the status is made."""

    type: str
    status: Truth
    reason: Reason
    message: str

    @property
    def is_true(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True)
class Facts:
    """What all conditions are made from."""

    world: World
    progress: Progress
    version: ModelVersion | None
    problem: Problem | None
    """What stands in the way of knowing the wanted version, or of trying it."""
    wanted: str
    """Name of the wanted revision, or empty while it is not known."""

    @property
    def spec(self) -> Spec:
        return self.world.spec

    @property
    def observed(self) -> Observed:
        return self.world.observed

    @property
    def now(self) -> datetime:
        return self.world.now

    @property
    def state(self) -> State:
        """After this pass."""
        return self.progress.state
