"""Real pods of a real model on the real node: `kubectl apply` to Ready with cached images, and a moved alias to new pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import yaml

from benchmarks import lab, processes, watches
from benchmarks.registry import Mlflow
from devcluster import console
from moorage_operator.core import names
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, Manifest

MODEL = "digits-onnx"
WITHIN_SECONDS = 120.0

Steps = dict[str, list[float]]
"""Seconds since the beginning at which each step was seen, one for each repetition."""


AGENTS_ROLE: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "moorage-router"},
    "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ],
}
"""The chart's, which is not installed here."""


@dataclass(frozen=True)
class Latencies:
    apply: Steps
    alias: Steps


def run(name: str, repetitions: int) -> Latencies:
    with lab.new(name, fake_nodes=0) as cluster:
        registry = install_registry(cluster, "operator", "runtime", "mlflow")
        with processes.operator(cluster, registry.uri, router=routers(cluster)) as running:
            return asyncio.run(_measure(cluster, running, registry, repetitions))


async def _measure(cluster: lab.Lab, running: processes.Operator, registry: Mlflow, repetitions: int) -> Latencies:
    async with _eyes(cluster) as eyes:
        apply: Steps = {}
        for number in range(repetitions):
            _add(apply, await _apply(cluster, eyes, f"sample-{number}"))
            await asyncio.to_thread(_remove, cluster, running, f"sample-{number}")
        await _apply(cluster, eyes, "follower")
        alias: Steps = {}
        for _ in range(repetitions):
            await asyncio.sleep(random.uniform(0, 5))  # noqa: S311 - any moment between two polls
            _add(alias, await _move(registry, eyes))
        return Latencies(apply, alias)


@dataclass(frozen=True)
class _Eyes:
    own: watches.Watch
    deployments: watches.Watch
    pods: watches.Watch


@contextlib.asynccontextmanager
async def _eyes(cluster: lab.Lab) -> AsyncIterator[_Eyes]:
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(watches.watch(cluster.kubeconfig, kind, lab.NAMESPACE))
            for kind in (MODEL_DEPLOYMENT, DEPLOYMENT, POD)
        ]
        yield _Eyes(*opened)


async def _apply(cluster: lab.Lab, eyes: _Eyes, name: str) -> dict[str, float]:
    """kubectl's own start is a part of it."""
    steps = {
        "ModelDeployment stored": eyes.own.milestone(_named(name), key=watches.name_of),
        **_pod_steps(eyes, lambda item: watches.owner_of(item) == name),
        "ModelDeployment Ready": eyes.own.milestone(
            lambda item: _named(name)(item) and watches.has("Ready")(item), key=watches.name_of
        ),
    }
    manifest = yaml.safe_load((lab.ROOT / "examples/digits-onnx/modeldeployment.yaml").read_text())
    manifest["metadata"]["name"] = name
    began = time.monotonic()
    await asyncio.to_thread(cluster.kubectl, "apply", "-n", lab.NAMESPACE, "-f", "-", stdin=json.dumps(manifest))
    return {step: await eye.reached(1, WITHIN_SECONDS) - began for step, eye in steps.items()}


async def _move(registry: Mlflow, eyes: _Eyes) -> dict[str, float]:
    """To a version that never ran before."""
    version = registry.copy_version(MODEL)

    def is_new(item: Manifest) -> bool:
        return bool(item["metadata"]["labels"].get(names.MODEL_VERSION) == version)

    steps = {
        **_pod_steps(eyes, is_new),
        "ModelDeployment Ready, traffic switched": eyes.own.milestone(
            lambda item: _stable_version(item) == version and watches.has("Ready")(item), key=watches.name_of
        ),
    }
    began = time.monotonic()
    registry.set_alias(MODEL, version)
    return {step: await eye.reached(1, WITHIN_SECONDS) - began for step, eye in steps.items()}


def _pod_steps(eyes: _Eyes, mine: Callable[[Manifest], bool]) -> dict[str, watches.Milestone]:
    def pod(holds: Callable[[Manifest], bool]) -> watches.Milestone:
        return eyes.pods.milestone(lambda item: mine(item) and holds(item), key=watches.name_of)

    return {
        "Deployment written": eyes.deployments.milestone(mine, key=watches.name_of),
        "pod created": pod(watches.is_there),
        "pod scheduled": pod(watches.has("PodScheduled")),
        "model fetched": pod(_has_fetched),
        "pod Ready": pod(watches.has("Ready")),
    }


def _has_fetched(pod: Manifest) -> bool:
    return any("terminated" in item["state"] for item in pod["status"].get("initContainerStatuses", []))


def _named(name: str) -> Callable[[Manifest], bool]:
    return lambda item: watches.name_of(item) == name


def _stable_version(item: Manifest) -> str:
    return str(item.get("status", {}).get("stable", {}).get("modelVersion", ""))


def _remove(cluster: lab.Lab, running: processes.Operator, name: str) -> None:
    cluster.kubectl("delete", "-n", lab.NAMESPACE, "mdep", name, "--cascade=foreground", "--timeout=60s")
    running.wait_until_quiet(WITHIN_SECONDS)


def _add(steps: Steps, seen: dict[str, float]) -> None:
    for step, seconds in seen.items():
        steps.setdefault(step, []).append(seconds)


def routers(cluster: lab.Lab) -> dict[str, Any]:
    """The operator's settings of routers that run: with rights for their agents."""
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(AGENTS_ROLE))
    settings: dict[str, Any] = processes.configuration("")["router"]
    return settings | {"clusterRole": AGENTS_ROLE["metadata"]["name"]}


def install_registry(cluster: lab.Lab, *variants: str) -> Mlflow:
    """In the cluster, since pods fetch from it; a trained model in it, with the alias on version 1. And images that are needed."""
    with console.step("images and MLflow"):
        for variant in variants:
            for command in ("build", "load"):
                console.run([str(lab.ROOT / "hack/images"), command, "--variant", variant], env=cluster.environment)
        cluster.kubectl("apply", "-n", lab.NAMESPACE, "-f", "-", stdin=json.dumps(_registry_manifests()))
        cluster.kubectl("rollout", "status", "-n", lab.NAMESPACE, "deployment/mlflow", "--timeout=120s")
    address = cluster.kubectl("get", "-n", lab.NAMESPACE, "service/mlflow", "-o", "jsonpath={.spec.clusterIP}")
    registry = Mlflow(f"http://{address}:5000")
    with console.step("a model is trained"):
        environment = {"MLFLOW_TRACKING_URI": registry.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        train = [sys.executable, str(lab.ROOT / "examples/digits-onnx/train.py")]
        console.run(train, env=cluster.environment | environment)
    return registry


def _registry_manifests() -> dict[str, Any]:
    """Of hack/mlflow-server, with a volume that goes with the pod."""
    text = (lab.ROOT / "hack/mlflow-server/mlflow.yaml").read_text().replace("moorage-demo", lab.NAMESPACE)
    kept = [item for item in yaml.safe_load_all(text) if item["kind"] in ("Service", "Deployment")]
    for item in kept:
        if item["kind"] == "Deployment":
            pod = item["spec"]["template"]["spec"]
            pod["volumes"] = [
                {"name": volume["name"], "emptyDir": {}} if "persistentVolumeClaim" in volume else volume
                for volume in pod["volumes"]
            ]
            for mount in pod["containers"][0]["volumeMounts"]:
                mount.pop("subPath", None)
    return {"apiVersion": "v1", "kind": "List", "items": kept}
