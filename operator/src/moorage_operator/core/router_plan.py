"""The router of one namespace: which objects it consists of, and what has to be written for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_operator.core import compare, names, restricted, routing, writes
from moorage_operator.core.actions import Action, Apply
from moorage_operator.core.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Kind,
    Manifest,
    Ref,
)
from moorage_operator.core.observed import Observed
from moorage_operator.core.platform import RouterSettings
from moorage_operator.core.revisions import Owner

AGENT_PORT, METRICS_PORT = 8404, 8405
FOLDER = "/run/moorage-router"


@dataclass(frozen=True)
class RouterPlan:
    """`owners` are all ModelDeployments behind the router: it goes with the last of them."""

    namespace: str
    owners: Sequence[Owner]
    settings: RouterSettings
    observed: Observed

    def rolls(self) -> bool:
        """Does the router that runs get new pods by this plan?"""
        live = self.observed.child(DEPLOYMENT, routing.NAME)
        if not self.owners or live is None:
            return False
        return not compare.holds(self._template(), live["spec"]["template"])

    def actions(self, data: Mapping[str, str], *, may_roll: bool) -> Iterator[Action]:
        """`data` is the ConfigMap's content; `may_roll` is false for one that `rolls` and has to wait for its turn.

        New pods of all routers at once would cost every model a piece of its capacity.
        """
        if not self.owners:
            for kind in (DEPLOYMENT, DISRUPTION_BUDGET, CONFIG_MAP):
                yield from writes.delete(self.observed, kind, routing.NAME)
            return
        yield from self._config_map(data)
        for manifest in self._access():
            yield from writes.hold(self.observed, manifest)
        if may_roll:
            yield from writes.hold(self.observed, self.deployment())
        if self.settings.replicas > 1:
            yield from writes.hold(self.observed, self._disruption_budget())
        else:
            yield from writes.delete(self.observed, DISRUPTION_BUDGET, routing.NAME)

    def deployment(self) -> Manifest:
        return self._made(DEPLOYMENT) | {
            "spec": {
                "replicas": self.settings.replicas,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": names.MANAGED | names.OF_ROUTER},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": self._template(),
            }
        }

    def _config_map(self, data: Mapping[str, str]) -> Iterator[Action]:
        """Only this pass writes it, and only over what it has read: two operators can't give one port twice."""
        manifest = self._made(CONFIG_MAP) | {"data": dict(data)}
        live = self.observed.child(CONFIG_MAP, routing.NAME)
        for action in writes.hold(self.observed, manifest):
            if live and isinstance(action, Apply):
                metadata = action.manifest["metadata"] | {"resourceVersion": live["metadata"]["resourceVersion"]}
                yield Apply(action.manifest | {"metadata": metadata}, uid=action.uid)
            else:
                yield action

    def _access(self) -> Iterable[Manifest]:
        yield self._made(SERVICE_ACCOUNT) | {"automountServiceAccountToken": False}
        if self.settings.cluster_role:
            role = {"apiGroup": ROLE_BINDING.group, "kind": "ClusterRole", "name": self.settings.cluster_role}
            subject = {"kind": SERVICE_ACCOUNT.name, "name": routing.NAME, "namespace": self.namespace}
            # By the role's name: what a binding binds can't be changed, and a second installation brings a role of its own.
            yield self._made(ROLE_BINDING, self.settings.cluster_role) | {"roleRef": role, "subjects": [subject]}

    def _disruption_budget(self) -> Manifest:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": names.MANAGED | names.OF_ROUTER}}
        return self._made(DISRUPTION_BUDGET) | {"spec": spec}

    def _made(self, kind: Kind, name: str = routing.NAME) -> Manifest:
        references = [{k: v for k, v in owner.reference().items() if k in _REFERENCE} for owner in self.owners]
        metadata = {
            "name": name,
            "namespace": self.namespace,
            "labels": _LABELS,
            "ownerReferences": references,
        }
        return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}

    def _template(self) -> Manifest:
        spec: dict[str, Any] = {
            "serviceAccountName": routing.NAME,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": restricted.pod_security(),
            "terminationGracePeriodSeconds": self.settings.termination_grace_period_seconds,
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_APART]}},
            "containers": [self._haproxy(), self._agent()],
            "volumes": [{"name": "run", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, _TOKEN],
        }
        if self.settings.priority_class_name:
            spec["priorityClassName"] = self.settings.priority_class_name
        if self.settings.image_pull_secrets:
            spec["imagePullSecrets"] = [dict(secret) for secret in self.settings.image_pull_secrets]
        return {"metadata": {"labels": _LABELS}, "spec": spec}

    def _haproxy(self) -> Manifest:
        return self._container("haproxy") | {
            "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
            "resources": dict(self.settings.resources),
            "readinessProbe": restricted.probe("/healthz", "metrics", period=2, failures=2),
        }

    def _agent(self) -> Manifest:
        """Ready when it has seen HAProxy hold the whole table. It alone gets a token."""
        agent = self._container("agent")
        token = {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
        return agent | {
            "volumeMounts": [*agent["volumeMounts"], token],
            "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
            "resources": dict(self.settings.agent_resources),
            "readinessProbe": restricted.probe("/readyz", "agent", period=1, failures=2),
            "livenessProbe": restricted.probe("/healthz", "agent", period=10, failures=3) | {"initialDelaySeconds": 10},
        }

    def _container(self, name: str) -> Manifest:
        return {
            "name": name,
            "image": self.settings.image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "command": ["moorage-router", name],
            "env": [
                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "MOORAGE_ROUTER_FOLDER", "value": FOLDER},
            ],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": restricted.container_security(),
            "volumeMounts": [
                {"name": "run", "mountPath": FOLDER},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            ],
        }


_REFERENCE = ("apiVersion", "kind", "name", "uid")
"""Not `controller`: no ModelDeployment owns the router alone."""

_LABELS = names.MANAGED | names.OF_ROUTER | {names.APP_NAME: routing.NAME}

_TOKEN = {
    "name": "token",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
    },
}
"""What the kubelet would mount into every container of the pod."""

_APART = {
    "weight": 100,
    "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": names.MANAGED | names.OF_ROUTER},
    },
}


def unwatched(namespace: str, settings: RouterSettings) -> list[Ref]:
    """The objects that no watch shows us."""
    binding = [Ref(ROLE_BINDING, namespace, settings.cluster_role)] if settings.cluster_role else []
    return [Ref(SERVICE_ACCOUNT, namespace, routing.NAME), *binding]
