"""The running controller on the in-memory adapters, and a ModelDeployment for it."""

from __future__ import annotations

from fake_cluster import FakeCluster
from fake_registry import FakeRegistry
from moorage_operator.controller import Controller
from moorage_operator.core.kinds import BY_NAME, EVENT, Manifest
from moorage_operator.core.routing import AgentState
from moorage_operator.settings import Images, RegistrySettings, RouterSection, Settings
from moorage_operator.telemetry import Metrics

SETTINGS = Settings(
    images=Images(runtime="moorage/runtime:1", runtime_gpu="moorage/runtime:1-gpu"),
    router=RouterSection(image="moorage/operator:1"),
    registries=(RegistrySettings(name="default", tracking_uri="http://mlflow"),),
)
FRAUD: Manifest = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "fraud", "namespace": "payments"},
    "spec": {"model": {"name": "detector", "alias": "champion"}, "traffic": {"router": "replicas"}},
}


class Nobody:
    """No router, no pod and no Prometheus has anything to say."""

    async def state(self, address: str) -> AgentState:
        return AgentState()

    async def metrics(self, address: str) -> str:
        return ""

    async def value(self, query: str) -> float:
        return 0.0


def a_registry() -> FakeRegistry:
    registry = FakeRegistry()
    registry.set_alias("detector", "champion", registry.register("detector"))
    return registry


def a_controller(cluster: FakeCluster, metrics: Metrics, registry: FakeRegistry | None = None) -> Controller:
    """It hears all that happens in the cluster."""
    registry = registry or a_registry()
    controller = Controller(
        cluster=cluster,
        registries={"default": registry},
        agents=Nobody(),
        runtimes=Nobody(),
        prometheus=Nobody(),
        settings=SETTINGS,
        metrics=metrics,
    )

    def hear(happening: str, manifest: Manifest) -> None:
        kind = BY_NAME[manifest["apiVersion"], manifest["kind"]]
        if kind is not EVENT:
            controller.feed(kind, happening, manifest)

    cluster.watch(hear)
    return controller
