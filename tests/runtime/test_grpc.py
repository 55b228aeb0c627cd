"""The gRPC port with a real client on loopback: the protocol's calls, its errors and bounds, and the standard health service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moorage_runtime import errors, limits, service, threads
from moorage_runtime.codecs import answers, arrays, v2_messages
from moorage_runtime.oip import inference_pb2 as oip
from moorage_runtime.rpc import health, inference, server
from runtime_builders import Adder, Stuck, a_client, a_service, an_adder, columns, leaves, load, tensors

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]], "float32")
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
Code: TypeAlias = grpc.StatusCode


@contextlib.asynccontextmanager
async def a_port(served: service.ModelService) -> AsyncIterator[grpc.aio.Channel]:
    """The server on a free port, and a channel to it."""
    port = server.Server(served, host="127.0.0.1", port=0)
    ending = asyncio.Event()
    serving = asyncio.create_task(port.serve(ending))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.port}") as channel:
        yield channel
        ending.set()
        await asyncio.wait_for(serving, 10)


async def call(channel: grpc.aio.Channel, method: str, message: Any, **options: Any) -> Any:
    """One call of the service; `message` may be bytes that are none."""
    replies = {"ModelInfer": oip.ModelInferResponse, "ModelMetadata": oip.ModelMetadataResponse}
    stub: Callable[..., Any] = channel.unary_unary(
        f"/{inference.NAME}/{method}",
        request_serializer=lambda sent: sent if isinstance(sent, bytes) else sent.SerializeToString(),
        response_deserializer=replies.get(method, getattr(oip, f"{method}Response")).FromString,
    )
    return await stub(message, **options)


async def refused(channel: grpc.aio.Channel, message: Any, method: str = "ModelInfer", **options: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, message, **options)
    return caught.value


def typed(**values: Any) -> oip.ModelInferRequest:
    """A request with FP64 columns."""
    request = oip.ModelInferRequest(model_name="iris", id="42")
    for name, column in values.items():
        tensor = request.inputs.add(name=name, datatype="FP64", shape=[len(column)])
        tensor.contents.fp64_contents.extend(column)
    return request


def raw(datatype: str, dtype: str, **tensors: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="iris")
    for name, values in tensors.items():
        array = np.array(values, dtype)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


async def ready(engine: Any | None = None, **bounds: Any) -> service.ModelService:
    served = a_service(**bounds)
    await served.load(lambda: an_adder(engine))
    return served


def counted(served: service.ModelService, code: Code, arm: str = "") -> float | None:
    labels = {"model": "iris", "version": "3", "revision": "iris-v3-0123abcd", "arm": arm, "protocol": "grpc"}
    return served.metrics.registry.get_sample_value("moorage_requests_total", {**labels, "code": str(code.value[0])})


@pytest.mark.parametrize("name", ["sklearn", "onnx-columns"])
async def test_columns_typed_and_raw_give_the_species_that_rest_gives(models: dict[str, Path], name: str) -> None:
    served = a_service()
    await served.load(lambda: load(models[name]))
    by_name = dict(zip(NAMES, ROWS.T, strict=True))
    as_typed = oip.ModelInferRequest(model_name="iris")
    for column, values in by_name.items():
        as_typed.inputs.add(name=column, datatype="FP32", shape=[2]).contents.fp32_contents.extend(values)
    async with a_port(served) as channel, a_client(served) as client:
        by_rest = (await client.post("/invocations", json={"inputs": ROWS.tolist()})).json()["predictions"]
        species = [row["label"] if isinstance(row, dict) else row for row in by_rest]
        answer = await call(channel, "ModelInfer", as_typed)
        answer_raw = await call(channel, "ModelInfer", raw("FP32", "float32", **by_name))
    assert list(answer.outputs[0].contents.int64_contents) == species == [0, 2]
    assert np.frombuffer(answer_raw.raw_output_contents[0], "<i8").tolist() == species
    assert not answer_raw.outputs[0].HasField("contents")


async def test_a_tensor_of_a_matrix_model_is_answered_with_all_outputs(models: dict[str, Path]) -> None:
    served = a_service()
    await served.load(lambda: load(models["onnx"]))
    async with a_port(served) as channel:
        answer = await call(channel, "ModelInfer", raw("FP32", "float32", anything=ROWS))
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [
        ("label", [2]),
        ("probabilities", [2, 3]),
    ]
    assert np.frombuffer(answer.raw_output_contents[1], "<f4").reshape(2, 3).argmax(axis=1).tolist() == [0, 2]


async def test_an_answer_names_the_model_and_keeps_the_callers_id() -> None:
    async with a_port(await ready()) as channel:
        answer = await call(channel, "ModelInfer", typed(a=[1.0], b=[2.0]))
    assert (answer.model_name, answer.model_version, answer.id) == ("iris", "3", "42")
    assert list(answer.outputs[0].contents.fp64_contents) == [3.0]


async def test_the_model_and_the_server_describe_themselves() -> None:
    async with a_port(await ready()) as channel:
        described = await call(channel, "ModelMetadata", oip.ModelMetadataRequest(name="iris", version="3"))
        assert (described.name, list(described.versions), described.platform) == ("iris", ["3"], "adder")
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in described.inputs] == [
            ("a", "FP64", [-1]),
            ("b", "FP64", [-1]),
        ]
        assert (await call(channel, "ServerMetadata", oip.ServerMetadataRequest())).name == "moorage-runtime"
        assert (await call(channel, "ServerLive", oip.ServerLiveRequest())).live
        assert (await call(channel, "ServerReady", oip.ServerReadyRequest())).ready
        assert (await call(channel, "ModelReady", oip.ModelReadyRequest(name="iris"))).ready
        for method in ("ModelReady", "ModelMetadata"):
            other = getattr(oip, f"{method}Request")(name="iris", version="9")
            assert (await refused(channel, other, method)).code() == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (b"\xff\xff", Code.INVALID_ARGUMENT, "is no inference.ModelInferRequest"),
        (oip.ModelInferRequest(model_name="other"), Code.NOT_FOUND, "iris in version 3"),
        (oip.ModelInferRequest(model_name="iris", model_version="9"), Code.NOT_FOUND, "iris in version 3"),
        (oip.ModelInferRequest(model_name="iris"), Code.INVALID_ARGUMENT, "send an object with 'inputs'"),
        (typed(a=[1.0]), Code.INVALID_ARGUMENT, "column 'b' is missing"),
        (typed(a=[1.0], c=[1.0]), Code.INVALID_ARGUMENT, "it has 'a', 'b'"),
        (typed(a=[1.0], b=[1.0], c=[1.0]), Code.INVALID_ARGUMENT, "there are 3 inputs, the model has 2"),
        (typed(a=[1.0], b=[1.0, 2.0]), Code.INVALID_ARGUMENT, "the same number of rows"),
        (raw("INT64", "int64", a=[[1, 2], [3, 4]], b=[1]), Code.INVALID_ARGUMENT, "its shape must be [rows]"),
        (raw("BOOL", "bool", a=[True], b=[True]), Code.INVALID_ARGUMENT, "its datatype must be FP64"),
        (raw("BF16", "int16", a=[1], b=[1]), Code.INVALID_ARGUMENT, "its datatype must be FP64"),
        (raw("FP64", "float32", a=[1], b=[1]), Code.INVALID_ARGUMENT, "not as long as its shape and datatype say"),
    ],
)  # fmt: skip
async def test_bad_input_is_told_what_to_send_instead(message: Any, code: Code, said: str) -> None:
    served = await ready()
    async with a_port(served) as channel:
        error = await refused(channel, message)
    assert (error.code(), said in error.details()) == (code, True), error.details()
    assert counted(served, code) == 1


async def test_a_message_beyond_the_limit_is_refused_and_so_is_one_that_could_unfold_to_it() -> None:
    served = await ready(max_request_bytes=100_000)
    within, beyond = typed(a=[0.5] * 6000, b=[0.5] * 6000), typed(a=[0.5] * 7000, b=[0.5] * 7000)
    async with a_port(served) as channel:
        assert len((await call(channel, "ModelInfer", within)).outputs[0].contents.fp64_contents) == 6000
        assert (await refused(channel, beyond)).code() == Code.RESOURCE_EXHAUSTED
        compressed = await refused(channel, beyond, compression=grpc.Compression.Gzip)
    assert compressed.code() == Code.UNIMPLEMENTED


async def test_a_fault_of_the_model_is_internal_without_its_words() -> None:
    served = await ready(Adder(fault=RuntimeError("secret of the library")))
    async with a_port(served) as channel:
        error = await refused(channel, typed(a=[1.0], b=[1.0]))
    assert error.code() == Code.INTERNAL
    assert "secret" not in error.details()
    assert counted(served, Code.INTERNAL) == 1


class Unwritable(Adder):
    """A fault in the runtime itself: an answer that can't be written."""

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        return answers.Prediction({"": None})  # type: ignore[dict-item]  # that is the fault


