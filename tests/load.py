"""A steady load on a model from inside the cluster, through its Service, with a new connection for each question.

The script is that of the demo, in a pod of its own: so it also works where this process can't reach a Service's pods.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from string import Template

import yaml

from place import Place, until

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "hack/load"
PATHS = {"iris": "/predict", "digits-onnx": "/invocations"}


@dataclass
class Load:
    """What came of it; zero until the block has ended."""

    answered: int = 0
    failed: int = 0
    said: str = ""


@contextlib.contextmanager
def on(place: Place, service: str, example: str, *, pause: float = 0.1) -> Iterator[Load]:
    """Load for the time of the block: four threads that ask, wait `pause` seconds and ask again."""
    result = Load()
    request = (REPOSITORY / "examples" / example / "request.json").read_text()
    files = {"url": f"http://{service}{PATHS[example]}", "request.json": request, "pause": str(pause)}
    files["load.py"] = (FOLDER / "load.py").read_text()
    pod = Template((FOLDER / "pod.yaml").read_text()).substitute(version=metadata.version("moorage-runtime"))
    place.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": files}, yaml.safe_load(pod)
    )
    place.kubectl("wait", "--for=condition=Ready", "pod/load", "--timeout=60s", seconds=70)
    try:
        yield result
    finally:
        place.kubectl("exec", "load", "--", "python", "-c", "import os; os.kill(1, 15)")
        until(30, "the load has ended", lambda: place.get("pod", "load")["status"]["phase"] in ("Succeeded", "Failed"))
        result.said = place.kubectl("logs", "load")
        found = re.search(r"(\d+) answered, (\d+) failed", result.said)
        assert found, result.said
        result.answered, result.failed = int(found[1]), int(found[2])
        place.delete("pod,configmap", "load")
