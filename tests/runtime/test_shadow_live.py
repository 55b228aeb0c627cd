"""Copies on real sockets: a revision that hangs, is overloaded or answers too much costs stable's callers nothing, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass

import grpc
import httpx
import pytest

import stub_http
from moorage_runtime import app, serve, service, shadow
from moorage_runtime.oip import inference_pb2 as oip
from moorage_runtime.rpc import copies, inference
from runtime_builders import a_service, an_adder

STABLE = "iris-v3-0123abcd"
CANARY = "iris-v4-89abcdef"
MARKED = {"x-moorage-shadow": CANARY, "content-type": "application/json"}
OVERLOADED = stub_http.Reply(b"", 503, {"Retry-After": "2"})
KIB, MIB = 1024, 1024 * 1024


@dataclass
class Stable:
    """A pod whose callers' requests are all copied."""

    served: service.ModelService
    client: httpx.AsyncClient

    async def ask(self, padding: int = 0) -> float:
        """Seconds until the right answer to a request of so many bytes."""
        began = time.monotonic()
        answer = await self.client.post("/predict", content=b'{"rows": [[1, 2]]' + b" " * padding + b"}")
        assert answer.json()["predictions"] == [3.0]
        return time.monotonic() - began

    def counted(self, outcome: str) -> float:
        labels = {"revision": CANARY, "outcome": outcome}
        return self.served.metrics.registry.get_sample_value("moorage_shadow_total", labels) or 0

    async def counts(self, **expected: int) -> None:
        """At least so many: a caller has its answer before the copy is counted."""
        async with asyncio.timeout(20):
            while any(self.counted(outcome) < count for outcome, count in expected.items()):
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def a_stable(canary: int) -> AsyncIterator[Stable]:
    """Whose copies go to that port of this machine."""
    served = a_service()
    await served.load(an_adder)
    to = shadow.by_http(canary, "iris")

    def send(copy: shadow.Copy, seconds: float) -> tuple[int, bytes]:
        return to(dataclasses.replace(copy, revision="127.0.0.1"), seconds)

    shadows = shadow.Shadows(revision=STABLE, metrics=served.metrics, answers=served.feedback.answers, send=send)
    server = serve._server(app.app(served, port=canary, shadows=shadows))
    with serve._listening("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, headers=MARKED, timeout=30) as client:
            yield Stable(served, client)
        server.should_exit = True
        await serving
    shadows.close()
    served.close()


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes that Python holds at the moment, without what nobody refers to."""

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    yield held
    tracemalloc.stop()


async def test_a_revision_that_hangs_costs_a_bounded_memory_and_no_caller_waits(traced: Callable[[], int]) -> None:
    held = shadow.WORKERS + shadow.MAX_WAITING
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with a_stable(silent.getsockname()[1]) as stable:
            await stable.ask()
            before = traced()
            seconds = [await stable.ask(padding=200 * KIB) for _ in range(5 * held)]
            grown = traced() - before
            await stable.counts(dropped=5 * held + 1 - held)
    assert grown < 2.5 * held * 200 * KIB
    assert max(seconds) < shadow.TIMEOUT_SECONDS


async def test_one_that_is_overloaded_is_left_alone_and_no_caller_sees_it() -> None:
    with stub_http.serving(lambda _: OVERLOADED) as canary:
        async with a_stable(int(canary.url.rpartition(":")[2])) as stable:
            for _ in range(50):
                await stable.ask()
            await stable.counts(dropped=50)
            assert stable.counted("failed") == 0
    assert 1 <= len(canary.requests) <= shadow.WORKERS, "each worker may have had one on its way"


async def test_an_answer_that_is_far_larger_than_stable_s_is_not_read() -> None:
    answer = b'{"predictions": [3.0' + b", 3.0" * (2 * MIB // 5) + b"]}"
    with stub_http.serving(lambda _: stub_http.Reply(answer)) as canary:
        async with a_stable(int(canary.url.rpartition(":")[2])) as stable:
            await stable.ask()
            await stable.counts(failed=1)


def test_nor_is_one_by_grpc() -> None:
    answer = oip.ModelInferResponse(model_name="x" * 2 * MIB).SerializeToString()
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(lambda *_: answer)}
    request = oip.ModelInferRequest(model_name="iris").SerializeToString()
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[grpc.method_handlers_generic_handler(inference.NAME, methods)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        copy = shadow.Copy("127.0.0.1", "grpc", "", "", request, b"", "id")
        assert copies.Copies(port).send(copy, 30) == (500, b"")
        server.stop(None).wait()