async def test_a_fault_of_the_runtime_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with a_port(await ready(Unwritable())) as channel:
        error = await refused(channel, typed(a=[1.0], b=[1.0]))
    assert error.code() == Code.INTERNAL
    assert "a request failed in the runtime itself" in caplog.text


async def test_before_the_model_is_loaded_the_caller_is_told_when_to_come_back() -> None:
    served = a_service()
    async with a_port(served) as channel:
        error = await refused(channel, typed(a=[1.0], b=[1.0]))
        assert not (await call(channel, "ServerReady", oip.ServerReadyRequest())).ready
        assert not (await call(channel, "ModelReady", oip.ModelReadyRequest(name="iris"))).ready
    assert error.code() == Code.UNAVAILABLE
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "2000"
    assert counted(served, Code.UNAVAILABLE) == 1


async def test_when_all_places_are_taken_the_caller_is_told_when_to_come_back() -> None:
    engine = Stuck()
    async with a_port(await ready(engine, max_concurrency=1)) as channel:
        first = asyncio.create_task(call(channel, "ModelInfer", typed(a=[1.0], b=[1.0])))
        assert await asyncio.to_thread(engine.started.wait, 10)
        error = await refused(channel, typed(a=[1.0], b=[1.0]))
        engine.let_go.set()
        assert list((await first).outputs[0].contents.fp64_contents) == [2.0]
    assert error.code() == Code.UNAVAILABLE
    assert "no more are taken" in error.details()


