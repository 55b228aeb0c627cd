"""A steady load on a model from inside the cluster, through its Service, with a new connection for each question.

The script is that of the demo, in a pod of its own: so it also works where this process can't reach a Service's pods.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from place import Object, Place, until

REPOSITORY = Path(__file__).parent.parent
SCRIPT = REPOSITORY / "hack/demo-load.py"
PATHS = {"iris": "/predict", "digits-onnx": "/invocations"}
SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@dataclass
class Load:
    """What came of it; zero until the block has ended."""

    answered: int = 0
    failed: int = 0
    said: str = ""


@contextlib.contextmanager
def on(place: Place, service: str, example: str, *, pause: float = 0.1) -> Iterator[Load]:
    """Load for the time of the block: four threads that ask, wait `pause` seconds and ask again."""
    name, result = f"load-{service}", Load()
    image = f"moorage/runtime:{metadata.version('moorage-runtime')}"
    request = json.loads((REPOSITORY / "examples" / example / "request.json").read_text())
    place.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"load.py": SCRIPT.read_text()}},
        _pod(
            name,
            image,
            ["python", "/load/load.py", f"http://{service}{PATHS[example]}", json.dumps(request), str(pause)],
        ),
    )
    place.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", seconds=70)
    try:
        yield result
    finally:
        place.kubectl("exec", name, "--", "python", "-c", "import os; os.kill(1, 15)")
        until(30, "the load has ended", lambda: place.get("pod", name)["status"]["phase"] in ("Succeeded", "Failed"))
        result.said = place.kubectl("logs", name)
        found = re.search(r"(\d+) answered, (\d+) failed", result.said)
        assert found, result.said
        result.answered, result.failed = int(found[1]), int(found[2])
        place.delete("pod,configmap", name)


def _pod(name: str, image: str, command: list[str]) -> Object:
    container = {
        "name": "load",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": SECURITY,
        "resources": {"limits": {"cpu": "400m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": user,
        "containers": [container],
        "volumes": [{"name": "load", "configMap": {"name": name}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
