"""A steady load on a model from inside the cluster, through its Service: on new connections, on kept ones, and by gRPC.

The script is that of the demo, in a pod of its own: so it also works where this process can't reach a Service's pods.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from string import Template

import yaml

from moorage_runtime.oip import inference_pb2
from place import Object, Place, until

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "hack/load"
PATHS = {"iris": "/predict", "digits-onnx": "/invocations"}


@dataclass
class Load:
    """What came of it; zero until the block has ended."""

    answered: int = 0
    failed: int = 0
    by_grpc: int = 0
    """Of those that were answered."""
    said: str = ""


@contextlib.contextmanager
def on(
    place: Place,
    service: str,
    example: str,
    *,
    pause: float = 0.1,
    by_grpc: str = "",
    name: str = "load",
    most_seconds: float = 300,
) -> Iterator[Load]:
    """Load for the time of the block, which is at most so long: four threads that ask, wait `pause` seconds and ask again.

    `by_grpc` is the name of the registered model that two more ask by gRPC, `name` that of the pod.
    """
    result = Load()
    request = (REPOSITORY / "examples" / example / "request.json").read_text()
    files = {
        "url": f"http://{service}{PATHS[example]}",
        "request.json": request,
        "pause": str(pause),
        "seconds": str(most_seconds),
    }
    files["load.py"] = (FOLDER / "load.py").read_text()
    pod = _pod(name)
    pod["spec"]["activeDeadlineSeconds"] = int(most_seconds) + 30
    config: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}
    if by_grpc:
        # A Gateway, which is named in full, has one port for both protocols.
        files["grpc"] = f"{service}:80" if "." in service else f"{service}.{place.name}.svc:8081"
        message = _message(by_grpc, json.loads(request)["inputs"])
        config["binaryData"] = {"request.pb": base64.b64encode(message).decode()}
    place.apply(config, pod)
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
        found_by_grpc = re.search(r"(\d+) by gRPC", result.said)
        result.by_grpc = int(found_by_grpc[1]) if found_by_grpc else 0
        assert bool(result.by_grpc) == bool(by_grpc), result.said
        place.delete("pod,configmap", name)


def _pod(name: str) -> Object:
    text = Template((FOLDER / "pod.yaml").read_text()).substitute(version=metadata.version("moorage-runtime"))
    pod: Object = yaml.safe_load(text)
    pod["metadata"]["name"] = pod["spec"]["volumes"][0]["configMap"]["name"] = name
    return pod


def _message(model: str, rows: list[list[float]]) -> bytes:
    request = inference_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="inputs", datatype="FP32", shape=[len(rows), len(rows[0])])
    tensor.contents.fp32_contents.extend(value for row in rows for value in row)
    message: bytes = request.SerializeToString()
    return message