async def test_what_the_caller_no_longer_waits_for_is_never_predicted() -> None:
    engine = Counting()
    served = await ready(engine)
    async with a_port(served) as channel:
        message = typed(a=[1.0], b=[1.0])
        busy = [asyncio.create_task(call(channel, "ModelInfer", message)) for _ in range(threads.workers())]
        assert await asyncio.to_thread(engine.started.wait, 10)
        error = await refused(channel, message, timeout=0.2)
        engine.let_go.set()
        await asyncio.gather(*busy)
        await call(channel, "ModelInfer", message)  # behind the one that was given up, if it were still there
    assert error.code() == Code.DEADLINE_EXCEEDED
    assert engine.predicted == threads.workers() + 1
    assert counted(served, Code.DEADLINE_EXCEEDED) == 1


class Counting(Stuck):
    predicted = 0

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        self.predicted += 1
        return super().predict(inputs)


async def test_calls_are_counted_by_arm_and_status() -> None:
    served = await ready()
    async with a_port(served) as channel:
        await call(channel, "ModelInfer", typed(a=[1.0], b=[1.0]), metadata=(("x-moorage-arm", "canary/match"),))
        await call(channel, "ModelInfer", typed(a=[1.0], b=[1.0]))
        await refused(channel, b"\xff", metadata=(("x-moorage-arm", "NO ARM"),))
    assert counted(served, Code.OK, "canary/match") == counted(served, Code.OK) == 1
    assert counted(served, Code.INVALID_ARGUMENT, "other") == 1


