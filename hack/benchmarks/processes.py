"""The operator as a process of this machine, so that its CPU seconds and its memory can be read from /proc."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import lab
from devcluster import console
from mlflow_server import free_port

READS = frozenset({"get", "list"})
START_SECONDS = 60
QUIET_SECONDS = 3.0


@dataclass(frozen=True)
class Usage:
    """What a process has used up to a moment. Requests are counted by (verb, resource), those for the Lease left out."""

    moment: float
    cpu_seconds: float
    requests: Counter[tuple[str, str]]

    @property
    def writes(self) -> int:
        return sum(count for (verb, _), count in self.requests.items() if verb not in READS)

    @property
    def reads(self) -> int:
        return sum(count for (verb, _), count in self.requests.items() if verb in READS)

    def since(self, before: Usage) -> Usage:
        """The difference; `moment` is then how long it took."""
        requests = Counter({key: count - before.requests[key] for key, count in self.requests.items()})
        return Usage(self.moment - before.moment, self.cpu_seconds - before.cpu_seconds, +requests)


@dataclass(frozen=True)
class Operator:
    process: subprocess.Popen[bytes]
    port: int

    def usage(self) -> Usage:
        requests: Counter[tuple[str, str]] = Counter()
        for family in self._metrics():
            for sample in family.samples:
                if sample.name == "moorage_api_requests_total" and sample.labels["resource"] != "leases":
                    requests[sample.labels["verb"], sample.labels["resource"]] += int(sample.value)
        return Usage(time.monotonic(), cpu_seconds(self.process.pid), requests)

    def memory(self, field: str = "VmRSS") -> float:
        """In MiB; `VmHWM` is the greatest so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))

    def wait_until_quiet(self, seconds: float) -> None:
        """No key waits, and no pass ended, for 3 s."""
        deadline = time.monotonic() + seconds
        quiet_since, before = time.monotonic(), self._passes()
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            if time.monotonic() > deadline:
                raise console.Failure(f"the operator is still busy after {seconds:.0f} s")
            time.sleep(0.5)
            now = self._passes()
            if now != before:
                quiet_since, before = time.monotonic(), now

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _passes(self) -> tuple[float, float]:
        samples = [sample for family in self._metrics() for sample in family.samples]
        passes = sum(sample.value for sample in samples if sample.name == "moorage_reconcile_total")
        return passes, sum(sample.value for sample in samples if sample.name == "moorage_queue_depth")

    def _metrics(self) -> Iterator[Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            yield from text_string_to_metric_families(answer.read().decode())


@contextmanager
def operator(cluster: lab.Lab, tracking_uri: str, **settings: object) -> Iterator[Operator]:
    """A running, leading one. `settings` are of its configuration file."""
    port = free_port()
    config = cluster.folder / f"operator-{port}.json"
    config.write_text(json.dumps(configuration(tracking_uri) | {"port": port} | settings))
    log = config.with_suffix(".log")
    environment = cluster.environment | {"MOORAGE_CONFIG": str(config), "POD_NAMESPACE": "default"}
    with log.open("wb") as file:
        process = subprocess.Popen([python(), "-m", "moorage_operator"], env=environment, stdout=file, stderr=file)
    try:
        started = Operator(process, port)
        wait_until_ready(process, started.is_ready, "the operator did not start")
        started.wait_until_quiet(START_SECONDS)
        yield started
    except console.Failure as failure:
        raise console.Failure(
            f"{failure}\nthe operator's log ends with:\n{console.last_lines(log.read_text())}"
        ) from failure
    finally:
        process.terminate()
        process.wait()


@functools.cache
def python() -> str:
    """Of an environment with what the operator's image has and no more: what is installed beside it costs memory."""
    folder = lab.ROOT / ".build/bench/venv"
    command = ["uv", "sync", "--quiet", "--frozen", "--no-dev", "--package", "moorage-operator"]
    console.run(command, env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder)})
    return str(folder / "bin/python")


def configuration(tracking_uri: str) -> dict[str, Any]:
    """The operator's settings: the chart's defaults, and one registry."""
    version = next(
        line.split('"')[1]
        for line in (lab.ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith("version")
    )
    images = {"runtime": f"moorage/runtime:{version}", "runtimeGPU": f"moorage/runtime:{version}-gpu"}
    router = {"image": f"moorage/operator:{version}"}
    registries = [{"name": "default", "trackingURI": tracking_uri}]
    return {"images": images, "router": router, "registries": registries}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], failure: str) -> None:
    """`failure` says what it means that the process has ended, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise console.Failure(failure)
        time.sleep(0.05)
