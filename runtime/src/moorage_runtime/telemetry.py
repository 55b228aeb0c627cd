"""What the runtime tells the outside: log lines, metrics, and the last words for the kubelet. It decides nothing."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import orjson
import prometheus_client

from moorage_runtime import arms

logger = logging.getLogger(__name__)

TERMINATION_MESSAGE_BYTES = 4096
"""The kubelet cuts what is longer."""

MAX_REVISIONS = 64
"""Of one deployment, over the life of a pod; those after them are counted together, as `other`."""

SECONDS_BUCKETS = (
    0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0,
)  # fmt: skip
"""Six for each power of ten: what a rollout's guard calls slow is rounded up to one of them."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(log_format: str) -> None:
    """One line a decision; libraries speak up only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(_JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("moorage_runtime").setLevel(logging.INFO)


def write_last_words(file: Path, words: Mapping[str, object]) -> None:
    """Leave the termination message; where the file can't be written (a laptop), the log has to do."""
    try:
        with file.open("wb") as stream:
            stream.write(_at_most(TERMINATION_MESSAGE_BYTES, dict(words)))
    except OSError:
        logger.debug("no termination message: %s can't be written", file)


def _at_most(limit: int, words: dict[str, object]) -> bytes:
    body = orjson.dumps(words)
    while len(body) > limit and words.get("message"):
        # Only the sentence can be long; half of it says more than broken JSON.
        message = str(words["message"])
        words["message"] = message[: len(message) // 2]
        body = orjson.dumps(words)
    return body


class Metrics:
    """The runtime's metrics, in a registry of their own: two runtimes in one process do not mix."""

    def __init__(self, *, model: str, version: str, revision: str) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        # Whoever compares two looks at the counters has to know whether the process is still the same one.
        prometheus_client.ProcessCollector(registry=self.registry)
        self.revision = revision
        self._labels = (model, version, revision)
        names = ["model", "version", "revision"]
        self._requests = prometheus_client.Counter(
            "moorage_requests_total",
            "Prediction requests answered, by the arm that the router marked them with, by protocol, and by HTTP code or gRPC status",
            [*names, "arm", "protocol", "code"],
            registry=self.registry,
        )
        self._seconds = prometheus_client.Histogram(
            "moorage_request_seconds",
            "Seconds from a prediction request's first byte to its answer",
            [*names, "arm", "protocol"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.arms = arms.Arms()
        # Finding a metric by its labels costs as much as decoding a small request: few are in use, so they are kept.
        self._answered: dict[tuple[str, int, str], tuple[prometheus_client.Counter, prometheus_client.Histogram]] = {}
        self._load = prometheus_client.Gauge(
            "moorage_model_load_seconds", "Seconds that loading and warming up took", names, registry=self.registry
        )
        self._in_flight = prometheus_client.Gauge(
            "moorage_in_flight_requests", "Prediction requests being answered now", names, registry=self.registry
        )
        self.in_flight = self._in_flight.labels(*self._labels)
        self._count_by_revision()

    def _count_by_revision(self) -> None:
        """What this pod counts for other revisions of its deployment, too: shadows and feedback."""
        self._revisions: set[str] = set()
        self._shadows = prometheus_client.Counter(
            "moorage_shadow_total",
            "Copies of answered requests for another revision, by what became of them",
            ["revision", "outcome"],
            registry=self.registry,
        )
        self._disagreements = prometheus_client.Counter(
            "moorage_shadow_disagreement_total",
            "Copies of answered requests that another revision answered otherwise",
            ["revision"],
            registry=self.registry,
        )
        self._judged = prometheus_client.Counter(
            "moorage_feedback_total",
            "Predictions of a revision of this deployment that were told to be right or wrong, by the arm they were made for",
            ["revision", "arm", "verdict"],
            registry=self.registry,
        )
        self._scored = prometheus_client.Summary(
            "moorage_feedback_score",
            "Scores from 0 to 1 that predictions of a revision were given, by the arm they were made for",
            ["revision", "arm"],
            registry=self.registry,
        )
        self._paired = prometheus_client.Counter(
            "moorage_feedback_pairs_total",
            "Labels of predictions that this pod and, as a shadow, the named revision made of the same request",
            ["revision", "outcome"],
            registry=self.registry,
        )

    def loaded(self, seconds: float) -> None:
        self._load.labels(*self._labels).set(seconds)

    def answered(self, protocol: str, code: int, seconds: float, arm: str = arms.UNMARKED) -> None:
        """`arm` is one of `arms.Arms.label`'s, which are few."""
        key = (protocol, code, arm)
        found = self._answered.get(key)
        if found is None:
            found = self._answered[key] = (
                self._requests.labels(*self._labels, arm, protocol, str(code)),
                self._seconds.labels(*self._labels, arm, protocol),
            )
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)

    def shadowed(self, revision: str, outcome: str) -> None:
        self._shadows.labels(self._known(revision), outcome).inc()
        if outcome == "disagree":
            self._disagreements.labels(self._known(revision)).inc()

    def judged(self, revision: str, arm: str, *, is_right: bool) -> None:
        verdict = "right" if is_right else "wrong"
        self._judged.labels(self._known(revision), self.arms.label(arm.encode()), verdict).inc()

    def scored(self, revision: str, arm: str, score: float) -> None:
        self._scored.labels(self._known(revision), self.arms.label(arm.encode())).observe(score)

    def paired(self, revision: str, outcome: str) -> None:
        self._paired.labels(self._known(revision), outcome).inc()

    def _known(self, revision: str) -> str:
        if len(self._revisions) < MAX_REVISIONS:
            self._revisions.add(revision)
        return revision if revision in self._revisions else arms.OTHER

    def exposition(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)
