"""kill -9 in pods. `kubectl delete --force` is none: the pod leaves everybody's endpoints at once, and its processes get SIGTERM first."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from place import Object, Place, until

ALL_OF = """
import contextlib, os, pathlib, signal, sys, time
def is_meant(process):
    try:
        groups = (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(container in groups for container in sys.argv[1:])
found = [int(process.name) for process in pathlib.Path("/proc").glob("[0-9]*") if is_meant(process)]
print(time.time())
for pid in found:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
sys.exit(not found)
"""
"""Every process of the containers with these ids; says when. With the first process of a container the kernel ends the others."""

WORKER = """
import os, pathlib, signal, sys, time
def name_and_parent(process):
    name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
    return name, rest.split()[1]
programs = {process.name: name_and_parent(process) for process in pathlib.Path("/proc").glob("[0-9]*")}
masters = {pid for pid, (name, parent) in programs.items() if name == "haproxy"}
found = [int(pid) for pid in masters if programs[pid][1] in masters]
print(time.time())
for pid in found:
    os.kill(pid, signal.SIGKILL)
sys.exit(not found)
"""
"""HAProxy's process that has the connections, child of the one that watches over it; says when."""


def containers(place: Place, pod: Object) -> float:
    """All of a pod at once, as seen from its node; `place` is for the pod that does it. Returns when, in seconds since 1970.

    From within, the kernel protects a container's first process. The pod keeps its address, as when a process crashes by itself.
    """
    ids = [item["containerID"].rpartition("/")[2] for item in pod["status"]["containerStatuses"]]
    killer = _killer(pod["spec"]["nodeName"], ids)
    applied = place.api.run("kubectl", "--namespace", place.name, "apply", "--filename=-", stdin=json.dumps(killer))
    if applied.returncode:
        pytest.skip(f"this cluster lets no pod see the processes of its node: {applied.stderr}")
    try:
        until(60, "it has killed", lambda: _phase(place) in ("Succeeded", "Failed"), lambda: _phase(place), every=0.2)
        said = place.kubectl("logs", "killer")
        assert _phase(place) == "Succeeded", said
    finally:
        place.kubectl("delete", "pod", "killer")
    return float(said)


def haproxy(place: Place, pod: Object) -> float:
    """Its worker, in a router pod; returns when."""
    name = pod["metadata"]["name"]
    return float(place.kubectl("exec", name, "--container=haproxy", "--", "python", "-c", WORKER))


def _phase(place: Place) -> str:
    return str(place.get("pod", "killer")["status"]["phase"])


def _killer(node: str, ids: list[str]) -> Object:
    container = {
        "name": "killer",
        "image": f"moorage/runtime:{metadata.version('moorage-runtime')}",
        "command": ["python", "-c", ALL_OF, *ids],
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
    }
    spec = {"nodeName": node, "hostPID": True, "restartPolicy": "Never", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "killer"}, "spec": spec}
