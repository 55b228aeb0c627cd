"""Copies of requests for another revision: what is sent, what is counted, what is dropped; and that the caller never waits for one."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import httpx
import orjson
import pytest

import stub_http
from moorage_runtime import app, drain, feedback, prediction_ids, service, shadow, telemetry
from moorage_runtime.oip import inference_pb2 as oip
from moorage_runtime.rpc import copies, inference, server
from runtime_builders import a_service, an_adder

STABLE = "iris-v3-0123abcd"
CANARY = "iris-v4-89abcdef"
MARKED = {"x-moorage-shadow": CANARY}


class Other:
    """The other revision: it answers what a test says, when it says so."""

    def __init__(self, answer: Any = 3.0, status: int = 200, fault: Exception | None = None) -> None:
        self.answer = answer
        self.status = status
        self.fault = fault
        self.taken: list[shadow.Copy] = []
        self.open = threading.Event()
        self.open.set()
        self.took = 0.0

    def send(self, copy: shadow.Copy, _: float) -> tuple[int, bytes]:
        self.taken.append(copy)
        assert self.open.wait(30)
        if self.fault is not None:
            raise self.fault
        return self.status, orjson.dumps({"predictions": [self.answer]})


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def metrics() -> telemetry.Metrics:
    return telemetry.Metrics(model="iris", version="3", revision=STABLE)


@pytest.fixture
def shadows_to(metrics: telemetry.Metrics) -> Iterator[Callable[..., shadow.Shadows]]:
    made: list[shadow.Shadows] = []

    def shadows(other: Other, **options: Any) -> shadow.Shadows:
        options = {"answers": feedback.Answers(), "metrics": metrics, **options}
        made.append(shadow.Shadows(revision=STABLE, send=other.send, **options))
        return made[-1]

    yield shadows
    for each in made:
        each.close()
        for thread in each._threads:
            thread.join(10)
            assert not thread.is_alive()


def a_copy(body: bytes = b"{}", answer: bytes = b'{"predictions":[3.0]}', revision: str = CANARY) -> shadow.Copy:
    return shadow.Copy(revision, "predict", "/predict", "application/json", body, answer, "id")


def counted(metrics: telemetry.Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("moorage_shadow_total", {"revision": CANARY, "outcome": outcome}) or 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


def finish(metrics: telemetry.Metrics, shadows: shadow.Shadows, copy: shadow.Copy) -> None:
    """Offer it, and wait until something has become of it."""
    outcomes = (shadow.AGREE, shadow.DISAGREE, shadow.FAILED, shadow.DROPPED)
    before = sum(counted(metrics, outcome) for outcome in outcomes)
    shadows.offer(copy)
    wait_until(lambda: sum(counted(metrics, outcome) for outcome in outcomes) > before)


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        (Other(3.0), "agree"),
        (Other(3.001), "agree"),
        (Other(3.5), "disagree"),
        (Other([3.0, 3.0]), "disagree"),
        (Other(3.0, status=500), "failed"),
        (Other(3.0, status=422), "failed"),
        (Other(3.0, status=503), "failed"),
        (Other(fault=ConnectionRefusedError()), "failed"),
        (Other(fault=ConnectionResetError()), "failed"),
        (Other(fault=http.client.BadStatusLine("x")), "failed"),
        (Other(fault=KeyError()), "failed"),
        (Other(fault=TimeoutError()), "dropped"),
        (Other(fault=shadow.Overloaded()), "dropped"),
    ],
)
def test_a_copy_is_counted_by_what_became_of_it(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics, other: Other, outcome: str
) -> None:
    finish(metrics, shadows_to(other), a_copy())
    assert counted(metrics, outcome) == 1
    disagreements = metrics.registry.get_sample_value("moorage_shadow_disagreement_total", {"revision": CANARY}) or 0
    assert disagreements == (outcome == "disagree")


def test_what_does_not_fit_the_queue_is_dropped_and_nobody_waits(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    other = Other()
    other.open.clear()
    shadows = shadows_to(other)
    for number in range(shadow.WORKERS):
        shadows.offer(a_copy())
        wait_until(lambda number=number: len(other.taken) > number)  # type: ignore[misc]  # a default is no annotation
    for _ in range(shadow.MAX_WAITING + 5):
        shadows.offer(a_copy())
    assert counted(metrics, "dropped") == 5
    other.open.set()
    wait_until(lambda: counted(metrics, "agree") == shadow.WORKERS + shadow.MAX_WAITING)


def test_large_bodies_and_answers_are_not_copied(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    other = Other()
    finish(metrics, shadows_to(other), a_copy(body=b"x" * (shadow.MAX_BYTES + 1)))
    finish(metrics, shadows_to(other), a_copy(answer=b"x" * (shadow.MAX_BYTES + 1)))
    assert counted(metrics, "dropped") == 2
    assert other.taken == []


def test_what_copies_compute_is_a_small_share_of_a_core(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    each, count = 0.002, 4 * shadow.WORKERS
    other = Other()

    def send(copy: shadow.Copy, seconds: float) -> tuple[int, bytes]:
        end = time.thread_time() + each
        while time.thread_time() < end:
            pass
        return other.send(copy, seconds)

    shadows = shadows_to(other)
    shadows._send = send
    began = time.monotonic()
    for _ in range(count):
        shadows.offer(a_copy())
    wait_until(lambda: counted(metrics, "agree") == count)
    # The last one of each worker is not rested for yet.
    assert (count - shadow.WORKERS) * each / (time.monotonic() - began) <= shadow.CPU_SHARE


def test_waiting_for_an_answer_is_rest() -> None:
    assert shadow.rest(took=0.001, computed=0.001) == pytest.approx(0.001 * shadow.WORKERS / shadow.CPU_SHARE - 0.001)
    assert shadow.rest(took=0.3, computed=0.001) == 0


@pytest.mark.parametrize("kind", ["silent", "slow", "gone"])
def test_a_revision_that_does_not_keep_up_gets_no_copies_for_a_while(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics, kind: str
) -> None:
    clock, other = Clock(), Other(fault={"silent": TimeoutError(), "gone": ConnectionRefusedError()}.get(kind))

    def send(copy: shadow.Copy, seconds: float) -> tuple[int, bytes]:
        clock.time += shadow.SLOW_SECONDS + 0.1 if kind == "slow" else 0
        return other.send(copy, seconds)

    shadows = shadows_to(other, now=clock)
    shadows._send = send
    for _ in range(shadow.FAILURES_IN_A_ROW + 1):
        finish(metrics, shadows, a_copy())
    assert len(other.taken) == shadow.FAILURES_IN_A_ROW
    clock.time += shadow.PAUSE_SECONDS + 1
    finish(metrics, shadows, a_copy())
    assert len(other.taken) == shadow.FAILURES_IN_A_ROW + 1


def test_one_that_says_that_it_is_overloaded_gets_no_copies_at_once_and_has_not_failed(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    clock, other = Clock(), Other(fault=shadow.Overloaded())
    shadows = shadows_to(other, now=clock)
    for _ in range(10):
        finish(metrics, shadows, a_copy())
    assert (len(other.taken), counted(metrics, "dropped"), counted(metrics, "failed")) == (1, 10, 0)
    clock.time += shadow.PAUSE_SECONDS + 1
    other.fault = None
    finish(metrics, shadows, a_copy())
    assert (len(other.taken), counted(metrics, "agree")) == (2, 1)


def test_failures_that_are_not_in_a_row_and_faults_of_the_model_stop_nothing(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    other = Other()
    shadows = shadows_to(other)
    late: list[Exception | None] = [TimeoutError()] * 4
    for fault in [*late, None, *late, None]:
        other.fault = fault
        finish(metrics, shadows, a_copy())
    other.status = 500
    for _ in range(10):
        finish(metrics, shadows, a_copy())
    assert (len(other.taken), counted(metrics, "dropped"), counted(metrics, "failed")) == (20, 8, 10)


@pytest.mark.parametrize(
    ("marked", "arm", "target"),
    [
        (CANARY, "", CANARY),
        ("iris-set-89abcdef", "stable", "iris-set-89abcdef"),
        (CANARY, "shadow", ""),
        (STABLE, "", ""),
        ("", "", ""),
        ("other-v4-89abcdef", "", ""),
        ("iris-v4-0123abcd-v1-89abcdef", "", ""),
        ("kubernetes.default", "", ""),
        ("iris-v4-89abcdef.evil.example", "", ""),
        ("\xff", "", ""),
    ],
)
def test_copies_go_to_other_revisions_of_the_same_deployment_only(
    shadows_to: Callable[..., shadow.Shadows], marked: str, arm: str, target: str
) -> None:
    assert shadows_to(Other()).target(marked.encode("latin-1"), arm) == target


def test_when_it_ends_what_waits_is_dropped(
    shadows_to: Callable[..., shadow.Shadows], metrics: telemetry.Metrics
) -> None:
    other = Other()
    other.open.clear()
    shadows = shadows_to(other)
    for _ in range(10):
        shadows.offer(a_copy())
    wait_until(lambda: len(other.taken) == shadow.WORKERS)
    shadows.close()
    shadows.offer(a_copy())
    assert counted(metrics, "dropped") == 10 - shadow.WORKERS + 1
    other.open.set()


async def test_a_drain_gives_up_the_copies_at_once() -> None:
    given_up: list[bool] = []
    served = a_service()
    await drain.Drainer(served, 0, give_up=lambda: given_up.append(served.draining)).drain()
    assert given_up == [True]


async def a_stable(
    shadows_to: Callable[..., shadow.Shadows], other: Other
) -> tuple[service.ModelService, httpx.AsyncClient]:
    served = a_service()
    await served.load(an_adder)
    shadows = shadows_to(other, metrics=served.metrics, answers=served.feedback.answers)
    transport = httpx.ASGITransport(app=app.app(served, port=8080, shadows=shadows))
    return served, httpx.AsyncClient(transport=transport, base_url="http://runtime")


async def test_the_caller_is_answered_before_the_other_revision(shadows_to: Callable[..., shadow.Shadows]) -> None:
    other = Other(4.0)
    other.open.clear()
    served, client = await a_stable(shadows_to, other)
    async with client:
        answer = await client.post("/predict", json={"rows": [[1, 2]]}, headers=MARKED)
        await client.post("/predict", json={"rows": [[1, 2]]}, headers={**MARKED, "x-moorage-arm": "shadow"})
        await client.post("/predict", json={"rows": 7}, headers=MARKED)
        await client.post("/predict", json={"rows": [[1, 2]]})
    assert answer.json()["predictions"] == [3.0]
    other.open.set()
    await asyncio.to_thread(wait_until, lambda: counted(served.metrics, "disagree") == 1)
    [copy] = other.taken
    assert orjson.loads(copy.body) == {"rows": [[1, 2]]}
    assert copy.identifier == answer.headers[prediction_ids.HEADER]


async def test_a_label_of_a_copied_request_counts_for_both_revisions(shadows_to: Callable[..., shadow.Shadows]) -> None:
    served, client = await a_stable(shadows_to, Other(4.0))
    async with client:
        answer = await client.post("/predict", json={"rows": [[1, 2]]}, headers=MARKED)
        await asyncio.to_thread(wait_until, lambda: counted(served.metrics, "disagree") == 1)
        await client.post("/feedback", json={"id": answer.headers[prediction_ids.HEADER], "label": 4})
    pairs = {"revision": CANARY, "outcome": "stable_wrong"}
    assert served.metrics.registry.get_sample_value("moorage_feedback_pairs_total", pairs) == 1


@pytest.mark.parametrize(
    ("protocol", "path", "asked"),
    [
        ("v2", "/v2/models/iris/versions/3/infer", "/v2/models/iris/infer"),
        ("predict", "/predict", "/predict"),
        ("mlflow", "/invocations", "/invocations"),
    ],
)
def test_the_same_request_is_sent_marked_as_a_shadow(protocol: str, path: str, asked: str) -> None:
    with stub_http.serving(lambda _: stub_http.Reply({"predictions": [0]}, status=200)) as stub:
        send = shadow.by_http(int(stub.url.rpartition(":")[2]), "iris")
        copy = shadow.Copy("127.0.0.1", protocol, path, "text/csv", b"a,b", b"", "id")
        assert send(copy, 5) == (200, b'{"predictions": [0]}')
    [request] = stub.requests
    assert (request.path, request.body, request.headers["content-type"]) == (asked, b"a,b", "text/csv")
    assert request.headers["x-moorage-arm"] == "shadow"


@pytest.mark.parametrize(
    ("reply", "becomes"),
    [
        (stub_http.Reply(b"", 503, {"Retry-After": "2"}), shadow.Overloaded),
        (stub_http.Reply(b"", 429, {"Retry-After": "2"}), shadow.Overloaded),
        (stub_http.Reply(b"", 504), TimeoutError),
    ],
)
def test_a_refusal_for_want_of_capacity_is_no_answer(reply: stub_http.Reply, becomes: type[Exception]) -> None:
    with stub_http.serving(lambda _: reply) as stub:
        send = shadow.by_http(int(stub.url.rpartition(":")[2]), "iris")
        with pytest.raises(becomes):
            send(a_copy(revision="127.0.0.1"), 5)


@pytest.mark.parametrize("status", [500, 503, 422, 404])
def test_any_other_refusal_is_one(status: int) -> None:
    with stub_http.serving(lambda _: stub_http.Reply(b"", status)) as stub:
        send = shadow.by_http(int(stub.url.rpartition(":")[2]), "iris")
        assert send(a_copy(revision="127.0.0.1"), 5) == (status, b"")


@contextlib.contextmanager
def grpc_to(port: int) -> Iterator[copies.Copies]:
    sender = copies.Copies(port)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        sender._channel = (CANARY, channel)
        yield sender


async def test_grpc_tells_want_of_capacity_from_an_answer() -> None:
    canary = a_service(revision=CANARY, version="4")
    to, ending = server.Server(canary, host="127.0.0.1", port=0), asyncio.Event()
    serving = asyncio.create_task(to.serve(ending))
    copy = a_copy(body=oip.ModelInferRequest(model_name="iris").SerializeToString())
    try:
        with grpc_to(to.port) as sender:
            with pytest.raises(shadow.Overloaded):
                await asyncio.to_thread(sender.send, copy, 30)
            await canary.load(an_adder)
            assert await asyncio.to_thread(sender.send, copy, 30) == (500, b""), "it has no inputs"
    finally:
        ending.set()
        await serving


def test_grpc_tells_silence_from_nobody() -> None:
    copy = a_copy(body=oip.ModelInferRequest(model_name="iris").SerializeToString())
    with socket.create_server(("127.0.0.1", 0)) as silent, grpc_to(silent.getsockname()[1]) as sender:
        with pytest.raises(TimeoutError):
            sender.send(copy, 0.2)
        port = silent.getsockname()[1]
    with grpc_to(port) as sender, pytest.raises(ConnectionError):
        sender.send(copy, 30)


async def test_grpc_is_copied_by_grpc_to_whatever_version_is_there(shadows_to: Callable[..., shadow.Shadows]) -> None:
    canary = a_service(revision=CANARY, version="4")
    stable = a_service()
    for served in (canary, stable):
        await served.load(an_adder)
    to = server.Server(canary, host="127.0.0.1", port=0)
    shadows = shadows_to(Other(), metrics=stable.metrics, answers=stable.feedback.answers)
    channel_to = copies.Copies(to.port)
    channel_to._channel = (CANARY, grpc.insecure_channel(f"127.0.0.1:{to.port}"))
    shadows._send = copies.by_protocol(shadow.by_http(1, "iris"), channel_to.send)
    front = server.Server(stable, host="127.0.0.1", port=0, shadows=shadows)
    ending = asyncio.Event()
    serving = asyncio.gather(to.serve(ending), front.serve(ending))
    request = oip.ModelInferRequest(model_name="iris", model_version="3")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
        infer = channel.unary_unary(f"/{inference.NAME}/ModelInfer")
        await infer(request.SerializeToString(), metadata=tuple(MARKED.items()))
        await asyncio.to_thread(wait_until, lambda: counted(stable.metrics, "agree") == 1)
        canary.drain()
        canary.state = service.Loading()
        await infer(request.SerializeToString(), metadata=tuple(MARKED.items()))
        await asyncio.to_thread(wait_until, lambda: counted(stable.metrics, "dropped") == 1)
        await infer(request.SerializeToString(), metadata=tuple(MARKED.items()))
        await asyncio.to_thread(wait_until, lambda: counted(stable.metrics, "dropped") == 2)
    ending.set()
    await serving
    channel_to._channel[1].close()
    labels = {"model": "iris", "version": "4", "revision": CANARY, "arm": "shadow", "protocol": "grpc"}
    assert canary.metrics.registry.get_sample_value("moorage_requests_total", {**labels, "code": "0"}) == 1
