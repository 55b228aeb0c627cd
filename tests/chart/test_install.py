"""The chart before a real API server: it takes all objects, and has no warning about any."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

import helm
from fixtures_cluster import Api

pytestmark = pytest.mark.cluster

REGISTRY = {"name": "default", "trackingURI": "http://mlflow.mlflow.svc:5000", "existingSecret": "mlflow"}
PLACEMENT = {
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
}


@pytest.fixture(scope="module")
def restricted(api: Api, namespace: str) -> str:
    """A namespace that refuses, and warns of, what is not restricted."""
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    api.kubectl("label", "namespace", namespace, *levels)
    return namespace


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
def test_the_api_server_takes_every_object_without_a_warning(api: Api, restricted: str, scope: str) -> None:
    values = PLACEMENT | {
        "registries": [REGISTRY],
        "networkPolicy": {"enabled": True, "extraEgress": [{"ports": [{"port": 3128}]}]},
        "namespaces": [restricted] if scope == "namespace" else [],
    }
    objects = yaml.safe_dump_all(helm.template(values, "--namespace", restricted))

    done = subprocess.run(
        ["kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=objects, env=environment(api), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


def test_notes_tell_the_next_command_and_that_a_registry_is_missing(api: Api) -> None:
    without, with_one = notes(api, {}), notes(api, {"registries": [REGISTRY], "namespaces": ["models"]})

    assert "WARNING: `registries` is empty" in without
    assert "WARNING" not in with_one
    assert "kubectl --namespace moorage-system rollout status deployment/moorage-operator" in with_one
    assert "kubectl --namespace models describe mdep iris" in with_one


def notes(api: Api, values: helm.Object) -> str:
    """Helm renders them only where it finds a cluster; other tests have put the CRD there."""
    arguments = ["install", "moorage", str(helm.CHART), "--dry-run=client", "--take-ownership", "-n", helm.NAMESPACE]
    done = subprocess.run(
        ["helm", *arguments, "--values", "-"],
        input=yaml.safe_dump(values), env=environment(api), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def environment(api: Api) -> dict[str, str]:
    return os.environ | {"KUBECONFIG": api.kubeconfig, "PATH": api.path}
