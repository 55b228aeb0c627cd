"""Talks to a cluster through kubectl: readiness, add-ons, fake GPUs. Knows nothing of how the cluster runs."""

import datetime
import json
import os
import pathlib
import string
import time
from collections.abc import Callable, Mapping
from typing import Any

from devcluster import console, paths

GPU = "nvidia.com/gpu"
MANAGER = "hack-cluster"


class Kube:
    """`check` is called between attempts and raises when waiting has become pointless."""

    def __init__(self, kubeconfig: pathlib.Path, search_path: str, check: Callable[[], None] = lambda: None) -> None:
        self.kubeconfig = kubeconfig
        self.check = check
        proxies = {"http_proxy", "https_proxy"}  # the cluster is on this machine
        self.env = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
        self.env |= {"KUBECONFIG": str(kubeconfig), "PATH": search_path}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return console.run(["kubectl", *arguments], env=self.env, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def answers(self) -> bool:
        return console.succeeds(["kubectl", "get", "--raw", "/readyz", "--request-timeout=5s"], env=self.env)

    def apply(self, manifest: str, values: Mapping[str, str]) -> None:
        text = string.Template((paths.NODE_SOURCES / manifest).read_text()).substitute(values)
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "-f", "-", stdin=text)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with console.step(f"wait for {what}"):
            while True:
                self.check()
                if condition():
                    return
                if time.monotonic() > deadline:
                    raise console.Failure(f"{what} is not there after {seconds:.0f} s.\n{self.overview()}")
                time.sleep(0.2)

    def overview(self) -> str:
        """Nodes and the cluster's own pods as kubectl shows them, or its error."""
        try:
            return self.kubectl("get", "nodes,pods", "-n", "kube-system", "-o", "wide").rstrip()
        except console.Failure as failure:
            return str(failure)

    def pods_ready(self, label: str, since: float) -> bool:
        """A pod of kube-system that was started after `since` and is Ready: a restarted cluster still tells of the old ones."""
        return any(
            _is_ready(pod, since) for pod in self.get("pods", "-n", "kube-system", "-l", f"k8s-app={label}")["items"]
        )

    def node_ready(self, name: str, since: float) -> bool:
        """Ready by a heartbeat after `since`."""
        nodes = self.get("nodes", "--field-selector", f"metadata.name={name}")["items"]
        return any(_seconds(ready["lastHeartbeatTime"]) >= since for node in nodes for ready in _true(node, "Ready"))

    def ready_nodes(self, selector: str) -> list[str]:
        nodes = self.get("nodes", "-l", selector)["items"]
        return [node["metadata"]["name"] for node in nodes if _true(node, "Ready")]

    def advertise_gpus(self, node: str, count: int) -> None:
        """The scheduler and the kubelet honour a resource that nobody measures; the kubelet forgets it when it starts."""
        has = GPU in self.get("node", node)["status"]["capacity"]
        path = "/status/capacity/" + GPU.replace("/", "~1")
        if count:
            patch = {"op": "add", "path": path, "value": str(count)}
        elif has:
            patch = {"op": "remove", "path": path}
        else:
            return
        self.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps([patch]))


def _seconds(timestamp: str) -> float:
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def _true(item: dict[str, Any], condition: str) -> list[dict[str, Any]]:
    conditions = item.get("status", {}).get("conditions", [])
    return [each for each in conditions if each["type"] == condition and each["status"] == "True"]


def _is_ready(pod: dict[str, Any], since: float) -> bool:
    running = [container["state"].get("running") for container in pod["status"].get("containerStatuses", [])]
    return bool(_true(pod, "Ready")) and all(each and _seconds(each["startedAt"]) >= since for each in running)
