"""The operator as the chart installs it on a real cluster: install, upgrade, look at it, remove."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import helm
from fixtures_cluster import MODEL_DEPLOYMENT, Api
from mlflow_in_cluster import LOGIN, Registry
from mlflow_server import ADMIN, ADMIN_PASSWORD
from place import Object, Place, until

OPERATOR = "moorage-operator"
LEADS_NO_MORE = "leads no more"
"""What it logs before it begins anew, without an end of its container."""
RIGHT, WRONG = "right-login", "wrong-login"
RESYNC_SECONDS = 6
SETTLED_SECONDS = 1.5 * RESYNC_SECONDS
"""Without a write for so long, a resync included: all is done."""


@dataclass(frozen=True)
class Installation:
    """A release `moorage` in a namespace of its own."""

    api: Api
    namespace: str
    chart: Path = helm.CHART

    @property
    def place(self) -> Place:
        return Place(self.api, self.namespace)

    def values(self, registry: Registry, **more: Any) -> Object:
        """Four registries: one that answers all, one with the right and one with a wrong login, one that is not there."""
        login = registry.tracking_uri(LOGIN)
        registries = [
            {"name": "default", "trackingURI": registry.tracking_uri()},
            {"name": "secured", "trackingURI": login, "existingSecret": RIGHT},
            {"name": "refused", "trackingURI": login, "existingSecret": WRONG},
            {"name": "dead", "trackingURI": registry.tracking_uri("nobody")},
        ]
        return {
            "registries": registries,
            "policy": {"images": ["moorage/*"], "secrets": ["*"]},
            "operator": {"registryPollSeconds": 2, "resyncSeconds": RESYNC_SECONDS},
            "models": {"drainSeconds": 2, "fetchResources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        } | more

    def install(self, values: Object) -> None:
        """Or upgrade. Waits until all copies are ready."""
        if not self.api.run("kubectl", "get", "namespace", self.namespace).stdout:
            self.api.kubectl("create", "namespace", self.namespace)
            self.place.apply(a_login(RIGHT, ADMIN_PASSWORD), a_login(WRONG, "not the password"))
        done = self.api.run(
            "helm", "upgrade", "--install", "moorage", str(self.chart), "--namespace", self.namespace, "--take-ownership",
            "--wait", "--timeout=180s", "--values=-", stdin=yaml.safe_dump(values), seconds=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + self.logs()

    def uninstall(self) -> None:
        done = self.api.run("helm", "uninstall", "moorage", "--namespace", self.namespace, "--wait", seconds=120)
        assert done.returncode == 0, done.stderr

    def remove(self) -> None:
        """With the CRD, which an uninstallation keeps."""
        self.uninstall()
        self.api.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.api.kubectl("delete", "crd", MODEL_DEPLOYMENT, seconds=120)

    def pods(self) -> list[Object]:
        """Those that have not been told to end."""
        pods = self.place.find("pods", "app.kubernetes.io/component=operator")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def answer(self, pod: str, path: str) -> str:
        """Status and words on the port of the probes; empty while nobody listens."""
        ask = f"c.request('GET', '{path}'); a = c.getresponse(); print(a.status, a.read().decode())"
        code = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080); {ask}"
        return self.run_in(pod, code).stdout.strip()

    def run_in(self, pod: str, code: str) -> subprocess.CompletedProcess[str]:
        """Python in a pod, which may be about to start anew."""
        return self.api.run("kubectl", "exec", f"--namespace={self.namespace}", pod, "--", "python", "-c", code)

    def leader(self) -> str:
        """Name of the pod that holds the Lease; empty while none does."""
        holder = self.place.get("lease", OPERATOR).get("spec", {}).get("holderIdentity") or ""
        return str(holder).partition("_")[0]

    def lost_leases(self) -> int:
        """How often the copies that run have begun anew for it, each since its container started."""
        logs = [self.api.run("kubectl", "logs", "-n", self.namespace, pod["metadata"]["name"]) for pod in self.pods()]
        return sum(log.stdout.count(LEADS_NO_MORE) for log in logs)

    def restart(self) -> None:
        self.place.kubectl("rollout", "restart", f"deployment/{OPERATOR}")
        self._wait_for_rollout()

    def scale(self, copies: int) -> None:
        self.place.kubectl("scale", f"deployment/{OPERATOR}", f"--replicas={copies}")
        self._wait_for_rollout()

    @contextlib.contextmanager
    def running(self, *command: str, script: Path, copies: int) -> Iterator[None]:
        """For the time of the block the pods run another command, and have `script` in /script."""
        files = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "script"},
            "data": {script.name: script.read_text()},
        }
        self.place.apply(files)
        container = {
            "name": "operator",
            "command": list(command),
            "volumeMounts": [{"name": "script", "mountPath": "/script"}],
            # What is killed or stopped on purpose is not for the kubelet to judge.
            "livenessProbe": None,
            "readinessProbe": None,
        }
        pod = {"containers": [container], "volumes": [{"name": "script", "configMap": {"name": "script"}}]}
        patch = {"spec": {"replicas": copies, "template": {"spec": pod}}}
        before = self.place.get("deployment", OPERATOR)["spec"]["replicas"]
        self.place.kubectl("patch", "deployment", OPERATOR, "--type=strategic", f"--patch={json.dumps(patch)}")
        self._wait_for_rollout()
        try:
            yield
        finally:
            self.place.kubectl("rollout", "undo", f"deployment/{OPERATOR}")
            self.scale(before)

    def _wait_for_rollout(self) -> None:
        """Until the old pods have gone, too: two operators would be at work else."""
        self.place.wait_rolled_out(OPERATOR, seconds=90)
        wanted = self.place.get("deployment", OPERATOR)["spec"]["replicas"]
        selector = "app.kubernetes.io/component=operator"
        until(60, "the old copies have gone", lambda: len(self.place.find("pods", selector)) == wanted)

    def logs(self) -> str:
        arguments = ("logs", f"deployment/{OPERATOR}", "--all-pods", "--tail=200", "--namespace", self.namespace)
        return self.api.run("kubectl", *arguments).stdout


def a_login(name: str, password: str) -> Object:
    data = {"username": ADMIN, "password": password}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