async def test_an_answer_carries_the_id_that_feedback_takes() -> None:
    served = await ready()
    async with a_port(served) as channel:
        infer_call = channel.unary_unary(f"/{inference.NAME}/ModelInfer")(typed(a=[1.0], b=[2.0]).SerializeToString())
        await infer_call
        identifier = dict(await infer_call.trailing_metadata())["x-moorage-prediction-id"]
    told = served.feedback.count(served.feedback.report({"id": identifier, "label": 3.0}))
    assert (told["correct"], told["counted"]) == (True, True)


def test_every_error_of_a_request_has_a_status() -> None:
    assert set(inference.STATUS) == set(leaves(errors.RequestError))


async def test_health_follows_the_model_from_loading_to_draining() -> None:
    served = a_service()
    async with a_port(served) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in health.SERVICES:
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == NOT_SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=inference.NAME))
        assert (await watch.read()).status == NOT_SERVING
        await served.load(an_adder)
        assert (await watch.read()).status == SERVING
        served.drain()
        assert (await watch.read()).status == NOT_SERVING
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_the_health_of_an_unknown_service_is_unknown() -> None:
    async with a_port(await ready()) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert caught.value.code() == Code.NOT_FOUND


async def test_those_who_watch_are_few_and_are_let_go_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHERS", 2)
    async with a_port(await ready()) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]
        third = stub.Watch(health_pb2.HealthCheckRequest())
        assert await third.code() == Code.RESOURCE_EXHAUSTED
        # The end of `a_port` waits ten seconds for the server, which waits for every call.


def test_a_port_that_is_taken_is_said() -> None:
    async def twice() -> None:
        first = server.Server(a_service(), host="127.0.0.1", port=0)
        with pytest.raises(errors.UsageError, match="choose another port"):
            server.Server(a_service(), host="127.0.0.1", port=first.port)

    asyncio.run(twice())


def infer(*inputs: tuple[str, str, list[int], dict[str, Any]]) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest()
    for name, datatype, shape, contents in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape, contents=oip.InferTensorContents(**contents))
    return request


@pytest.mark.parametrize(
    ("type_", "datatype", "contents", "packed", "expected"),
    [
        ("boolean", "BOOL", {"bool_contents": [True, False]}, b"\x01\x00", [True, False]),
        ("integer", "INT32", {"int_contents": [-1, 2]}, b"\xff\xff\xff\xff\x02\0\0\0", [-1, 2]),
        ("integer", "INT8", {"int_contents": [-1, 2]}, b"\xff\x02", [-1, 2]),
        ("long", "UINT8", {"uint_contents": [1, 255]}, b"\x01\xff", [1, 255]),
        ("long", "UINT64", {"uint64_contents": [1, 2]}, b"\x01" + bytes(7) + b"\x02" + bytes(7), [1, 2]),
        ("long", "INT64", {"int64_contents": [1, 2]}, b"\x01" + bytes(7) + b"\x02" + bytes(7), [1, 2]),
        ("double", "FP32", {"fp32_contents": [0.5, 1]}, np.array([0.5, 1], "<f4").tobytes(), [0.5, 1]),
        ("string", "BYTES", {"bytes_contents": ["é".encode(), b""]}, b"\x02\0\0\0\xc3\xa9\0\0\0\0", ["é", ""]),
        ("binary", "BYTES", {"bytes_contents": [b"\xff", b""]}, b"\x01\0\0\0\xff\0\0\0\0", [b"\xff", b""]),
    ],
)  # fmt: skip
def test_every_datatype_is_read_typed_and_raw(
    type_: str, datatype: str, contents: dict[str, Any], packed: bytes, expected: list[Any]
) -> None:
    signature = columns(a=type_)
    as_raw = oip.ModelInferRequest(raw_input_contents=[packed])
    as_raw.inputs.add(name="a", datatype=datatype, shape=[2])
    by_types = v2_messages.body(signature, infer(("a", datatype, [2], contents)))["a"]
    by_raw = v2_messages.body(signature, as_raw)["a"]
    assert by_types.tolist() == by_raw.tolist() == expected
    assert by_types.dtype == by_raw.dtype == signature.inputs[0].dtype


