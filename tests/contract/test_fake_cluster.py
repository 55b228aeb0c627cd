"""Where a wrong fake would hide a wrong operator: `FakeCluster` side by side with the real API server."""

from __future__ import annotations

import copy
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import fake_ssa
from fake_cluster import FakeCluster
from fixtures_cluster import Api
from moorage_operator import errors
from moorage_operator.adapters import cluster
from moorage_operator.core import http_route, kinds
from moorage_operator.core import spec as specs
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.routing import Match
from moorage_operator.ports import Cluster

pytestmark = pytest.mark.cluster

CRD_FILE = Path(__file__).parents[2] / "crds" / "modeldeployments.moorage.dev.yaml"

POD = {
    "nodeSelector": {"moorage.dev/test": "no-such-node"},
    "initContainers": [{"name": "fetch", "image": "moorage/none:1", "env": [{"name": "A", "value": "1"}]}],
    "containers": [
        {
            "name": "serve",
            "image": "registry.test:5000/moorage/none",
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "health", "containerPort": 8082}],
            "env": [{"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "envFrom": [{"secretRef": {"name": "login"}}],
            "resources": {"limits": {"cpu": 2, "memory": "1024Mi", "nvidia.com/gpu": 1}, "requests": {"cpu": "1500m"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5},
            "startupProbe": {"httpGet": {"path": "/readyz", "port": 8082}, "failureThreshold": 300},
            "livenessProbe": {"tcpSocket": {"port": 8082}},
            "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": "health"}}},
            "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "model", "mountPath": "/model", "readOnly": True}],
        }
    ],
    "volumes": [
        {"name": "model", "emptyDir": {"sizeLimit": "2048Mi"}},
        {"name": "pin", "configMap": {"name": "pin", "optional": True}},
    ],
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "x"}},
        }
    ],
}
PUBLISHED = specs.parse(
    {
        "spec": {
            "model": {"name": "iris"},
            "traffic": {"gateway": {"parentRefs": [{"name": "public", "namespace": "x"}], "hostnames": ["a.b"]}},
        }
    }
)
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "Deployment": (
        "apps/v1",
        {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": POD},
            "strategy": {"rollingUpdate": {"maxSurge": 1}},
        },
    ),
    "Service": ("v1", {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                },
                {
                    "type": "Pods",
                    "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1000m"}},
                },
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
        },
    ),
    "PodDisruptionBudget": (
        "policy/v1",
        {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"app": "x"}},
        },
    ),
    "HTTPRoute": (
        "gateway.networking.k8s.io/v1",
        http_route.over_revisions(PUBLISHED, {"x-v1": 75, "x-v2": 25}, frozenset({Match("x-v2", "beta", "x-group")})),
    ),
    "ModelDeployment": ("moorage.dev/v1alpha1", {"model": {"name": "iris", "alias": "champion"}}),
}
ASSIGNED = ("clusterIP", "clusterIPs")


@pytest.fixture
async def both(api: Api) -> AsyncIterator[tuple[Cluster, Cluster]]:
    async with cluster.connect(api.kubeconfig) as real:
        yield FakeCluster(), real


def essence(manifest: Manifest) -> set[str]:
    """One line for each value and each owned field, but for what the server makes up and what nobody applied."""
    metadata = manifest["metadata"]
    spec = {key: value for key, value in manifest.get("spec", {}).items() if key not in ASSIGNED}
    ownership = fake_ssa.read(metadata.get("managedFields", ()))
    owned = {owner.manager: held for owner, held in ownership.items() if owner.operation == "Apply"}
    kept = {"labels": metadata.get("labels"), "generation": metadata.get("generation"), "spec": spec}
    return set(lines(kept)) | {f"{manager} owns {' '.join(path)}" for manager in owned for path in owned[manager]}


def lines(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key in value:
            yield from lines(value[key], f"{path}.{key}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from lines(item, f"{path}[{index}]")
    else:
        yield f"{path}: {value!r}"


def assert_alike(fake: Manifest, real: Manifest, note: str = "") -> None:
    ours, theirs = essence(fake), essence(real)
    found = sorted([f"only left: {line}" for line in ours - theirs] + [f"only right: {line}" for line in theirs - ours])
    assert not found, "\n".join([note, *found])


@pytest.mark.parametrize("kind", SPECS)
async def test_the_same_manifest_is_stored_alike(
    both: tuple[Cluster, Cluster], api: Api, namespace: str, kind: str
) -> None:
    if kind == "HTTPRoute":
        api.hack("cluster", "gateway")
    if kind == "ModelDeployment":
        api.kubectl("apply", "--server-side", "-f", str(CRD_FILE))
        api.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.moorage.dev")
    api_version, fields = SPECS[kind]
    manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "alike", "namespace": namespace, "labels": {"app": "x"}},
        "spec": fields,
    }
    stored = [await one.apply(copy.deepcopy(manifest)) for one in both]
    again = [await one.apply(copy.deepcopy(manifest)) for one in both]

    assert_alike(stored[0], stored[1])
    assert_alike(again[0], again[1])
    assert_alike(stored[0], again[0])


