"""gRPC through a real HAProxy, on the port that HTTP/1.1 has, too."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from moorage_operator.core import kinds
from moorage_operator.core.kinds import Ref
from router_traffic import refuses_connections, until
from router_world import NAMESPACE, Router, a_canary, a_model, a_slice

METHOD = "/inference.GRPCInferenceService/ModelInfer"


class GrpcPod:
    """Answers with its revision and the metadata that arrived; `hold` keeps an answer back."""

    def __init__(self, revision: str, *, options: Sequence[tuple[str, int]] = ()) -> None:
        self.revision = revision
        self.seen: dict[str, str] = {}
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self._server = grpc.aio.server(options=options)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        handler = grpc.unary_unary_rpc_method_handler(self._infer)
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        methods = {"ModelInfer": handler, "Stream": stream}
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(METHOD.split("/")[1], methods)])

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        await self._server.stop(grace)

    async def _infer(self, request: bytes, context: Any) -> bytes:
        self.seen = dict(context.invocation_metadata())
        self.arrived.set()
        if self.hold:
            await self.hold.wait()
        if request == b"refuse":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such tensor")
        return self.revision.encode()

    async def _stream(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@asynccontextmanager
async def pods(
    router: Router, *revisions: str, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[list[GrpcPod]]:
    found = [GrpcPod(revision, options=options) for revision in revisions]
    try:
        for pod in found:
            await pod.start()
            router.cluster.add(a_slice(pod.revision, {"grpc": pod.port}, number=pod.port))
        await router.haproxy_has([f"127.0.0.1:{pod.port}" for pod in found])
        yield found
    finally:
        for pod in found:
            await pod.stop()


@asynccontextmanager
async def channel(router: Router) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as found:
        yield found


async def test_keys_split_as_with_http_and_both_share_a_port(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(3000)))
    keys = [f"user-{number}" for number in range(400)]
    async with pods(router, "fraud-v1", "fraud-v2"), channel(router) as connection:
        call = connection.unary_unary(METHOD)
        by_grpc = {key: (await call(b"", metadata=[("x-user-id", key)])).decode() for key in keys}

    by_http = {key: answer.pod for key, answer in (await router.ask(keys)).items()}
    assert by_grpc == by_http
    assert set(Counter(by_grpc.values())) == {"fraud-v1", "fraud-v2"}


async def test_marks_trailers_and_statuses_pass_and_are_counted_as_requests(router: Router) -> None:
    async with pods(router, "fraud-v1") as (pod,), channel(router) as connection:
        call = connection.unary_unary(METHOD)
        await call(b"", metadata=[("x-moorage-arm", "canary")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"refuse")

    assert pod.seen["x-moorage-arm"] == "stable"
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such tensor")
    await router.counted("stable", requests=2, bad=0)


async def test_a_stream_goes_both_ways(router: Router) -> None:
    async with pods(router, "fraud-v1"), channel(router) as connection:
        stream = connection.stream_stream(METHOD.replace("ModelInfer", "Stream"))()
        for message in (b"a", b"b"):
            await stream.write(message)
            assert await stream.read() == message
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_without_a_pod_the_caller_hears_unavailable(router: Router) -> None:
    async with channel(router) as connection:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await connection.unary_unary(METHOD)(b"")

    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "no pod of this model can be reached"
    await router.counted("stable", requests=1, bad=1)


async def test_an_arm_without_grpc_pods_is_answered_by_stable(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000)))
    async with pods(router, "fraud-v1"), channel(router) as connection:
        assert await connection.unary_unary(METHOD)(b"") == b"fraud-v1"

    await router.counted("fallback", requests=1)
    await router.counted("canary", requests=0)


async def test_a_slow_model_is_deadline_exceeded(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, timeoutSeconds=1))
    async with pods(router, "fraud-v1") as (pod,), channel(router) as connection:
        pod.hold = asyncio.Event()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await connection.unary_unary(METHOD)(b"")
        pod.hold.set()

    assert caught.value.details() == "the model did not answer in time"
    await router.counted("stable", requests=1, bad=1)


async def test_a_caller_that_gives_up_is_counted_once(router: Router) -> None:
    async with pods(router, "fraud-v1") as (pod,), channel(router) as connection:
        pod.hold = asyncio.Event()
        asked = connection.unary_unary(METHOD)(b"")
        await pod.arrived.wait()
        asked.cancel()
        await router.counted("stable", requests=1, bad=1, canceled=1)
        pod.hold.set()


async def test_a_call_on_a_kept_channel_of_a_router_that_ends_goes_where_the_table_says_by_then(router: Router) -> None:
    async with pods(router, "fraud-v1", "fraud-v2"), channel(router) as connection:
        call = connection.unary_unary(METHOD)
        before = await call(b"")
        stopping = asyncio.create_task(router.stop_haproxy())
        await refuses_connections(router.port)
        await router.apply(fraud=a_model(router.port, stable="fraud-v2"))

        assert (before, await call(b"")) == (b"fraud-v1", b"fraud-v2")
        assert await stopping == 0


_MORTAL = """
import asyncio, sys, grpc, grpc.aio
async def infer(request, context):
    if request == b"hang":
        print("hangs", flush=True)
        await asyncio.Event().wait()
    return b""
