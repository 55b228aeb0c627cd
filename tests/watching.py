"""Every value that something in the cluster takes, also between two looks: by a watch of kubectl."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from fixtures_cluster import MODEL_DEPLOYMENT
from place import Place

WEIGHTS = "{.status.weights.desired},{.status.weights.applied}"


@contextlib.contextmanager
def values(place: Place, *which: str, jsonpath: str) -> Iterator[list[str]]:
    """What `kubectl get WHICH` shows within the block, a line for each change; whole when the block has ended."""
    seen: list[str] = []
    command = [place.api.program(), "--namespace", place.name, "get", *which, "--watch"]
    command.append(f"--output=jsonpath={jsonpath}{{'\\n'}}")
    with subprocess.Popen(command, env=place.api.environment(), stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        seen.append(watch.stdout.readline().rstrip("\n"))
        try:
            yield seen
        finally:
            watch.terminate()
            seen += [line.rstrip("\n") for line in watch.stdout]


@contextlib.contextmanager
def weights(place: Place, name: str) -> Iterator[list[tuple[str, int]]]:
    """Of a rollout: each one that was `desired` or, as all routers say, `applied`."""
    found: list[tuple[str, int]] = []
    with values(place, MODEL_DEPLOYMENT, name, jsonpath=WEIGHTS) as lines:
        yield found
    for line in lines:
        desired, applied = line.split(",")
        found += [(kind, int(text)) for kind, text in (("desired", desired), ("applied", applied)) if text]
