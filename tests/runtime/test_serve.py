"""The real program on real sockets: it becomes ready, drains without losing a request, and leaves its last words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlflow_server import MlflowServer, free_port
from moorage_runtime import serve
from moorage_runtime.oip import inference_pb2 as oip
from runtime_builders import a_model_folder

SLOW_MODEL = """
import time

class Slow:
    def predict(self, data, params=None):
        time.sleep(float(data["seconds"].max()))
        return data["seconds"].to_numpy()

def _load_pyfunc(path):
    time.sleep({load})
    return Slow()
"""


@dataclass
class Program:
    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    health_port: int
    words: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def health(self) -> str:
        return f"http://127.0.0.1:{self.health_port}"

    def status(self, path: str) -> int:
        """The health port's answer, 0 where nobody listens."""
        try:
            return httpx.get(self.health + path, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_for(self, path: str, status: int, seconds: float = 100) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.status(path)) != status:
            assert time.monotonic() < deadline, f"{path} is {found}, not {status}"
            assert self.process.poll() is None, f"the program ended with {self.process.returncode}"
            time.sleep(0.05)

    def wait_for_answers(self, count: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while _answered(httpx.get(self.health + "/metrics").text) < count:
            assert time.monotonic() < deadline, "too few requests were answered"
            time.sleep(0.05)


def _answered(metrics: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith("moorage_requests_total{")]
    return sum(float(line.split()[-1]) for line in lines)


@contextlib.contextmanager
def serving(folder: Path | str, words: Path, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    port, grpc_port, health_port = free_port(), free_port(), free_port()
    given = {
        "PATH": os.environ["PATH"],
        "MOORAGE_HOST": "127.0.0.1",
        "MOORAGE_PORT": str(port),
        "MOORAGE_GRPC_PORT": str(grpc_port),
        "MOORAGE_HEALTH_PORT": str(health_port),
        "MOORAGE_DRAIN_SECONDS": "1",
        "MOORAGE_ALLOW_PICKLE": "true",
        "MOORAGE_TERMINATION_LOG": str(words),
        **(environment or {}),
    }
    process = subprocess.Popen([sys.executable, "-m", "moorage_runtime", "serve", "--model", str(folder)], env=given)
    try:
        yield Program(process, port, grpc_port, health_port, words)
    finally:
        process.kill()
        process.wait(10)


def slow_model(root: Path, *, load: float = 0) -> Path:
    """A pyfunc that takes as many seconds as its input says."""
    flavor = {"loader_module": "slow_model", "python_version": "3.11.0", "code": "code"}
    inputs = [{"type": "double", "name": "seconds", "required": True}]
    folder = a_model_folder(root / "slow", flavors={"python_function": flavor}, inputs=inputs)
    (folder / "code").mkdir()
    (folder / "code" / "slow_model.py").write_text(SLOW_MODEL.format(load=load))
    return folder


async def keep_asking(client: httpx.AsyncClient, ended: asyncio.Event) -> list[int]:
    """One caller after the other request, on a connection that it keeps; an exception is a lost request."""
    codes = []
    while not ended.is_set():
        answer = await client.post("/predict", json={"rows": [{"seconds": 0.0}]})
        codes.append(answer.status_code)
    return codes


async def test_sigterm_under_load_loses_no_request(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path), tmp_path / "words", {"MOORAGE_DRAIN_SECONDS": "4"}) as program:
        program.wait_for("/readyz", 200)
        ended = asyncio.Event()
        async with httpx.AsyncClient(base_url=program.url, timeout=30) as client:
            slow = asyncio.create_task(client.post("/predict", json={"rows": [{"seconds": 6.0}]}))
            callers = [asyncio.create_task(keep_asking(client, ended)) for _ in range(8)]
            await asyncio.to_thread(program.wait_for_answers, 20)
            program.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(program.wait_for, "/readyz", 503)
            await asyncio.sleep(0.5)  # what a router needs to see that, and what this test is about
            ended.set()
            codes = [code for codes in await asyncio.gather(*callers) for code in codes]
            assert len(codes) > 20
            assert set(codes) == {200}
            assert (await slow).status_code == 200
        assert await asyncio.to_thread(program.process.wait, 20) == 0


async def keep_calling(channel: grpc.aio.Channel, ended: asyncio.Event) -> int:
    """The same by gRPC; an error is a lost call, and fails the test."""
    calls = 0
    while not ended.is_set():
        await seconds_by_grpc(channel, 0.0)
        calls += 1
    return calls


async def seconds_by_grpc(channel: grpc.aio.Channel, seconds: float) -> float:
    request = oip.ModelInferRequest(model_name="slow")
    request.inputs.add(name="seconds", datatype="FP64", shape=[1]).contents.fp64_contents.append(seconds)
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    answer = await call(request, timeout=30)
    return float(answer.outputs[0].contents.fp64_contents[0])


async def not_serving(channel: grpc.aio.Channel) -> None:
    """Returns when the health service says so, as a balancer would learn it."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            return


async def test_sigterm_under_load_loses_no_grpc_call(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path), tmp_path / "words", {"MOORAGE_DRAIN_SECONDS": "4"}) as program:
        program.wait_for("/readyz", 200)
        ended = asyncio.Event()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{program.grpc_port}") as channel:
            slow = asyncio.create_task(seconds_by_grpc(channel, 6.0))
            callers = [asyncio.create_task(keep_calling(channel, ended)) for _ in range(8)]
            told = asyncio.create_task(not_serving(channel))
            await asyncio.to_thread(program.wait_for_answers, 20)
            program.process.send_signal(signal.SIGTERM)
            await told
            await asyncio.sleep(0.5)  # what a router needs to see that, and what this test is about
            ended.set()
            assert sum(await asyncio.gather(*callers)) > 20
            assert await slow == 6.0
        assert await asyncio.to_thread(program.process.wait, 20) == 0


async def test_answers_leave_at_once_on_connections_that_are_kept() -> None:
    accepted: asyncio.Queue[int] = asyncio.Queue()

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.put_nowait(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with serve._listening("127.0.0.1", 0) as listener:
        server = await asyncio.start_server(look, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await accepted.get() == 1
            writer.close()
            await writer.wait_closed()


async def test_answers_while_draining_close_their_connection(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path), tmp_path / "words", {"MOORAGE_DRAIN_SECONDS": "3"}) as program:
        program.wait_for("/readyz", 200)
        async with httpx.AsyncClient(base_url=program.url, timeout=30) as client:
            before = await client.post("/predict", json={"rows": [{"seconds": 0.0}]})
            program.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(program.wait_for, "/readyz", 503)
            after = await client.post("/predict", json={"rows": [{"seconds": 0.0}]})
        assert "connection" not in before.headers
        assert (after.status_code, after.headers["connection"]) == (200, "close")


def test_after_a_drain_by_prestop_sigterm_ends_at_once(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path), tmp_path / "words", {"MOORAGE_DRAIN_SECONDS": "3"}) as program:
        program.wait_for("/readyz", 200)
        started = time.monotonic()
        assert httpx.get(program.health + "/drain", timeout=30).status_code == 200
        assert time.monotonic() - started >= 3
        assert program.status("/readyz") == 503
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(2.9) == 0


def test_the_health_port_answers_while_the_model_loads_and_sigterm_ends_that_too(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path, load=60), tmp_path / "words") as program:
        program.wait_for("/healthz", 200)
        assert program.status("/readyz") == 503
        assert httpx.post(program.url + "/predict", json={"rows": [{"seconds": 0}]}).status_code == 503
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(20) == 0


def test_a_model_that_can_not_be_served_ends_the_program_with_its_reason(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path), tmp_path / "words", {"MOORAGE_ALLOW_PICKLE": "false"}) as program:
        assert program.process.wait(60) == 1
    words = json.loads((tmp_path / "words").read_text())
    assert words["reason"] == "PickleNotAllowed"
    assert "spec.runtime.allowPickle: true" in words["message"]


def test_a_model_on_a_laptop_is_fetched_and_served_by_its_alias(
    mlflow_server: MlflowServer, models: dict[str, Path], tmp_path: Path
) -> None:
    mlflow_server.publish("laptop-iris", models["onnx"], alias="champion")
    environment = {**mlflow_server.environment, "MOORAGE_ALLOW_PICKLE": "false"}
    with serving("models:/laptop-iris@champion", tmp_path / "words", environment) as program:
        program.wait_for("/readyz", 200)
        answer = httpx.post(program.url + "/predict", json={"rows": [[5.1, 3.5, 1.4, 0.2]]}).json()
    assert (answer["model"], answer["version"]) == ("laptop-iris", "1")
    assert answer["predictions"][0]["label"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "/nowhere"], "there is no MLmodel file in that folder"),
        (["--model", "models:/iris"], "write models:/NAME@ALIAS"),
        (["--engine", "tensorflow"], "set it to one of auto, onnxruntime, torch, pyfunc"),
        (["--port", "eighty"], "set it to a port number"),
    ],
)
def test_a_wrong_flag_is_told_what_to_write_instead(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moorage_runtime", "serve", "--termination-log", str(tmp_path / "w"), *arguments]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
