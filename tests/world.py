"""A small world for the reconcile tests: the fake cluster with the controllers that Kubernetes would run, and a clock.

`world.settle()` lets everybody act until nobody has anything left to do. A pod's fate is decided by its model version:
`world.fates["4"] = loading` keeps the pods of version 4 from getting ready.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from fake_cluster import FakeCluster
from moorage_operator.core import names
from moorage_operator.core.kinds import (
    AUTOSCALER,
    BY_NAME,
    DEPLOYMENT,
    EVENT,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    Kind,
    Manifest,
    Ref,
)
from moorage_operator.core.names import Key
from moorage_operator.core.observed import Answer
from moorage_operator.core.platform import Platform, RegistryEndpoint
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.handlers import WATCHED
from moorage_operator.index import Index
from moorage_operator.reconcile import Reconciler

KEY = Key("payments", "fraud")
PLATFORM = Platform(
    image="moorage/runtime:1",
    gpu_image="moorage/runtime:1-gpu",
    registries={"default": RegistryEndpoint("http://mlflow")},
)
START = datetime(2026, 1, 1, tzinfo=UTC)

Fate = Callable[[], dict[str, Any]]
"""The status of a pod, as the kubelet and the scheduler would write it."""


def ready() -> dict[str, Any]:
    fetched = {"exitCode": 0, "message": json.dumps({"digest": "sha256:" + "ab" * 32})}
    return {
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{"name": "fetch", "state": {"terminated": fetched}}],
        "containerStatuses": [{"name": "serve", "state": {"running": {}}}],
    }


def unready(**serve: Any) -> Fate:
    """`serve` is the status of that container: state, lastState."""
    status = {"name": "serve", **serve}
    return lambda: {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [copy.deepcopy(status)],
    }


loading = unready(state={"running": {}})


def failing(reason: str, message: str = "it is broken") -> Fate:
    ended = {"exitCode": 1, "message": json.dumps({"reason": reason, "message": message})}
    return unready(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended})


class World:
    """One ModelDeployment in a cluster; `registry` maps references to what they name."""

    def __init__(self, *, platform: Platform = PLATFORM) -> None:
        self.now = START
        self.cluster = FakeCluster(now=lambda: self.now)
        self.index = Index()
        self.platform = platform
        self.registry: dict[ModelRef, ModelVersion | Problem] = {}
        self.fates: dict[str, Fate] = {}
        self.deaf = False
        """While true, watch events do not arrive."""
        self.again_at: datetime | None = None
        self.cluster.watch(self._hear)
        self.restart()

    # What the operator is given.

    def restart(self) -> None:
        """A new process of the operator: all it knew is gone, but what the cluster holds."""
        self.index = Index()
        self._answered: set[ModelRef] = set()
        self._asked: set[ModelRef] = set()
        self.resync()
        self.reconciler = Reconciler(
            cluster=self.cluster, index=self.index, answers=self, platform=self.platform, clock=lambda: self.now
        )

    def resync(self) -> None:
        """A live LIST of everything, as the operator makes from time to time."""
        for kind in WATCHED:
            live = {ref: copy.deepcopy(manifest) for ref, manifest in self.cluster._objects.items() if ref.kind is kind}
            for manifest in live.values():
                self.index.put(kind, manifest)
            self.index.forget(self.index.refs(kind) - live.keys())

    def answer(self, registry: str, ref: ModelRef) -> Answer | None:
        if ref not in self._answered:
            self._asked.add(ref)
            return None
        found = self.registry.get(ref)
        if isinstance(found, Problem):
            return Answer(problem=found)
        return Answer(version=found) if found else None

    # What a user does.

    def apply(self, **spec: Any) -> None:
        """Create the ModelDeployment, or change top-level fields of its spec (None removes one)."""
        ref = self.ref(MODEL_DEPLOYMENT)
        if ref not in self.cluster._objects:
            spec = {"model": {"name": "detector", "alias": "champion"}} | spec
            metadata = {"name": KEY.name, "namespace": KEY.namespace}
            manifest = {
                "apiVersion": "moorage.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": metadata,
                "spec": spec,
            }
            self.cluster.add(manifest | {"status": {"observedGeneration": -1}})
            return

        def change(manifest: Manifest) -> None:
            merged = manifest["spec"] | spec
            manifest["spec"] = {name: value for name, value in merged.items() if value is not None}

        self.cluster.edit(ref, change)

    def move_alias(self, version: str) -> None:
        self.registry[ModelRef("detector", alias="champion")] = ModelVersion(
            "detector", version, f"run-{version}", "s3://m"
        )

    def lose_registry(self) -> None:
        self.registry[ModelRef("detector", alias="champion")] = Problem(Reason.REGISTRY_UNREACHABLE, "no answer")

    # What happens.

    async def settle(self, *, rounds: int = 30, after_a_pass: Callable[[], None] = lambda: None) -> None:
        """Let the operator and the controllers act in turn until nothing changes any more."""
        for _ in range(rounds):
            before = self.cluster._revision
            await self.reconcile()
            after_a_pass()
            self.run_controllers()
            if self.cluster._revision == before:
                return
        raise AssertionError("the world does not come to rest")

    async def reconcile(self) -> None:
        """One pass, and another one when the registry has answered what the first one asked."""
        again = await self.reconciler.reconcile(KEY)
        if self._asked:
            self._answered |= self._asked
            self._asked.clear()
            again = await self.reconciler.reconcile(KEY)
        self.again_at = self.now + timedelta(seconds=again) if again is not None else None

    async def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await self.settle()

    def run_controllers(self) -> None:
        """The autoscaler, the Deployment controller, the scheduler, the kubelet and the garbage collector, once."""
        self.cluster.collect_garbage()
        for autoscaler in self.all(AUTOSCALER):
            self._run_autoscaler(autoscaler["spec"])
        for deployment in self.all(DEPLOYMENT):
            self._run_deployment(deployment)

    # What a test looks at.

    def ref(self, kind: Kind, name: str = KEY.name) -> Ref:
        return Ref(kind, KEY.namespace, name)

    def all(self, kind: Kind) -> list[Manifest]:
        found = [(ref.name, manifest) for ref, manifest in self.cluster._objects.items() if ref.kind is kind]
        return [copy.deepcopy(manifest) for _, manifest in sorted(found, key=lambda item: item[0])]

    @property
    def status(self) -> dict[str, Any]:
        return self.all(MODEL_DEPLOYMENT)[0]["status"]  # type: ignore[no-any-return]  # JSON

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, reason)"""
        found = [item for item in self.status["conditions"] if item["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("absent", "")

    def message(self, kind: str) -> str:
        return next(str(item["message"]) for item in self.status["conditions"] if item["type"] == kind)

    def counts(self) -> dict[str, int]:
        """Pods that each model version's Deployment is set to."""
        return {
            item["metadata"]["labels"][names.MODEL_VERSION]: item["spec"]["replicas"] for item in self.all(DEPLOYMENT)
        }

    @property
    def address(self) -> Manifest | None:
        """The one stable Service."""
        return next((item for item in self.all(SERVICE) if item["metadata"]["name"] == KEY.name), None)

    def traffic(self) -> str:
        """The model version that the address sends requests to."""
        assert self.address
        revision = self.address["spec"]["selector"][names.REVISION]
        return next(
            str(i["metadata"]["labels"][names.MODEL_VERSION])
            for i in self.all(DEPLOYMENT)
            if i["metadata"]["name"] == revision
        )

    def revision(self, version: str) -> str:
        return next(
            str(i["metadata"]["name"])
            for i in self.all(DEPLOYMENT)
            if i["metadata"]["labels"][names.MODEL_VERSION] == version
        )

    def events(self) -> list[str]:
        return [event["reason"] for event in self.all(EVENT)]

    def autoscaler(self, version: str) -> dict[str, Any]:
        spec: dict[str, Any] = next(
            i["spec"] for i in self.all(AUTOSCALER) if i["metadata"]["labels"][names.MODEL_VERSION] == version
        )
        return spec

    # The controllers.

    def _hear(self, happening: str, manifest: Manifest) -> None:
        kind = BY_NAME[manifest["apiVersion"], manifest["kind"]]
        if self.deaf or kind is EVENT:
            return
        if happening == "DELETED":
            self.index.remove(kind, manifest)
        else:
            self.index.put(kind, manifest)

    def _run_autoscaler(self, spec: dict[str, Any]) -> None:
        """Without any load: into its bounds, but never up from 0."""
        ref = self.ref(DEPLOYMENT, spec["scaleTargetRef"]["name"])
        present = next(
            (item["spec"]["replicas"] for item in self.all(DEPLOYMENT) if ref.name == item["metadata"]["name"]), 0
        )
        wanted = min(max(present, spec["minReplicas"]), spec["maxReplicas"])
        if present not in (0, wanted):
            self.cluster.edit(ref, lambda manifest: manifest["spec"].update(replicas=wanted))

    def _run_deployment(self, deployment: Manifest) -> None:
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        template = json.dumps(spec["template"], sort_keys=True)
        pods = [pod for pod in self.all(POD) if pod["metadata"]["labels"].get(names.REVISION) == labels[names.REVISION]]
        for pod in pods:
            if pod["spec"]["template"] != template:
                self.cluster.remove(self.ref(POD, pod["metadata"]["name"]))
        pods = [pod for pod in pods if pod["spec"]["template"] == template]
        for pod in pods[spec["replicas"] :]:
            self.cluster.remove(self.ref(POD, pod["metadata"]["name"]))
        for number in range(len(pods), spec["replicas"]):
            self._start_pod(deployment, f"{name}-{self.cluster._revision}-{number}", template)
        self._run_kubelet(labels)
        self._report(deployment)

    def _start_pod(self, deployment: Manifest, name: str, template: str) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        owner |= {"name": deployment["metadata"]["name"], "uid": deployment["metadata"]["uid"]}
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        metadata = {"name": name, "namespace": KEY.namespace, "labels": labels, "ownerReferences": [owner]}
        self.cluster.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"template": template}})

    def _run_kubelet(self, labels: dict[str, str]) -> None:
        for pod in self.all(POD):
            if pod["metadata"]["labels"].get(names.REVISION) == labels[names.REVISION]:
                fate = self.fates.get(labels[names.MODEL_VERSION], ready)()
                self._set_status(POD, pod["metadata"]["name"], fate)

    def _report(self, deployment: Manifest) -> None:
        name = deployment["metadata"]["name"]
        pods = [pod for pod in self.all(POD) if pod["metadata"]["ownerReferences"][0]["name"] == name]
        available = sum(pod["status"]["conditions"][0] == {"type": "Ready", "status": "True"} for pod in pods)
        status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": len(pods)}
        status |= {"updatedReplicas": len(pods), "availableReplicas": available, "readyReplicas": available}
        self._set_status(DEPLOYMENT, name, status)

    def _set_status(self, kind: Kind, name: str, status: dict[str, Any]) -> None:
        self.cluster.edit(
            self.ref(kind, name), lambda manifest: manifest.update(status=status), manager="kcm", subresource="status"
        )
