"""One namespace of a real cluster, as a person with kubectl sees it: apply, look, wait, ask a model.

Nothing here knows the operator's code. Waiting is for a condition, with a deadline, and says what was there instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from fixtures_cluster import MODEL_DEPLOYMENT, Api

Object = dict[str, Any]
T = TypeVar("T")

CHILDREN = "controllerrevisions,configmaps,deployments,services,horizontalpodautoscalers,poddisruptionbudgets"


@dataclass(frozen=True)
class Place:
    """A namespace, and how to reach it."""

    api: Api
    name: str

    def kubectl(self, *arguments: str, stdin: str = "", seconds: float = 60) -> str:
        return self.api.kubectl("--namespace", self.name, *arguments, stdin=stdin, seconds=seconds)

    def apply(self, *manifests: Object) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(items))

    def patch(self, kind: str, name: str, patch: Object) -> None:
        self.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps(patch)}")

    def change(self, model: str, /, **spec: Any) -> None:
        """Merge into the spec of a ModelDeployment."""
        self.patch(MODEL_DEPLOYMENT, model, {"spec": spec})

    def command(self, model: str, text: str) -> None:
        """As a person tells a rollout something."""
        self.kubectl("annotate", "--overwrite", MODEL_DEPLOYMENT, model, f"moorage.dev/command={text}")

    def get(self, kind: str, name: str) -> Object:
        """Empty if there is none."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        return dict(json.loads(text)) if text else {}

    def find(self, kind: str, selector: str = "") -> list[Object]:
        """Without `selector` all of that kind; `kind` may name several, separated by commas."""
        return list(json.loads(self.kubectl("get", kind, f"--selector={selector}", "--output=json"))["items"])

    def delete(self, kind: str, *names: str) -> None:
        self.kubectl("delete", kind, *names, "--wait=false")

    def model(self, name: str) -> Object:
        return self.get(MODEL_DEPLOYMENT, name)

    def status(self, name: str) -> Object:
        return dict(self.model(name).get("status", {}))

    def stable_version(self, name: str) -> str:
        """The model version that answers; empty while none does."""
        return str(self.status(name).get("stable", {}).get("modelVersion", ""))

    def condition(self, name: str, kind: str) -> Object:
        """Of the ModelDeployment; empty if it has none of that type, or only one about an older spec."""
        model = self.model(name)
        found = [item for item in model.get("status", {}).get("conditions", []) if item["type"] == kind]
        is_current = found and found[0]["observedGeneration"] == model["metadata"]["generation"]
        return dict(found[0]) if is_current else {}

    def children(self, name: str) -> list[Object]:
        return self.find(CHILDREN, f"moorage.dev/deployment={name}")

    def pods(self, name: str, revision: str = "") -> list[Object]:
        """Those that have not been told to end."""
        selector = f"moorage.dev/deployment={name}" + (f",moorage.dev/revision={revision}" if revision else "")
        return [pod for pod in self.find("pods", selector) if "deletionTimestamp" not in pod["metadata"]]

    def wait_rolled_out(self, deployment: str, *, seconds: int = 180) -> None:
        self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s", seconds=seconds + 10)

    def wait_ready(self, *names: str, seconds: float = 240) -> None:
        """As users do it."""
        models = [f"{MODEL_DEPLOYMENT}/{name}" for name in names]
        self.kubectl("wait", "--for=condition=Ready", *models, f"--timeout={seconds}s", seconds=seconds + 10)

    def wait_for_reason(self, name: str, reason: str, *, kind: str = "Ready", seconds: float = 120) -> Object:
        def found() -> Object:
            condition = self.condition(name, kind)
            return condition if condition.get("reason") == reason else {}

        return until(seconds, f"{name} has {kind} with reason {reason}", found, lambda: self.status(name))

    @contextlib.contextmanager
    def reach(self, service: str, port: int = 80) -> Iterator[str]:
        """A URL of a Service for this process: its own address where that answers, else through `kubectl port-forward`."""
        address = self.get("service", service)["spec"]["clusterIP"]
        if _answers(address, port):
            yield f"http://{address}:{port}"
            return
        command = [self.api.program(), "--namespace", self.name, "port-forward", f"service/{service}", f":{port}"]
        environment = os.environ | {"KUBECONFIG": self.api.kubeconfig}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
                assert found, f"kubectl port-forward to {service} says nothing"
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                forward.terminate()

    def ask(self, service: str, path: str, body: Object | None = None) -> Any:
        """The answer to one request, as JSON; asked again for some seconds while nobody listens."""
        with self.reach(service) as url:
            return until(20, f"{service} answers", lambda: ask(url + path, body))


@contextlib.contextmanager
def a_namespace(api: Api, name: str) -> Iterator[Place]:
    """A new one, for restricted pods only, gone after the block."""
    api.kubectl("create", "namespace", name)
    api.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Place(api, name)
    api.kubectl("delete", "namespace", name, "--wait=false")


def ending_namespaces(api: Api) -> set[str]:
    """Those of tests before this one: while they are deleted, the operator sees what is in them go."""
    namespaces = json.loads(api.kubectl("get", "namespaces", "--output=json"))["items"]
    return {item["metadata"]["name"] for item in namespaces if item["status"]["phase"] == "Terminating"}


def ask(
    url: str, body: Object | None = None, *, headers: Mapping[str, str] = MappingProxyType({}), seconds: float = 10
) -> Any:
    """None where nobody listens; an HTTP error is an error."""
    data = None if body is None else json.dumps(body).encode()
    found = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url, data, found)  # noqa: S310  # http, a Service
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310  # the same
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.code}: {error.read().decode()[:500]}") from error
    except OSError:
        return None


def until(
    seconds: float, what: str, check: Callable[[], T], instead: Callable[[], object] = lambda: "", *, every: float = 0.5
) -> T:
    """The first true answer of `check`; fails after `seconds`, with what there is `instead`."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            pytest.fail(
                f"not within {seconds} s: {what}. Instead: {json.dumps(instead(), indent=1, default=str)[-6000:]}"
            )
        time.sleep(every)
    return found


def a_model(
    name: str, model: str = "digits-onnx", *, alias: str = "champion", version: str = "", **spec: Any
) -> Object:
    """A ModelDeployment of the smallest of the models, or of another one."""
    which = {"version": version} if version else {"alias": alias}
    resources = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"name": model} | which, "resources": resources} | spec,
    }


def key_of(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def _answers(address: str, port: int) -> bool:
    """Does anything there speak TCP, or at least refuse to?"""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return True  # a Service without endpoints: it is in reach
    except OSError:
        return False
    return True
