"""Shadows: what callers notice when each request that a version answers is copied to another one, which can take it or can't.

Each case has a pod of its own behind one router, so that the copies of one never wait behind those of another.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeAlias

from benchmarks import loopback, routing
from devcluster import console
from mlflow_server import free_port
from moorage_operator.router import table

SLOW_SECONDS = 0.3
PACE_SECONDS = 0.04
RUSH_SECONDS = 3.0
PAUSE_SECONDS = 1.5
"""Before each measurement: what an equal version is still to answer has been answered by then."""

WARMING = 200


@dataclass(frozen=True)
class Round:
    """Seconds of single requests, with a pause before each and without; then requests a second of several callers.

    `copies` has what became of the paced ones and of all others. `cpu_seconds` are those of the pod, a request.
    """

    paced: list[float]
    rushed: list[float]
    rate: float
    cpu_seconds: float
    copies: tuple[Counter[str], Counter[str]]


Found: TypeAlias = dict[str, list[Round]]
"""The rounds by case."""


@dataclass(frozen=True)
class _Measured:
    pod: loopback.Pod
    address: routing.Address


@dataclass(frozen=True)
class _Canary:
    """Whom the copies go to, and where it listens; `answer` is what the stable version says."""

    machine: loopback.Machine
    revision: str
    address: tuple[str, int]
    answer: bytes


def _equal(canary: _Canary) -> AbstractContextManager[object]:
    return canary.machine.pod(canary.revision)


@contextmanager
def _slow(canary: _Canary) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(SLOW_SECONDS)
            self.send_response(200)
            self.send_header("content-length", str(len(canary.answer)))
            self.end_headers()
            self.wfile.write(canary.answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class wants this name
            """Say nothing."""

    with ThreadingHTTPServer(canary.address, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def _silent(canary: _Canary) -> AbstractContextManager[object]:
    return socket.create_server(canary.address)


NOBODY = "nobody"
CASES: Mapping[str, Callable[[_Canary], AbstractContextManager[object]] | None] = {
    NOBODY: None,
    "nobody, another pod": None,
    "an equal version": _equal,
    f"one that takes {1000 * SLOW_SECONDS:.0f} ms": _slow,
    "one that never answers": _silent,
}


def run(questions: int, rounds: int) -> Found:
    found: Found = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder, _set_up(Path(folder)) as measured:
        for number in range(rounds):
            with console.step(f"round {number + 1} of {rounds}"):
                # Each begins another round: what comes later on a machine must not always meet the same one.
                order = [*CASES][number % len(CASES) :] + [*CASES][: number % len(CASES)]
                for name in order:
                    found[name].append(_measure(measured[name], questions))
    return found


@contextmanager
def _set_up(folder: Path) -> Iterator[dict[str, _Measured]]:
    stable, canary = ([f"case{number}-{version}-00000000" for number in range(len(CASES))] for version in ("v1", "v2"))
    ips = {
        name: f"127.1.{number // len(CASES)}.{number % len(CASES) + 1}" for number, name in enumerate(stable + canary)
    }
    models = {
        f"case{number}": table.Model(
            port=free_port(),
            stable=stable[number],
            timeout_seconds=30,
            shadow=table.Shadow(revision=canary[number], percent=100) if other else None,
        )
        for number, other in enumerate(CASES.values())
    }
    with ExitStack() as stack:
        machine = loopback.Machine(folder, ips)
        pods = [stack.enter_context(machine.pod(revision)) for revision in stable]
        stack.enter_context(machine.router(models))
        addresses = [routing.Address("127.0.0.1", model.port) for model in models.values()]
        answer = routing.ask(addresses[0].connect())
        for revision, other in zip(canary, CASES.values(), strict=True):
            if other:
                stack.enter_context(other(_Canary(machine, revision, (ips[revision], machine.port), answer)))
        for address in addresses:
            _ask(address, WARMING)
        yield {name: _Measured(pod, address) for name, pod, address in zip(CASES, pods, addresses, strict=True)}


def _measure(case: _Measured, questions: int) -> Round:
    time.sleep(PAUSE_SECONDS)
    before, computed = case.pod.copies(), case.pod.cpu_seconds()
    paced = _ask(case.address, questions // 10, pause=PACE_SECONDS)
    between = case.pod.copies()
    rushed = _ask(case.address, questions)
    rate = routing.rate(case.address, RUSH_SECONDS)
    requests = len(paced) + len(rushed) + rate * RUSH_SECONDS
    computed = case.pod.cpu_seconds() - computed
    return Round(paced, rushed, rate, computed / requests, (between - before, case.pod.copies() - between))


def _ask(address: routing.Address, times: int, pause: float = 0) -> list[float]:
    """Seconds of single requests on one kept connection."""
    connection, seconds = address.connect(), []
    for _ in range(times):
        time.sleep(pause)
        began = time.perf_counter()
        routing.ask(connection)
        seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds
