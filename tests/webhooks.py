"""A validating webhook in the cluster that holds up one user's writes of Deployments in one namespace."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import certificates
from place import Object, Place

SCRIPT = Path(__file__).parent / "slow_webhook.py"
NAME = "slow"


@contextlib.contextmanager
def slow(place: Place, folder: Path, *, seconds: float, user: str) -> Iterator[None]:
    """For the time of the block; the webhook itself lives in the namespace that it holds up."""
    certificate, key = certificates.make(folder, NAME, f"DNS:{NAME}.{place.name}.svc")
    files = {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), SCRIPT.name: SCRIPT.read_text()}
    service = {"selector": {"app": NAME}, "ports": [{"port": 443, "targetPort": 8443}]}
    place.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": files},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": service},
        _pod(seconds),
    )
    place.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s", seconds=70)
    configuration = f"{place.name}-{NAME}"
    place.apply(_configuration(configuration, place.name, user, certificate.read_bytes()))
    try:
        yield
    finally:
        place.delete("validatingwebhookconfiguration", configuration)


def _pod(seconds: float) -> Object:
    container = {
        "name": NAME,
        "image": f"moorage/runtime:{metadata.version('moorage-runtime')}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"/tls/{SCRIPT.name}"],
        "env": [{"name": "SECONDS", "value": str(seconds)}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    secured = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [{"name": "tls", "configMap": {"name": NAME}}]
    spec = {"containers": [container], "volumes": volumes, "securityContext": secured}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": spec | {"automountServiceAccountToken": False},
    }


def _configuration(name: str, namespace: str, user: str, authority: bytes) -> Object:
    webhook = {
        "name": "slow.moorage.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "failurePolicy": "Fail",
        "rules": [
            {
                "apiGroups": ["apps"],
                "apiVersions": ["v1"],
                "resources": ["deployments"],
                "operations": ["CREATE", "UPDATE"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        # The controller manager has five workers for Deployments, which it would hold up as well.
        "matchConditions": [{"name": "by-the-operator", "expression": f"request.userInfo.username == '{user}'"}],
        "clientConfig": {
            "service": {"name": NAME, "namespace": namespace},
            "caBundle": base64.b64encode(authority).decode(),
        },
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }
