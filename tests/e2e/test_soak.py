"""Random changes for a long time, while a pod ends every half minute: all of them converge or say why, nobody goes without an answer, and
the operator does not grow. MOORAGE_SOAK_MINUTES says for how long.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

import load
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

MINUTES = float(os.environ.get("MOORAGE_SOAK_MINUTES", "30"))
NAME, MODEL = "soaked", "digits-soaked"
STEPS: list[Object] = [{"setWeight": 20}, {"pause": {"duration": 1}}, {"setWeight": 60}, {"pause": {"duration": 1}}]
PODS = "app.kubernetes.io/managed-by=moorage"
SIZE = """
import os
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
print(status["VmRSS"].split()[0], len(os.listdir("/proc/1/fd")), status["Threads"])
"""


@dataclass(frozen=True)
class Size:
    """Of the operator's process."""

    megabytes: float
    files: int
    threads: int


@dataclass
class Owner:
    """Of a model: changes this and that, and says when all is as wanted, or why it is not."""

    place: Place
    registry: Registry
    luck: random.Random
    done: list[str] = field(default_factory=list)
    version: str = "1"

    def moves_the_alias(self) -> None:
        self.version = self.luck.choice("123")
        self.registry.set_alias(MODEL, self.version)

    def wants_more_or_fewer_pods(self) -> None:
        self.place.change(NAME, replicas=self.luck.choice((2, 3)))

    def wants_other_pods(self) -> None:
        self.place.change(NAME, resources={"requests": {"cpu": f"{self.luck.randint(50, 59)}m"}})

    def restarts_it(self) -> None:
        self.place.change(NAME, restartAt=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def wants_other_steps(self) -> None:
        self.place.change(NAME, rollout={"steps": self.luck.choice(([], STEPS[:2], STEPS))})

    def gives_up_or_hurries(self) -> None:
        canary = self.place.status(NAME).get("canary")
        if canary:
            command = self.luck.choice(("abort", "promoteFull"))
            self.place.kubectl(
                "annotate", "--overwrite", "mdep", NAME, f"moorage.dev/command={command}@{canary['revision']}"
            )

    def mistypes_the_alias(self) -> None:
        self.place.change(NAME, model={"alias": "nobody"})
        self.place.wait_for_reason(NAME, "AliasNotFound")
        self.place.change(NAME, model={"alias": "champion"})

    def acts(self) -> None:
        what = self.luck.choice(
            [
                self.moves_the_alias, self.moves_the_alias, self.wants_more_or_fewer_pods, self.wants_other_pods,
                self.restarts_it, self.wants_other_steps, self.gives_up_or_hurries, self.mistypes_the_alias,
            ]
        )  # fmt: skip
        self.done.append(what.__name__)
        what()

    def wait(self) -> None:
        until(240, "all is done", self._is_done, lambda: [self.done[-5:], self.place.model(NAME)])

    def _is_done(self) -> bool:
        model = self.place.model(NAME)
        status: dict[str, Any] = model["status"]
        if status["observedGeneration"] != model["metadata"]["generation"] or status.keys() & {"canary", "leaving"}:
            return False
        return bool(status.get("rejected")) or (
            status["stable"]["modelVersion"] == self.version and self.place.condition(NAME, "Ready")["status"] == "True"
        )


@contextlib.contextmanager
def pods_ending(place: Place, luck: random.Random) -> Iterator[list[str]]:
    """Every half minute one of the models' or the routers', as a node's drain would do it."""
    ended: list[str] = []
    over = threading.Event()

    def end_pods() -> None:
        while not over.wait(30):
            pods = [pod["metadata"]["name"] for pod in place.find("pods", PODS)]
            ended.append(luck.choice(pods))
            place.kubectl("delete", "pod", ended[-1], "--wait=false", "--ignore-not-found")

    thread = threading.Thread(target=end_pods)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def size_of(operator: Installation) -> Size:
    kilobytes, files, threads = operator.place.kubectl("exec", operator.leader(), "--", "python", "-c", SIZE).split()
    return Size(int(kilobytes) / 1024, int(files), int(threads))


def median(sizes: list[Size], what: str) -> float:
    return float(statistics.median(getattr(size, what) for size in sizes))


@pytest.mark.long
@pytest.mark.timeout(60 * MINUTES + 900)
def test_random_changes_for_a_long_time(
    place: Place, operator: Installation, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        registry.copy(MODEL)
    registry.set_alias(MODEL, "1")
    place.apply(a_model(NAME, MODEL, replicas=2, rollout={"steps": STEPS, "scaleDownDelaySeconds": 2}))
    place.wait_ready(NAME)
    luck = random.Random(1)
    owner = Owner(place, registry, luck)
    sizes = []
    ends = time.monotonic() + 60 * MINUTES
    leader = operator.leader()
    loaded = load.on(place, NAME, "digits-onnx", pause=0.05, by_grpc=MODEL, most_seconds=60 * MINUTES + 600)
    with loaded as running, pods_ending(place, luck) as ended:
        while time.monotonic() < ends:
            owner.acts()
            if luck.random() < 0.5:
                owner.wait()
                sizes.append(size_of(operator))
        owner.wants_other_pods()
        until(240, "it is Ready", lambda: place.condition(NAME, "Ready")["status"] == "True", lambda: place.model(NAME))
    third = len(sizes) // 3
    before, after = sizes[third : 2 * third], sizes[2 * third :]
    with capsys.disabled():
        sys.stdout.write(f"{len(owner.done)} changes, {len(ended)} pods ended, {running.said.splitlines()[-1]}\n")
        sys.stdout.write(f"{before[0]} became {after[-1]}\n")
    assert running.failed == 0, running.said
    assert operator.leader() == leader
    assert median(after, "megabytes") < median(before, "megabytes") + 5, sizes
    assert median(after, "files") <= median(before, "files") + 2, sizes
    assert median(after, "threads") <= median(before, "threads") + 1, sizes
