"""The running controller on the in-memory adapters: from an event to a served model, and what its metrics say."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import generate_latest

import simulated_time
from fake_cluster import FakeCluster
from fake_registry import FakeRegistry
from moorage_operator.controller import Controller
from moorage_operator.core.kinds import BY_NAME, DEPLOYMENT, EVENT, MODEL_DEPLOYMENT, Manifest, Ref
from moorage_operator.settings import Images, RegistrySettings, Settings
from moorage_operator.telemetry import Metrics

SETTINGS = Settings(
    images=Images(runtime="moorage/runtime:1", runtime_gpu="moorage/runtime:1-gpu"),
    registries=(RegistrySettings(name="default", tracking_uri="http://mlflow"),),
)
FRAUD: Manifest = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "fraud", "namespace": "payments"},
    "spec": {"model": {"name": "detector", "alias": "champion"}},
}


def test_an_event_becomes_a_revision_and_a_metric_that_goes_with_its_model_deployment() -> None:
    async def play() -> None:
        cluster, registry, metrics = FakeCluster(), FakeRegistry(), Metrics()
        registry.set_alias("detector", "champion", registry.register("detector"))
        controller = Controller(cluster=cluster, registries={"default": registry}, settings=SETTINGS, metrics=metrics)

        def hear(happening: str, manifest: Manifest) -> None:
            kind = BY_NAME[manifest["apiVersion"], manifest["kind"]]
            if kind is not EVENT:
                controller.feed(kind, happening, manifest)

        cluster.watch(hear)
        leading = asyncio.create_task(controller.lead())
        cluster.add(FRAUD)
        await asyncio.sleep(20)
        assert [item["metadata"]["labels"]["moorage.dev/model-version"] for item in await cluster.list(DEPLOYMENT)] == [
            "1"
        ]
        assert b'model_version="1"' in generate_latest(metrics.registry)
        assert controller.problem() == ""
        cluster.remove(Ref(MODEL_DEPLOYMENT, "payments", "fraud"))
        await asyncio.sleep(20)
        assert b'model_version="1"' not in generate_latest(metrics.registry)
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

    simulated_time.run(play())
