"""The router: what its hop costs a caller, and how long a changed weight takes until every router holds it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import lab, pods, processes, watches
from devcluster import console
from moorage_operator.core import names
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, Manifest

NAME = "routed"
WEIGHTS = range(5, 100, 5)
CALLERS = 8
THROUGHPUT_SECONDS = 5.0
WITHIN_SECONDS = 240.0
PATH = "/invocations"
REQUEST = (lab.ROOT / "examples/digits-onnx/request.json").read_bytes()


@dataclass(frozen=True)
class Hop:
    """Seconds of single requests on one kept connection, and requests a second of several."""

    seconds: list[float]
    rates: list[float]


@dataclass(frozen=True)
class Found:
    direct: Hop
    routed: Hop
    weights: list[float]
    """Seconds from a weight in the status to the status that calls it verified, or has the next one."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=30)


def run(name: str, questions: int, repetitions: int) -> Found:
    with lab.new(name, fake_nodes=0) as cluster:
        registry = pods.install_registry(cluster, "operator", "runtime", "mlflow")
        with processes.operator(cluster, registry.uri, router=pods.routers(cluster)):
            _apply(cluster)
            direct, routed = _addresses(cluster)
            seconds: dict[Address, list[float]] = {direct: [], routed: []}
            rates: dict[Address, list[float]] = {direct: [], routed: []}
            for _ in range(repetitions):
                _ask_in_turn(seconds, questions // repetitions)
                for address, found in rates.items():
                    found.append(rate(address))
            weights = asyncio.run(
                _weights(cluster, lambda: registry.set_alias(pods.MODEL, registry.copy_version(pods.MODEL)))
            )
    return Found(Hop(seconds[direct], rates[direct]), Hop(seconds[routed], rates[routed]), weights)


def _apply(cluster: lab.Lab) -> None:
    steps = [{"setWeight": weight} for weight in WEIGHTS]
    spec = {
        "model": {"name": pods.MODEL, "alias": "champion"},
        "traffic": {"router": "haproxy"},
        "rollout": {"steps": steps},
    }
    manifest = {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.name,
        "metadata": {"name": NAME},
        "spec": spec,
    }
    cluster.kubectl("apply", "-n", lab.NAMESPACE, "-f", "-", stdin=json.dumps(manifest))
    cluster.kubectl("wait", "-n", lab.NAMESPACE, "--for=condition=Ready", f"mdep/{NAME}", "--timeout=180s")


def _addresses(cluster: lab.Lab) -> tuple[Address, Address]:
    """The model's pod, and the Service that points to the routers."""
    selector = f"{names.DEPLOYMENT}={NAME}"
    pod = cluster.kubectl("get", "-n", lab.NAMESPACE, "pod", "-l", selector, "-o", "jsonpath={.items[0].status.podIP}")
    service = cluster.kubectl("get", "-n", lab.NAMESPACE, f"service/{NAME}", "-o", "jsonpath={.spec.clusterIP}")
    return Address(pod, 8080), Address(service, 80)


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("POST", PATH, REQUEST, {"content-type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise console.Failure(f"HTTP {answer.status}: {body[:200]!r}")
    return body


def _ask_in_turn(seconds: dict[Address, list[float]], times: int) -> None:
    """One request here, one there: what else the machine does meets both."""
    connections = {address: address.connect() for address in seconds}
    for connection in connections.values():
        ask(connection)
    for _ in range(times):
        for address, connection in connections.items():
            began = time.perf_counter()
            ask(connection)
            seconds[address].append(time.perf_counter() - began)


def rate(address: Address, seconds: float = THROUGHPUT_SECONDS) -> float:
    """Requests a second of some callers, each on its own kept connection."""
    deadline = time.monotonic() + seconds
    counts = [0] * CALLERS

    def call(number: int) -> None:
        connection = address.connect()
        while time.monotonic() < deadline:
            ask(connection)
            counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


async def _weights(cluster: lab.Lab, move_alias: Callable[[], None]) -> list[float]:
    async with watches.watch(cluster.kubeconfig, MODEL_DEPLOYMENT, lab.NAMESPACE) as seen:
        desired = [seen.milestone(_holds(weight, verified=False), key=watches.name_of) for weight in WEIGHTS]
        verified = [seen.milestone(_holds(weight, verified=True), key=watches.name_of) for weight in WEIGHTS]
        await asyncio.to_thread(move_alias)
        ends = [await eye.reached(1, WITHIN_SECONDS, "weights") for eye in verified]
        return [end - await eye.reached(1, 1, "weights") for eye, end in zip(desired, ends, strict=True)]


def _holds(weight: int, *, verified: bool) -> watches.Holds:
    """The pass that finds a weight verified begins the next step: what it writes may be the next weight."""

    def holds(item: Manifest) -> bool:
        found = item.get("status", {}).get("weights", {})
        desired = found.get("desired", 0)
        return (
            bool(desired > weight or (desired == weight and found.get("verified"))) if verified else desired == weight
        )

    return holds