async def main():
    server, (service, method) = grpc.aio.server(), sys.argv[1].strip("/").split("/")
    port = server.add_insecure_port("127.0.0.1:0")
    handlers = {method: grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


@asynccontextmanager
async def mortal_pod(router: Router) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A process that can be killed, and what it prints. A server of our own process that stops gives each call a status of gRPC."""
    command = [sys.executable, "-c", _MORTAL, METHOD]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        router.cluster.add(a_slice("fraud-v1", {"grpc": port}, number=port))
        await router.haproxy_has([f"127.0.0.1:{port}"])
        yield process, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("before", [0, 2])
async def test_a_call_whose_pod_is_killed_is_a_bad_request(router: Router, before: int) -> None:
    """HAProxy has no counter for it, see `stats.Pool`."""
    async with mortal_pod(router) as (process, printed), channel(router) as connection:
        call = connection.unary_unary(METHOD)
        for _ in range(before):
            await call(b"")
        asked = asyncio.ensure_future(call(b"hang"))
        assert await printed.readline() == b"hangs\n"
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked

    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await router.counted("stable", requests=before + 1, bad=1, canceled=0)


# Callers that keep their channel, and whose calls nobody tries again.


@dataclass
class Calls:
    """What came of them."""

    codes: Counter[str] = field(default_factory=Counter)

    async def more(self, count: int) -> None:
        goal = self.codes.total() + count
        await until(lambda: self.codes.total() >= goal, f"{count} more calls")


@asynccontextmanager
async def calling(*routers: Router, callers: int = 8) -> AsyncIterator[Calls]:
    """For the time of the block. A connection goes to the first router that accepts it."""
    target = "ipv4:" + ",".join(f"127.0.0.1:{router.port}" for router in routers)
    found, ended = Calls(), asyncio.Event()
    tasks = [asyncio.create_task(_call(target, found, ended)) for _ in range(callers)]
    try:
        yield found
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def _call(target: str, found: Calls, ended: asyncio.Event) -> None:
    options = [
        ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share a connection
        ("grpc.default_authority", "fraud"),  # else it is the list of the addresses, which HAProxy refuses
    ]
    async with grpc.aio.insecure_channel(target, options=options) as connection:
        call = connection.unary_unary(METHOD)
        while not ended.is_set():
            try:
                await call(b"", timeout=30)
                found.codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                found.codes[f"{error.code().name}: {error.details()}"] += 1


async def test_reloads_fail_no_call(router: Router) -> None:
    async with pods(router, "fraud-v1"), calling(router) as found:
        for seconds in (6, 7, 8):
            await found.more(100)
            await router.apply(fraud=a_model(router.port, timeoutSeconds=seconds))
        await found.more(100)

    assert set(found.codes) == {"OK"}, found.codes


async def test_pods_whose_connections_age_fail_no_call(router: Router) -> None:
    """As the runtime's do: each is left after a while, so that none is there when a pod ends."""
    aged = [("grpc.max_connection_age_ms", 100)]
    async with pods(router, "fraud-v1", "fraud-v1", options=aged), calling(router) as found:
        for _ in range(10):
            await found.more(50)
            await asyncio.sleep(0.2)  # time for the connections to age is what this is about

    assert set(found.codes) == {"OK"}, found.codes


async def test_a_pod_that_leaves_fails_no_call(router: Router) -> None:
    async with pods(router, "fraud-v1", "fraud-v1") as (first, second), calling(router) as found:
        await found.more(100)
        router.cluster.remove(Ref(kinds.ENDPOINT_SLICE, NAMESPACE, f"{first.revision}-{first.port}"))
        await router.haproxy_has_not(f"127.0.0.1:{first.port}")
        await first.stop(grace=5)
        await found.more(100)
        assert second.seen

    assert set(found.codes) == {"OK"}, found.codes


async def test_routers_that_are_replaced_fail_no_call(router: Router, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        other = Router(tmp_path / "other")
        stack.push_async_callback(other.close)
        await other.start(fraud=a_model(other.port))
        await stack.enter_async_context(pods(router, "fraud-v1"))
        await stack.enter_async_context(pods(other, "fraud-v1"))
        found = await stack.enter_async_context(calling(router, other))
        await found.more(200)
        assert await router.stop_haproxy() == 0
        await found.more(200)

    assert set(found.codes) == {"OK"}, found.codes
