"""What became of predictions: verdicts on their ids, counted for the revision and arm that the id names. No web framework here.

A verdict can be counted by any pod of the deployment. A label must be compared with the answer, which only the pod that gave it
remembers, for a while: a bounded number of small answers, in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_runtime import arms, errors, prediction_ids, revisions, telemetry
from moorage_runtime.codecs import comparing

MAX_ANSWERS = 10_000
MAX_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 1024
"""A larger answer is not remembered: who asks for so many rows at once can compare them, too."""

MAX_SEEN = 20_000
"""Ids of which a second verdict is known as such."""


@dataclass
class Remembered:
    """An answer as it was written, and what a shadow of the request was answered by another revision."""

    protocol: str
    body: bytes
    shadow: tuple[str, bytes] | None = None

    @property
    def size(self) -> int:
        return len(self.body) + (len(self.shadow[1]) if self.shadow else 0)


class Answers:
    """The latest small answers by their ids, of this pod. Shadows' threads write to it, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0

    def keep(self, identifier: str, protocol: str, body: bytes) -> None:
        if len(body) > MAX_ANSWER_BYTES:
            return
        with self._lock:
            self._answers[identifier] = Remembered(protocol, body)
            self._bytes += len(body)
            self._drop_the_oldest()

    def keep_shadow(self, identifier: str, revision: str, body: bytes) -> None:
        if len(body) > MAX_ANSWER_BYTES:
            return
        with self._lock:
            answer = self._answers.get(identifier)
            if answer is not None and answer.shadow is None:
                answer.shadow = (revision, body)
                self._bytes += len(body)
                self._drop_the_oldest()

    def get(self, identifier: str) -> Remembered | None:
        return self._answers.get(identifier)

    def _drop_the_oldest(self) -> None:
        while len(self._answers) > MAX_ANSWERS or self._bytes > MAX_BYTES:
            _, dropped = self._answers.popitem(last=False)
            self._bytes -= dropped.size


@dataclass(frozen=True)
class Report:
    """One caller's word on one prediction; exactly one of the three is given."""

    text: str
    id: prediction_ids.PredictionId
    correct: bool | None = None
    score: float | None = None
    label: Any = None


class Feedback:
    """The ids and answers of this pod, and the verdicts on those of all its siblings."""

    def __init__(self, *, revision: str, address: str, metrics: telemetry.Metrics) -> None:
        self.revision = revision or prediction_ids.LOCAL
        self.pod = prediction_ids.pod_name(address)
        self.answers = Answers()
        self._metrics = metrics
        self._seen: OrderedDict[str, None] = OrderedDict()

    def issue(self, arm: str, protocol: str, body: bytes) -> str:
        """An id for an answer, which is remembered with it."""
        identifier = prediction_ids.issue(self.revision, arm, self.pod)
        if arm != arms.SHADOW:  # nobody is told of that answer
            self.answers.keep(identifier, protocol, body)
        return identifier

    def report(self, content: Any) -> Report:
        """From the JSON of a request. Raises `InvalidInput` for all that can't be counted."""
        shape = "send an object with 'id' and one of 'correct', 'score' and 'label'"
        given = {"correct", "score", "label"} & set(content) if isinstance(content, dict) else set()
        if len(given) != 1 or set(content) != {"id", *given}:
            raise errors.InvalidInput(shape)
        identifier = prediction_ids.parse(content["id"])
        if not self._is_ours(identifier.revision):
            raise errors.InvalidInput("'id' is of another ModelDeployment's prediction")
        [kind] = given
        return Report(content["id"], identifier, **{kind: _CHECKS[kind](content[kind])})

    def is_elsewhere(self, report: Report) -> bool:
        """True if only another pod can judge: a label of a prediction that this one did not make."""
        return report.label is not None and (report.id.revision, report.id.pod) != (self.revision, self.pod)

    def count(self, report: Report) -> dict[str, Any]:
        """Count it, unless this pod has counted a verdict on the same id before; returns what to tell the caller."""
        told: dict[str, Any] = {"id": report.text, "revision": report.id.revision, "counted": False}
        if report.text in self._seen:
            return told
        verdict: dict[str, Any] = {}
        if report.score is not None:
            self._metrics.scored(report.id.revision, report.id.arm, report.score)
        else:
            is_right = self._judged(report) if report.correct is None else report.correct
            self._metrics.judged(report.id.revision, report.id.arm, is_right=is_right)
            verdict = {"correct": is_right}
        self._seen[report.text] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return {**told, **verdict, "counted": True}

    def _judged(self, report: Report) -> bool:
        answer = self.answers.get(report.text)
        if answer is None:
            raise errors.Gone("this pod no longer remembers the answer: send 'correct' or 'score' instead of 'label'")
        is_right = comparing.is_right(comparing.outputs(answer.protocol, answer.body), report.label)
        # Only a label makes a pair: "correct: false" says nothing of another answer that is different, and pairs that are left out
        # on one side only would make the other model look better than it is.
        if answer.shadow is not None:
            revision, body = answer.shadow
            other = comparing.is_right(comparing.outputs(answer.protocol, body), report.label)
            self._metrics.paired(revision, _PAIRS[is_right, other])
        return is_right

    def _is_ours(self, revision: str) -> bool:
        return revision == self.revision or revisions.is_sibling(revision, self.revision)


def _correct(value: Any) -> bool:
    if not isinstance(value, bool):
        raise errors.InvalidInput("'correct' must be true or false")
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise errors.InvalidInput("'score' must be a number from 0 to 1")
    return float(value)


def _label(value: Any) -> Any:
    if value is None or isinstance(value, dict):
        raise errors.InvalidInput("'label' must be a value, or a list with one value for each row of the prediction")
    return value


_CHECKS: Mapping[str, Any] = {"correct": _correct, "score": _score, "label": _label}

_PAIRS = {
    (True, True): "both_right",
    (True, False): "canary_wrong",
    (False, True): "stable_wrong",
    (False, False): "both_wrong",
}
