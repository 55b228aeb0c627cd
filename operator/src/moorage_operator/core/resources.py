"""One `make_<kind>()` per child of a ModelDeployment: the whole object, from scratch, every pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from moorage_operator.core import names, pods
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    SERVICE,
    Kind,
    Manifest,
)
from moorage_operator.core.revisions import Owner, Revision
from moorage_operator.core.spec import Autoscaling, Spec

Shrinks = Literal["freely", "one by one", "never"]

DEFAULT_CPU_UTILIZATION = 80
"""Percent of the request; the target of an autoscaler that names none."""


def make_controller_revision(owner: Owner, revision: Revision) -> Manifest:
    """The frozen template: what drift is repaired to, and what `undo` goes back to."""
    body = {"revision": revision.number, "data": revision.data()}
    return _child(CONTROLLER_REVISION, owner, revision.name, revision) | body


def make_pin(owner: Owner, revision: Revision, data: dict[str, str]) -> Manifest:
    """What the first pod reported: every later pod of the revision verifies its download against the digest."""
    return _child(CONFIG_MAP, owner, revision.name, revision) | {"data": data}


def make_deployment(owner: Owner, revision: Revision, *, replicas: int | None, track: str, deadline: int) -> Manifest:
    """`replicas` is None where an autoscaler owns the number. `track` is a label of this object alone, never of its pods."""
    child = _child(DEPLOYMENT, owner, revision.name, revision)
    if track:
        child["metadata"]["labels"][names.TRACK] = track
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector(owner.name, revision.name)},
        "template": revision.template,
        "minReadySeconds": revision.min_ready_seconds,
        "progressDeadlineSeconds": deadline,
        "revisionHistoryLimit": 0,
        # The template never changes, but for drift that is put back: then no pod ends before another is ready.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    }
    if revision.min_ready_seconds >= deadline:
        spec["progressDeadlineSeconds"] = revision.min_ready_seconds + deadline
    if replicas is not None:
        spec["replicas"] = replicas
    return child | {"spec": spec}


def make_revision_service(owner: Owner, revision: Revision) -> Manifest:
    """DNS name and EndpointSlices of one revision, inside the cluster: for tests, metrics and comparisons.

    Headless: cluster IPs are few (a /20 has 4,096) and the API server allocates one at a time, whoever asks.
    """
    ports = [_port("http", pods.HTTP_PORT), _grpc_port(pods.GRPC_PORT), _port("health", pods.HEALTH_PORT)]
    spec = {"type": "ClusterIP", "clusterIP": "None", "selector": selector(owner.name, revision.name), "ports": ports}
    return _child(SERVICE, owner, revision.name, revision) | {"spec": spec}


def make_stable_service(owner: Owner, wanted: Spec, revisions: Sequence[str]) -> Manifest:
    """The one stable address: a Service with the ModelDeployment's name, to the pods of one revision, or of all that there are."""
    child = _child(SERVICE, owner, owner.name)
    if wanted.service.annotations:
        child["metadata"]["annotations"] = dict(wanted.service.annotations)
    ports = _ports(wanted)
    chosen = selector(owner.name, revisions[0]) if len(revisions) == 1 else {names.DEPLOYMENT: owner.name}
    return child | {"spec": {"type": wanted.service.type, "selector": chosen, "ports": ports}}


def make_routed_service(owner: Owner, wanted: Spec, router_port: int) -> Manifest:
    """The same address, to the namespace's router."""
    service = make_stable_service(owner, wanted, ())
    ports = [port | {"targetPort": router_port} for port in service["spec"]["ports"]]
    return service | {"spec": service["spec"] | {"selector": names.MANAGED | names.OF_ROUTER, "ports": ports}}


def make_preview_service(owner: Owner, wanted: Spec, revision: str) -> Manifest:
    """Where a blue-green rollout's new version can be tried before anybody else gets it."""
    spec = {
        "type": "ClusterIP",
        "selector": selector(owner.name, revision),
        "ports": _ports(wanted),
    }
    return _child(SERVICE, owner, names.preview(owner.name)) | {"spec": spec}


def make_http_route(owner: Owner, spec: Manifest) -> Manifest:
    """Has the name of the address."""
    return _child(HTTP_ROUTE, owner, owner.name) | {"spec": spec}


def make_autoscaler(
    owner: Owner, revision: Revision, scaling: Autoscaling, *, min_replicas: int, shrinks: Shrinks
) -> Manifest:
    """HPA v2. `min_replicas` is what the revision must be able to carry now, at least the spec's own. During a rollout none
    shrinks, because what a canary takes over may come back at any moment; but where there is no room for both, as far as
    its metrics allow.
    """
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name, "name": revision.name},
        "minReplicas": min_replicas,
        "maxReplicas": max(scaling.max_replicas, min_replicas),
        "metrics": _metrics(scaling),
    }
    behavior = dict(scaling.behavior or {})
    if shrinks == "never":
        behavior["scaleDown"] = behavior.get("scaleDown", {}) | {"selectPolicy": "Disabled"}
    if shrinks == "one by one":
        one = {"type": "Pods", "value": 1, "periodSeconds": 15}
        behavior["scaleDown"] = behavior.get("scaleDown", {}) | {"policies": [one], "selectPolicy": "Min"}
    if behavior:
        spec["behavior"] = behavior
    return _child(AUTOSCALER, owner, revision.name, revision) | {"spec": spec}


def make_disruption_budget(owner: Owner, revision: Revision) -> Manifest:
    """A node drain takes one pod at a time, and never has to wait for a pod that is broken anyway."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(owner.name, revision.name)},
    }
    return _child(DISRUPTION_BUDGET, owner, revision.name, revision) | {"spec": spec}


def selector(deployment: str, revision: str) -> dict[str, str]:
    return {names.DEPLOYMENT: deployment, names.REVISION: revision}


def _child(kind: Kind, owner: Owner, name: str, revision: Revision | None = None) -> Manifest:
    """Type, name, labels and owner of a child: the garbage collector removes it with its ModelDeployment."""
    labels = pods.labels(owner.name)
    if revision:
        labels = pods.revision_labels(owner.name, revision.name, revision.model.version)
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": labels,
            "ownerReferences": [owner.reference()],
        },
    }


def _metrics(scaling: Autoscaling) -> list[Manifest]:
    cpu, memory = scaling.target_cpu_utilization, scaling.target_memory_utilization
    if cpu is None and memory is None and not scaling.metrics:
        cpu = DEFAULT_CPU_UTILIZATION
    targets = [("cpu", cpu), ("memory", memory)]
    return [_utilization(name, target) for name, target in targets if target is not None] + list(scaling.metrics)


def _utilization(resource: str, percent: int) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": resource, "target": target}}


def _ports(wanted: Spec) -> list[Manifest]:
    """Of every address that callers know."""
    return [_port("http", wanted.service.port), _grpc_port(wanted.service.grpc_port)]


def _grpc_port(port: int) -> Manifest:
    """Says what a Gateway has to know: HTTP/2 without TLS."""
    return _port("grpc", port) | {"appProtocol": "kubernetes.io/h2c"}


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
