"""The pod template of a revision: one init container that fetches, one container that serves. Rendered once, then frozen.

The environment variables are the contract with the runtime's image (docs/runtime.md).
"""

from __future__ import annotations

from typing import Any

from moorage_operator.core import names, needs, quantities, restricted, spec
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.platform import Platform
from moorage_operator.core.registry import ModelVersion

HTTP_PORT = 8080
GRPC_PORT = 8081
HEALTH_PORT = 8082
MODEL_DIR = "/model"
PIN_DIR = "/etc/moorage/pin"
DIGEST_KEY = "digest"
SIGNATURE_KEY = "signature"
FETCH = "fetch"
SERVE = "serve"


def make_template(
    wanted: spec.Spec, model: ModelVersion, *, deployment: str, revision: str, platform: Platform
) -> Manifest:
    """The whole pod template: labels, both containers, volumes and placement, within Pod Security level "restricted"."""
    return {
        "metadata": {
            "labels": wanted.pod.labels | revision_labels(deployment, revision, model.version),
            "annotations": dict(wanted.pod.annotations),
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": restricted.pod_security(),
            "terminationGracePeriodSeconds": platform.termination_grace_period_seconds,
            "topologySpreadConstraints": [_spread(deployment, revision)],
            "initContainers": [_fetch(wanted, model, platform)],
            "containers": [_serve(wanted, model, revision, platform)],
            "volumes": [
                {"name": "model", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "pin", "configMap": {"name": revision, "optional": True}},
            ],
            **_placement(wanted.pod),
        },
    }


def labels(deployment: str) -> dict[str, str]:
    """Labels of all that belongs to one ModelDeployment."""
    return {
        names.APP_NAME: "moorage-runtime",
        names.APP_INSTANCE: deployment,
        names.APP_COMPONENT: "model",
        names.MANAGED_BY: names.OPERATOR,
        names.DEPLOYMENT: deployment,
    }


def revision_labels(deployment: str, revision: str, model_version: str) -> dict[str, str]:
    """Labels of all that belongs to one revision."""
    return labels(deployment) | {names.REVISION: revision, names.MODEL_VERSION: model_version}


def image_of(wanted: spec.Spec, platform: Platform) -> str:
    """The image that the spec names, else the chart's: the larger one where PyTorch or a GPU is asked for."""
    if wanted.runtime.image:
        return wanted.runtime.image
    larger = wanted.runtime.engine == "torch" or wanted.resources.asks_for_gpu
    return platform.gpu_image if larger else platform.image


def _fetch(wanted: spec.Spec, model: ModelVersion, platform: Platform) -> Manifest:
    """Only this container ever holds credentials of the registry and of the artifact store."""
    endpoint = platform.registries[wanted.model.registry.name]
    environment = {
        "MLFLOW_TRACKING_URI": endpoint.tracking_uri,
        "MOORAGE_CA_BUNDLE": endpoint.ca_bundle,
        "MOORAGE_PINNED_DIGEST_FILE": f"{PIN_DIR}/{DIGEST_KEY}",
    }
    secret = wanted.model.registry.credentials_secret
    return _container(FETCH, wanted, platform) | {
        "env": _env(_model_environment(model) | environment),
        "envFrom": [{"secretRef": {"name": secret}}] if secret else [],
        "resources": dict(platform.fetch_resources),
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            {"name": "pin", "mountPath": PIN_DIR, "readOnly": True},
        ],
    }


def _serve(wanted: spec.Spec, model: ModelVersion, revision: str, platform: Platform) -> Manifest:
    environment = {
        "MOORAGE_REVISION": revision,
        "MOORAGE_ENGINE": wanted.runtime.engine,
        "MOORAGE_DEVICE": wanted.runtime.device,
        "MOORAGE_ALLOW_PICKLE": "true" if wanted.runtime.allow_pickle else "false",
        "MOORAGE_PORT": str(HTTP_PORT),
        "MOORAGE_GRPC_PORT": str(GRPC_PORT),
        "MOORAGE_HEALTH_PORT": str(HEALTH_PORT),
        "MOORAGE_DRAIN_SECONDS": str(platform.drain_seconds),
    }
    return _container(SERVE, wanted, platform) | {
        "env": [
            *_env(_model_environment(model) | environment),
            {"name": "MOORAGE_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *(_user_variable(item) for item in wanted.runtime.env),
        ],
        "resources": _resources(wanted.resources),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        ],
        # Loading may take minutes and is bounded by the rollout's progress deadline, not by a probe; a process that is stuck
        # while loading answers its liveness probe with a failure by itself.
        "readinessProbe": restricted.probe("/readyz", "health", period=2, failures=2),
        "livenessProbe": restricted.probe("/healthz", "health", period=10, failures=3)
        | {"initialDelaySeconds": 10, "timeoutSeconds": 5},
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": "health", "scheme": "HTTP"}}},
    }


def _container(name: str, wanted: spec.Spec, platform: Platform) -> Manifest:
    return {
        "name": name,
        "image": image_of(wanted, platform),
        "imagePullPolicy": platform.image_pull_policy,
        "args": [name],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": restricted.container_security(),
    }


def _model_environment(model: ModelVersion) -> dict[str, str]:
    return {"MOORAGE_MODEL_NAME": model.name, "MOORAGE_MODEL_VERSION": model.version, "MOORAGE_MODEL_DIR": MODEL_DIR}


def _env(variables: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in variables.items() if value]


def _user_variable(variable: spec.EnvVar) -> dict[str, Any]:
    return {"name": variable.name} | {
        key: value for key, value in spec.without_defaults(variable).items() if key != "name"
    }


def _resources(resources: needs.Resources) -> Manifest:
    parts = {
        "limits": quantities.canonical_map(resources.limits),
        "requests": quantities.canonical_map(resources.requests),
    }
    return {name: part for name, part in parts.items() if part}


def _spread(deployment: str, revision: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {names.DEPLOYMENT: deployment, names.REVISION: revision}},
    }


def _placement(pod: spec.Pod) -> Manifest:
    fields = {
        "nodeSelector": dict(pod.node_selector),
        "tolerations": list(pod.tolerations),
        "affinity": dict(pod.affinity),
        "runtimeClassName": pod.runtime_class_name,
        "priorityClassName": pod.priority_class_name,
        "serviceAccountName": pod.service_account_name,
        "imagePullSecrets": list(pod.image_pull_secrets),
    }
    return {name: value for name, value in fields.items() if value}
