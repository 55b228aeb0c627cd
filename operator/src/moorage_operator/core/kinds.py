"""The Kubernetes kinds that the operator reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
"""A Kubernetes object as JSON: `apiVersion`, `kind`, `metadata`, …"""


@dataclass(frozen=True)
class Kind:
    """One resource type of the API server; `group` is empty for the core group."""

    group: str
    version: str
    name: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True)
class Ref:
    """One object's address in the API."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.namespace}/{self.name}"


MODEL_DEPLOYMENT = Kind("moorage.dev", "v1alpha1", "ModelDeployment", "modeldeployments")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
CONTROLLER_REVISION = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")
SERVICE = Kind("", "v1", "Service", "services")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
POD = Kind("", "v1", "Pod", "pods")
EVENT = Kind("events.k8s.io", "v1", "Event", "events")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
"""Of the Gateway API, which a cluster need not have."""
CRD = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")

CHILDREN = (CONTROLLER_REVISION, CONFIG_MAP, DEPLOYMENT, SERVICE, AUTOSCALER, DISRUPTION_BUDGET)
"""What a ModelDeployment owns directly, in the order in which it is written."""

ALL = (MODEL_DEPLOYMENT, *CHILDREN, HTTP_ROUTE, POD, EVENT, LEASE, SERVICE_ACCOUNT, ROLE_BINDING, ENDPOINT_SLICE, CRD)
BY_NAME = {(kind.api_version, kind.name): kind for kind in ALL}


def ref_of(manifest: Manifest) -> Ref:
    """Address of a manifest that has a name; cluster-scoped objects have the empty namespace."""
    metadata = manifest["metadata"]
    return Ref(BY_NAME[manifest["apiVersion"], manifest["kind"]], metadata.get("namespace", ""), metadata["name"])