def test_times_are_text() -> None:
    decoded = v2_messages.body(columns(at="datetime"), infer(("at", "BYTES", [1], {"bytes_contents": [b"2026-11-22"]})))
    assert decoded["at"].tolist() == [np.datetime64("2026-11-22", "ns").astype(int)]


def test_half_precision_is_raw_both_ways() -> None:
    request = raw("FP16", "float16", x=[1.5])
    decoded = v2_messages.body(tensors(x=("float16", (-1,))), request)
    typed_request = infer(("x", "FP16", [1], {"fp32_contents": [1.5]}))
    reply = v2_messages.answer(answers.Prediction(decoded), model="m", version="1", request=typed_request)
    assert reply.raw_output_contents[0] == np.array([1.5], "<f2").tobytes()
    with pytest.raises(errors.InvalidInput, match="FP16 must be raw"):
        v2_messages.body(tensors(x=("float16", (-1,))), typed_request)


def packed(*contents: bytes) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="a", datatype="BYTES", shape=[1])
    return oip.ModelInferRequest(inputs=[tensor], raw_input_contents=contents)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (infer(("a", "BYTES", [1], {"int_contents": [1]})), "belong in 'bytes_contents'"),
        (infer(("a", "BYTES", [2], {"bytes_contents": [b"x"]})), "'shape' says 2 values, 'data' has 1"),
        (infer(("a", "BYTES", [-1], {"bytes_contents": [b"x"]})), "'shape' must be a list of whole numbers"),
        (infer(("a", "BYTES", [1], {"bytes_contents": [b"\xff"]})), "not UTF-8"),
        (infer(("a", "INT32", [1], {"int_contents": [1]})), "its datatype must be BYTES"),
        (packed(b"\x05\0\0\0x"), "end within a value"),
        (packed(b"", b""), "one of 'raw_input_contents' for each"),
    ],
)  # fmt: skip
def test_contents_that_contradict_themselves_are_refused(message: oip.ModelInferRequest, said: str) -> None:
    with pytest.raises(errors.InvalidInput, match=said):
        v2_messages.body(columns(a="string"), message)


def test_a_number_that_does_not_fit_the_signature_is_refused_not_cut() -> None:
    with pytest.raises(errors.InvalidInput, match="not a whole one that fits int32"):
        v2_messages.body(columns(a="integer"), infer(("a", "INT64", [1], {"int64_contents": [2**40]})))


def test_a_number_wider_than_its_datatype_is_judged_by_the_signature() -> None:
    message = infer(("a", "INT8", [1], {"int_contents": [300]}))
    assert v2_messages.body(columns(a="integer"), message)["a"].tolist() == [300]
    with pytest.raises(errors.InvalidInput, match="not a whole one that fits int8"):
        v2_messages.body(tensors(a=("int8", (-1,))), message)


def test_text_of_an_answer_is_what_json_shows_and_bytes_are_bytes() -> None:
    outputs = {
        "text": np.array(["é", None, {"a": 1}], dtype=object),
        "bytes": np.array([b"\xff"], dtype=object),
        "time": np.array(["2026-11-22"], dtype="datetime64[ns]"),
    }
    reply = v2_messages.answer(answers.Prediction(outputs), model="m", version="1", request=oip.ModelInferRequest())
    text, raw_bytes, time = (list(output.contents.bytes_contents) for output in reply.outputs)
    assert text == ["é".encode(), b"null", b'{"a":1}']
    assert raw_bytes == [b"\xff"]
    assert time == [b"2026-11-22T00:00:00.000000"]


def test_the_largest_message_is_the_limit_of_rest() -> None:
    assert dict(server._options(limits.Limits(), 0))["grpc.max_receive_message_length"] == limits.MAX_REQUEST_BYTES