def a_deployment(random_: random.Random, namespace: str) -> Manifest:
    """A partial or whole intent: everything but the selector may be there or not."""

    def some(values: dict[str, Any]) -> dict[str, Any]:
        """Without empty maps: the real server remembers their owner although it does not store them."""
        return {key: value for key, value in values.items() if value != {} and random_.random() < 0.6}

    def pick(*values: Any) -> Any:
        return random_.choice(values)

    container = {"name": "serve", "image": pick("moorage/none:1", "moorage/none:2")} | some(
        {
            "env": [{"name": name, "value": pick("1", "2")} for name in "ABC" if random_.random() < 0.6],
            "ports": [{"containerPort": port} for port in (80, 81) if random_.random() < 0.6],
            "resources": {"limits": {"cpu": pick("1000m", "2")} | some({"memory": "1024Mi"})},
            "args": pick(["a"], ["a", "b"]),
        }
    )
    sidecar = [{"name": "sidecar", "image": "moorage/none:1"}] if random_.random() < 0.3 else []
    pod = {"containers": [container, *sidecar]} | some({"nodeSelector": {"x": pick("1", "2")}})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "random", "namespace": namespace}
        | some({"labels": some({"a": pick("1", "2"), "b": "1"})}),
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"} | some({"y": pick("1", "2")})}, "spec": pod},
        }
        | some({"replicas": pick(1, 2, 3), "minReadySeconds": pick(1, 2)}),
    }


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_applies_by_three_managers_ends_alike(
    both: tuple[Cluster, Cluster], namespace: str, seed: int
) -> None:
    random_ = random.Random(seed)
    for step in range(25):
        manifest = a_deployment(random_, namespace)
        manifest["metadata"]["name"] = f"random-{seed}"
        manager = random_.choice(["moorage", "someone", "third"])
        fake, real = [await one.apply(copy.deepcopy(manifest), manager=manager) for one in both]
        assert_alike(fake, real, f"seed {seed}, step {step}, by {manager}: {manifest}")


async def test_what_an_owner_leaves_behind_is_collected(both: tuple[Cluster, Cluster], namespace: str) -> None:
    """Only the fake must be told; the other's garbage collector is its own affair, tested end to end."""
    fake = both[0]
    assert isinstance(fake, FakeCluster)
    owner = await fake.apply(config_map("owner", namespace))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    child = await fake.apply(config_map("child", namespace, ownerReferences=[reference]))
    assert fake.collect_garbage() == 0
    fake.remove(kinds.ref_of(owner))

    assert fake.collect_garbage() == 1
    assert await fake.get(kinds.ref_of(child)) is None


async def test_a_status_of_ours_is_ours_alone(both: tuple[Cluster, Cluster], api: Api, namespace: str) -> None:
    api.kubectl("apply", "--server-side", "-f", str(CRD_FILE))
    api_version, spec = SPECS["ModelDeployment"]
    manifest = {
        "apiVersion": api_version,
        "kind": "ModelDeployment",
        "metadata": {"name": "st", "namespace": namespace},
    }
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Testing",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    for one in both:
        await one.apply({**manifest, "spec": spec})
        status = {**manifest, "status": {"observedGeneration": 1, "conditions": [ready]}}
        first = await one.apply(status, subresource="status")
        second = await one.apply(status, subresource="status")
        less = await one.apply({**manifest, "status": {"observedGeneration": 1}}, subresource="status")

        assert first["status"]["conditions"] == [ready]
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
        assert first["metadata"]["generation"] == 1
        assert not less["status"].get("conditions")


def config_map(name: str, namespace: str, **metadata: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


def test_the_fake_knows_the_kinds_of_the_crd() -> None:
    crd = yaml.safe_load(CRD_FILE.read_text())
    assert crd["spec"]["names"]["plural"] == kinds.MODEL_DEPLOYMENT.plural


async def test_both_refuse_the_status_of_nothing(both: tuple[Cluster, Cluster], namespace: str) -> None:
    manifest = config_map("absent", namespace) | {"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelDeployment"}
    for one in both:
        with pytest.raises(errors.Invalid):
            await one.apply({**manifest, "status": {}}, subresource="status")
