"""Pods and a router without a cluster: the runtime and HAProxy as processes, each pod on an address of loopback of its own.

All pods have the same ports, as they have in a cluster, and find each other by the names of their revisions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import lab, processes
from devcluster import console
from mlflow_server import free_port
from moorage_operator.router import config, endpoints, pools, table
from moorage_operator.router.settings import Layout

# A pod asks the cluster's DNS for another; here a file that only this one process sees.
_WITH_HOSTS = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']


@dataclass(frozen=True)
class Pod:
    process: subprocess.Popen[bytes]
    health: str

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.process.pid)

    def copies(self) -> Counter[str]:
        """Of the requests that it has answered, by what became of them."""
        families = text_string_to_metric_families(self._get("/metrics"))
        samples = [sample for family in families for sample in family.samples if sample.name == "moorage_shadow_total"]
        return Counter({sample.labels["outcome"]: int(sample.value) for sample in samples})

    def is_ready(self) -> bool:
        try:
            return bool(self._get("/readyz"))
        except OSError:
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self.health + path, timeout=10) as answer:  # noqa: S310 - http, loopback
            return str(answer.read().decode())


class Machine:
    """Where they run. `revisions` has the address of each one's only pod."""

    def __init__(self, folder: Path, revisions: Mapping[str, str]) -> None:
        self._folder = folder
        self._revisions = revisions
        self._hosts = folder / "hosts"
        self._hosts.write_text("".join(f"{ip} {revision}\n" for revision, ip in revisions.items()))
        self._model = _trained(folder)
        self.port, self._grpc_port, self._health_port = free_port(), free_port(), free_port()

    @contextmanager
    def pod(self, revision: str) -> Iterator[Pod]:
        """A ready one."""
        ip = self._revisions[revision]
        options = {
            "model": self._model,
            "revision": revision,
            "pod-ip": ip,
            "host": ip,
            "port": self.port,
            "grpc-port": self._grpc_port,
            "health-port": self._health_port,
            "drain-seconds": 0,
        }
        serve = [sys.executable, "-m", "moorage_runtime", "serve", *(f"--{name}={of}" for name, of in options.items())]
        with self._running(revision, [*_WITH_HOSTS, str(self._hosts), *serve]) as process:
            pod = Pod(process, f"http://{ip}:{self._health_port}")
            processes.wait_until_ready(process, pod.is_ready, "a pod did not become ready")
            yield pod

    @contextmanager
    def router(self, models: Mapping[str, table.Model]) -> Iterator[None]:
        """HAProxy as the router's agent has it started; the pods are ready before."""
        layout = Layout(self._folder, bind="127.0.0.1", metrics_port=free_port())
        wanted = table.Table(models=dict(models))
        pods: endpoints.Endpoints = {
            (revision, "http"): frozenset({endpoints.Address(ip, self.port)})
            for revision, ip in self._revisions.items()
        }
        layout.config_file.write_text(config.render(wanted, pools.make(wanted, pods), layout))
        layout.map_file.write_text(config.render_map(wanted))
        with self._running("haproxy", ["haproxy", "-db", "-f", str(layout.config_file)]):
            time.sleep(1)  # its first checks of the pods
            yield

    @contextmanager
    def _running(self, name: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield process
        except console.Failure as failure:
            raise console.Failure(f"{failure}\n{name} said last:\n{console.last_lines(log.read_text())}") from failure
        finally:
            process.terminate()
            process.wait()


def _trained(folder: Path) -> Path:
    """The files of examples/digits-onnx."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    with console.step("the example is trained"):
        console.run([sys.executable, str(lab.ROOT / "examples/digits-onnx/train.py")], env=environment, cwd=folder)
    return next(folder.rglob("MLmodel")).parent
