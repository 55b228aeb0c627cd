"""What the API server adds to and rewrites in an object before it stores it; `FakeCluster` needs this much of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

import fake_ssa
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Kind, Manifest

CRD_FILE = Path(__file__).parent.parent / "crds" / "modeldeployments.moorage.dev.yaml"
SERVICE_IP = "10.96.0.10"

POD_SPEC = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
CONTAINER = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
CPU_AT_80_PERCENT = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
SCALE_DOWN = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
SCALE_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
SUFFIXES = {"": 0, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "u": -6, "n": -9}
MAPS = {"labels", "annotations", "data", "nodeSelector", "limits", "requests", "matchLabels"}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def stored_form(kind: Kind, manifest: Manifest) -> None:
    """Fill defaults, rewrite quantities and leave out what is empty, in place."""
    if kind.group != kinds.MODEL_DEPLOYMENT.group:
        _leave_out_empty(manifest)
    if default := DEFAULTS.get(kind):
        default(manifest)


def _leave_out_empty(value: Any) -> None:
    """Lists and maps; an empty structure (`emptyDir: {}`) stays. Custom resources keep all."""
    if isinstance(value, list):
        for item in value:
            _leave_out_empty(item)
    elif isinstance(value, dict):
        for key, below in list(value.items()):
            _leave_out_empty(below)
            if below == [] or (below == {} and key in MAPS):
                del value[key]


def canonical(quantity: Any) -> str:
    """`2000m` is stored as `2`, `1024Mi` as `1Gi`, `0.5` as `500m`: the largest suffix that leaves a whole number."""
    match = re.fullmatch(r"([+-]?[0-9.]+)([a-zA-Z]*)", str(quantity))
    if match is None:
        return str(quantity)
    number, suffix = Decimal(match[1]), match[2]
    if suffix in BINARY:
        return _largest(number * 1024 ** BINARY[suffix], {name: 1024**power for name, power in BINARY.items()})
    scaled = number.scaleb(SUFFIXES[suffix])
    return _largest(scaled, {name: Decimal(1).scaleb(power) for name, power in SUFFIXES.items() if name})


def _largest(value: Decimal, units: Mapping[str, Decimal | int]) -> str:
    candidates = sorted([*units.items(), ("", 1)], key=lambda unit: unit[1], reverse=True)
    for name, unit in candidates:
        if value % unit == 0:
            return f"{int(value / unit)}{name}" if value else "0"
    return str(value)


def _deployment(manifest: Manifest) -> None:
    spec = manifest["spec"]
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        _fill(strategy.setdefault("rollingUpdate", {}), {"maxUnavailable": "25%", "maxSurge": "25%"})
    pod = spec["template"].setdefault("spec", {})
    _fill(pod, POD_SPEC)
    for volume in pod.get("volumes", []):
        _volume(volume)
    for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
        _container(container)


def _volume(volume: dict[str, Any]) -> None:
    for source in ("configMap", "secret", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", 420)
    if "sizeLimit" in volume.get("emptyDir", {}):
        volume["emptyDir"]["sizeLimit"] = canonical(volume["emptyDir"]["sizeLimit"])


def _container(container: dict[str, Any]) -> None:
    _fill(container, CONTAINER)
    tagged = re.search(r":[^/]+$", container.get("image", ""))
    container.setdefault("imagePullPolicy", "IfNotPresent" if tagged and tagged[0] != ":latest" else "Always")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := container.get(name):
            _fill(probe, PROBE)
            _http(probe)
    for hook in container.get("lifecycle", {}).values():
        _http(hook)
    for variable in container.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for amounts in container["resources"].values():
        amounts.update({name: canonical(amount) for name, amount in amounts.items()})


def _http(action: dict[str, Any]) -> None:
    if "httpGet" in action:
        action["httpGet"].setdefault("scheme", "HTTP")


def _service(manifest: Manifest) -> None:
    spec = manifest["spec"]
    _fill(
        spec,
        {
            "type": "ClusterIP",
            "clusterIP": SERVICE_IP,
            "clusterIPs": [spec.get("clusterIP", SERVICE_IP)],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
        },
    )
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])


def _autoscaler(manifest: Manifest) -> None:
    spec = manifest["spec"]
    spec.setdefault("minReplicas", 1)
    spec.setdefault("metrics", [fake_ssa.copied(CPU_AT_80_PERCENT)])
    for metric in spec["metrics"]:
        target = next(value["target"] for value in metric.values() if isinstance(value, dict))
        target.update({key: canonical(target[key]) for key in ("value", "averageValue") if key in target})
    if "behavior" in spec:
        _fill(spec["behavior"].setdefault("scaleUp", {}), SCALE_UP)
        _fill(spec["behavior"].setdefault("scaleDown", {}), SCALE_DOWN)


def _custom(manifest: Manifest) -> None:
    _schema_defaults(manifest, _schema())


@functools.cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(CRD_FILE.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _schema_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if name not in value and "default" in below:
                value[name] = fake_ssa.copied(below["default"])
            if name in value:
                _schema_defaults(value[name], below)
    elif isinstance(value, list):
        for item in value:
            _schema_defaults(item, schema.get("items", {}))


def _fill(target: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        target.setdefault(key, fake_ssa.copied(value))


DEFAULTS: dict[Kind, Callable[[Manifest], None]] = {
    kinds.DEPLOYMENT: _deployment,
    kinds.SERVICE: _service,
    kinds.AUTOSCALER: _autoscaler,
    kinds.MODEL_DEPLOYMENT: _custom,
}
