"""Backends that tell their name (echo.py), in pods of the runtime's image, each behind a Service with a port for HTTP and one for gRPC."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from place import Object, Place

HTTP, GRPC = 80, 8081
SCRIPT = Path(__file__).parent / "echo.py"


def have(place: Place, *names: str) -> None:
    """Returns when they are ready."""
    files = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "echo"},
        "data": {SCRIPT.name: SCRIPT.read_text()},
    }
    place.apply(files, *(item for name in names for item in (_deployment(name), a_service(name))))
    for name in names:
        place.wait_rolled_out(name)


def a_service(name: str, *, of: str = "", **spec: object) -> Object:
    """To the pods of the backend `of`, which is `name` if not told otherwise."""
    ports = [
        {"name": "http", "port": HTTP, "targetPort": 8080},
        {"name": "grpc", "port": GRPC, "targetPort": 8081, "appProtocol": "kubernetes.io/h2c"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": of or name}, "ports": ports} | spec,
    }


def _deployment(name: str) -> Object:
    container = {
        "name": "echo",
        "image": f"moorage/runtime:{metadata.version('moorage-runtime')}",
        "command": ["python", "/echo/echo.py"],
        "env": [{"name": "NAME", "value": name}],
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "echo", "mountPath": "/echo"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "echo", "configMap": {"name": "echo"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }
