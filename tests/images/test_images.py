"""The built images in pods of a `restricted` namespace with a read-only root, and hack/images itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fixtures_cluster import Api

REPOSITORY = Path(__file__).parent.parent.parent
VERSION = "0.1.0"
IMAGES = {"operator": f"moorage/operator:{VERSION}", "runtime": f"moorage/runtime:{VERSION}"}
IMPORTS = {
    "operator": [
        "moorage_operator.__main__",
        "moorage_operator.adapters.cluster",
        "moorage_operator.adapters.registry",
    ],
    "runtime": [
        "moorage_runtime.__main__",
        "moorage_runtime.serve",
        "onnxruntime",
        "sklearn",
        "xgboost",
        "lightgbm",
        "skops",
        "mlflow.pyfunc",
    ],
}
LOOK_AROUND = """
import importlib, importlib.util, json, os, pathlib, shutil, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
try:
    pathlib.Path("/opt/moorage/new").touch()
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "uid": os.getuid(),
    "root is writable": writable,
    "tools": [name for name in ("cc", "gcc", "pip", "uv", "moorage-operator", "moorage-runtime") if shutil.which(name)],
    "not compiled": [m.__name__ for m in modules if not os.path.exists(importlib.util.cache_from_source(m.__file__))],
}))
"""


def images(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "hack/images", *arguments], env=os.environ | environment, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip


def test_an_unknown_variant_is_refused_with_the_names_of_those_there_are() -> None:
    done = images("build", "--variant", "tpu")

    assert done.returncode == 1
    assert "There is no variant 'tpu': operator, runtime, runtime-gpu, mlflow or all." in done.stderr


@pytest.fixture(scope="module")
def loaded(api: Api) -> None:
    """Both images, of the sources as they are, in the cluster."""
    for command in ("build", "load"):
        done = images(command, KUBECONFIG=api.kubeconfig, PATH=api.path)
        assert done.returncode == 0, done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("variant", list(IMAGES))
def test_a_restricted_pod_with_a_read_only_root_runs_it(api: Api, namespace: str, variant: str) -> None:
    api.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    api.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(restricted_pod(variant)))

    api.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", f"pod/{variant}", "--timeout=50s")

    seen = json.loads(api.kubectl("logs", "-n", namespace, variant).splitlines()[-1])
    entry_point = f"moorage-{variant}"
    assert seen == {"uid": 65532, "root is writable": False, "tools": [entry_point], "not compiled": []}


@pytest.mark.cluster
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("loaded")
def test_a_build_and_a_load_with_nothing_changed_do_nothing(api: Api) -> None:
    again = [images(command, KUBECONFIG=api.kubeconfig, PATH=api.path) for command in ("build", "load")]

    assert [done.stderr.splitlines()[-2:] for done in again] == [
        [f"  {name} is up to date" for name in IMAGES.values()],
        [f"  {name} is in the cluster" for name in IMAGES.values()],
    ]


def restricted_pod(variant: str) -> dict[str, Any]:
    container = {
        "name": "look",
        "image": IMAGES[variant],
        "imagePullPolicy": "Never",
        "command": ["python", "-c", LOOK_AROUND, *IMPORTS[variant]],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # the one writable folder of these pods
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": variant},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
