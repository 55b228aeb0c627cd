"""gRPC's callers that keep their channel and ask nobody for its health: a pod that ends, without a router between, costs them no call."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from moorage_runtime import service
from moorage_runtime.oip import inference_pb2 as oip
from moorage_runtime.rpc import inference, server
from runtime_builders import a_service, an_adder

DRAIN_SECONDS = 2.0


class Pod:
    """The gRPC port of one, without the rest of it."""

    def __init__(self, served: service.ModelService) -> None:
        self._server = server.Server(served, host="127.0.0.1", port=0, drain_seconds=DRAIN_SECONDS)
        self._ending = asyncio.Event()
        self._serving = asyncio.create_task(self._server.serve(self._ending))
        self.port = self._server.port

    async def end(self) -> None:
        self._ending.set()
        await asyncio.wait_for(self._serving, 20)


class Address:
    """As kube-proxy makes one of a Service: a connection gets a pod that is listed when it is made, and stays there."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = list(pods)
        self._made = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        async with listener:
            yield "{}:{}".format(*listener.sockets[0].getsockname())

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._made += 1
        pod = self.pods[self._made % len(self.pods)]
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", pod.port)
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while received := await reader.read(65536):
            writer.write(received)
            await writer.drain()
    writer.close()


async def keep_calling(target: str, found: Counter[str], ended: asyncio.Event) -> None:
    request = oip.ModelInferRequest(model_name="iris")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(1)
    options = [("grpc.use_local_subchannel_pool", 1)]  # else all channels of a process share a connection
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary(f"/{inference.NAME}/ModelInfer", oip.ModelInferRequest.SerializeToString)
        while not ended.is_set():
            try:
                await call(request, timeout=30)
                found["OK"] += 1
            except grpc.aio.AioRpcError as error:
                found[f"{error.code().name}: {error.details()}"] += 1


async def test_pods_that_drain_one_after_the_other_cost_no_call() -> None:
    served = a_service()
    await served.load(an_adder)
    address, ended, found = Address(Pod(served), Pod(served)), asyncio.Event(), Counter[str]()
    async with address.listening() as target:
        callers = [asyncio.create_task(keep_calling(target, found, ended)) for _ in range(8)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            leaving = address.pods.pop(0)
            address.pods.append(Pod(served))
            await asyncio.sleep(DRAIN_SECONDS)
            await leaving.end()
        ended.set()
        await asyncio.gather(*callers)
    await asyncio.gather(*(pod.end() for pod in address.pods))
    assert set(found) == {"OK"}, found
    assert found["OK"] > 100
