"""The prediction port, through its ASGI app: protocols, errors, descriptions, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage_runtime import arms, limits
from runtime_builders import JSON, Adder, Stuck, a_client, a_service, an_adder

ClientOf = Callable[..., Awaitable[httpx.AsyncClient]]

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]]
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
INFER = "/v2/models/iris/infer"


def as_v2(rows: list[list[float]]) -> dict[str, Any]:
    columns = zip(NAMES, zip(*rows, strict=True), strict=True)
    return {
        "id": "42",
        "inputs": [{"name": n, "shape": [len(rows)], "datatype": "FP32", "data": list(c)} for n, c in columns],
    }


@pytest.mark.parametrize("name", ["sklearn", "xgboost", "onnx-columns"])
async def test_every_protocol_gives_the_same_species(client_of: ClientOf, models: dict[str, Path], name: str) -> None:
    client = await client_of(models[name])
    bodies = {
        "/predict": {"rows": RECORDS},
        "/invocations": {"dataframe_split": {"columns": NAMES, "data": ROWS}},
        INFER: as_v2(ROWS),
    }
    answers = {path: (await client.post(path, json=body)).json() for path, body in bodies.items()}
    species = [row["label"] if isinstance(row, dict) else row for row in answers["/predict"]["predictions"]]
    assert species == [0, 2]
    assert answers["/invocations"]["predictions"] == answers["/predict"]["predictions"]
    assert answers[INFER]["outputs"][0]["data"] == species


async def test_csv_and_json_invocations_agree(client_of: ClientOf, models: dict[str, Path]) -> None:
    client = await client_of(models["sklearn"])
    text = "\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in ROWS)])
    by_csv = await client.post("/invocations", content=text, headers={"content-type": "text/csv; charset=utf-8"})
    by_json = await client.post("/invocations", json={"dataframe_records": RECORDS})
    assert by_csv.json() == by_json.json() == {"predictions": [0, 2]}


async def test_a_matrix_model_answers_the_same_in_every_protocol(client_of: ClientOf, models: dict[str, Path]) -> None:
    client = await client_of(models["onnx"])
    tensor = {"name": "anything", "shape": [2, 4], "datatype": "FP32", "data": ROWS}
    by_rows = (await client.post("/predict", json={"rows": ROWS})).json()
    by_mlflow = (await client.post("/invocations", json={"inputs": ROWS})).json()
    by_v2 = (await client.post(INFER, json={"inputs": [tensor]})).json()
    assert [row["label"] for row in by_rows["predictions"]] == [0, 2]
    assert by_mlflow["predictions"]["label"] == by_v2["outputs"][0]["data"] == [0, 2]
    assert by_v2["outputs"][1]["shape"] == [2, 3]


async def test_an_answer_names_the_model_and_the_request(client_of: ClientOf, models: dict[str, Path]) -> None:
    client = await client_of(models["onnx-columns"])
    v2 = (await client.post("/v2/models/iris/versions/3/infer", json=as_v2(ROWS))).json()
    assert (v2["model_name"], v2["model_version"], v2["id"]) == ("iris", "3", "42")
    rows = (await client.post("/predict", json={"rows": RECORDS})).json()
    assert (rows["model"], rows["version"]) == ("iris", "3")


async def test_the_model_describes_itself(client_of: ClientOf, models: dict[str, Path]) -> None:
    client = await client_of(models["onnx"])
    described = (await client.get("/v2/models/iris")).json()
    assert described["platform"] == "onnxruntime"
    assert described["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert [output["name"] for output in described["outputs"]] == ["label", "probabilities"]
    assert (await client.get("/v2")).json()["name"] == "moorage-runtime"
    assert (await client.get("/version")).text.startswith("3.")
    for path in (
        "/ping",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/iris/ready",
        "/v2/models/iris/versions/3/ready",
    ):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("name", ["sklearn", "onnx", "onnx-columns"])
async def test_the_examples_of_the_openapi_document_work(
    client_of: ClientOf, models: dict[str, Path], name: str
) -> None:
    client = await client_of(models[name])
    document = (await client.get("/openapi.json")).json()
    assert len(document["paths"]) == 3
    for path, operations in document["paths"].items():
        example = operations["post"]["requestBody"]["content"]["application/json"]["example"]
        assert (await client.post(path, json=example)).status_code == 200
    assert (await client.get("/docs")).status_code == 200


async def test_the_openapi_document_has_the_real_columns(client_of: ClientOf, models: dict[str, Path]) -> None:
    client = await client_of(models["sklearn"])
    document = (await client.get("/openapi.json")).json()
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    row = schema["properties"]["rows"]["items"]
    assert row["required"] == NAMES
    assert row["properties"][NAMES[0]] == {"type": "number", "format": "float"}


async def ready(engine: Any | None = None) -> httpx.AsyncClient:
    served = a_service()
    await served.load(lambda: an_adder(engine))
    return a_client(served)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"{", JSON, 400, "no JSON: it goes wrong at line 1"),
        (b'{"rows": [[NaN, 1]]}', JSON, 400, "no JSON"),
        (b"[" * 2000, JSON, 400, "no JSON"),
        (b'{"rows": [[1, 2]]}', {"content-type": "application/x-www-form-urlencoded"}, 415, "send content-type"),
        (b"a,b", {"content-type": "text/csv"}, 415, "send content-type: application/json"),
        (b"[]", JSON, 422, 'send an object with one member, {"rows": [...]}'),
        (b'{"rows": []}', JSON, 422, "at least one row"),
        (b'{"rows": [[1]]}', JSON, 422, "a list of 2 values in this order: 'a', 'b'"),
        (b'{"rows": [{"a": 1}]}', JSON, 422, "column 'b' is missing"),
        (b'{"rows": [{"a": 1, "b": "x"}]}', JSON, 422, "column 'b': row 0 is no number; the signature asks for double"),
        (b'{"rows": [[1, 2]]}', {**JSON, "content-length": "99999999"}, 413, "larger than 16 MiB"),
    ],
)
async def test_bad_input_is_told_what_to_send_instead(
    content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    async with await ready() as client:
        answer = await client.post("/predict", content=content, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]


async def test_a_body_that_grows_too_large_is_cut_off_while_it_comes() -> None:
    async def endless() -> Any:
        sent = 0
        while sent <= 10 * limits.MAX_REQUEST_BYTES:
            sent += 1024 * 1024
            yield b" " * 1024 * 1024
        raise AssertionError("the body was read to its end")

    async with await ready() as client:
        answer = await client.post("/predict", content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"


async def test_a_body_without_content_type_is_json() -> None:
    async with await ready() as client:
        answer = await client.post("/predict", content=b'{"rows": [[1, 2]]}')
    assert answer.json()["predictions"] == [3.0]


async def test_a_fault_of_the_model_is_500_without_its_words() -> None:
    async with await ready(Adder(fault=RuntimeError("secret of the library"))) as client:
        answer = await client.post("/predict", json={"rows": [[1, 2]]})
    assert answer.status_code == 500
    assert answer.json()["reason"] == "ModelFault"
    assert "secret" not in answer.text


async def test_before_the_model_is_loaded_every_request_is_told_to_come_back() -> None:
    async with a_client(a_service()) as client:
        for answer in [
            await client.post("/predict", json={"rows": [[1, 2]]}),
            await client.get("/v2/health/ready"),
            await client.get("/v2/models/iris"),
        ]:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "load" in answer.json()["error"]
        assert (await client.get("/ping")).status_code == 503
        assert (await client.get("/openapi.json")).json()["paths"] == {}


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/iris/versions/9", "/v2/models/other/ready", "/nowhere"]
)
async def test_what_is_not_here_is_404_and_says_what_is(path: str) -> None:
    async with await ready() as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert "iris in version 3" in answer.json()["error"] or "/predict" in answer.json()["error"]


async def test_a_prediction_route_asked_with_get_is_no_prediction() -> None:
    async with await ready() as client:
        assert (await client.get("/predict")).status_code in (404, 405)


async def test_requests_are_counted_by_protocol_and_code() -> None:
    served = a_service()
    await served.load(an_adder)
    async with a_client(served) as client:
        await client.post("/predict", json={"rows": [[1, 2]]})
        await client.post("/invocations", json={"inputs": 5})
    labels = {"model": "iris", "version": "3", "revision": "iris-v3-0123abcd"}
    read = served.metrics.registry.get_sample_value
    unmarked = {**labels, "arm": ""}
    assert read("moorage_requests_total", {**unmarked, "protocol": "predict", "code": "200"}) == 1
    assert read("moorage_requests_total", {**unmarked, "protocol": "mlflow", "code": "422"}) == 1
    assert read("moorage_request_seconds_count", {**unmarked, "protocol": "predict"}) == 1
    assert read("moorage_in_flight_requests", labels) == 0


@pytest.mark.parametrize(
    ("header", "arm"),
    [
        ("canary", "canary"),
        ("stable/match", "stable/match"),
        ("a" * 63 + "/match", "a" * 63 + "/match"),
        ("a" * 64, "other"),
        ("Canary", "other"),
        ("-a", "other"),
        ("a/else", "other"),
    ],
)
async def test_requests_are_counted_by_the_arm_that_they_are_marked_with(header: str, arm: str) -> None:
    served = a_service()
    await served.load(an_adder)
    async with a_client(served) as client:
        await client.post("/predict", json={"rows": [[1, 2]]}, headers={"x-moorage-arm": header})
    labels = {"model": "iris", "version": "3", "revision": "iris-v3-0123abcd", "arm": arm, "protocol": "predict"}
    assert served.metrics.registry.get_sample_value("moorage_requests_total", {**labels, "code": "200"}) == 1
    assert served.metrics.registry.get_sample_value("moorage_request_seconds_count", labels) == 1


def test_more_arms_than_there_can_be_are_one_label() -> None:
    labels = arms.Arms()
    seen = {labels.label(f"arm-{number}".encode()) for number in range(10_000)}
    assert len(seen) == arms.MAX_DISTINCT + 1
    assert labels.label(b"arm-9999") == "other"
    assert labels.label(b"arm-1") == "arm-1"


async def test_when_all_places_are_taken_the_caller_is_told_to_come_back() -> None:
    served, engine = a_service(max_concurrency=1), Stuck()
    await served.load(lambda: an_adder(engine))
    async with a_client(served) as client:
        first = asyncio.create_task(client.post("/predict", json={"rows": [[1, 2]]}))
        assert await asyncio.to_thread(engine.started.wait, 10)
        second = await client.post("/predict", json={"rows": [[1, 2]]})
        engine.let_go.set()
        assert (await first).status_code == 200
    assert (second.status_code, second.json()["reason"]) == (503, "Overloaded")
    assert int(second.headers["retry-after"]) > 0


async def test_a_prediction_that_takes_too_long_is_504() -> None:
    served, engine = a_service(request_timeout_seconds=0.01), Stuck()
    await served.load(lambda: an_adder(engine))
    async with a_client(served) as client:
        answer = await client.post("/predict", json={"rows": [[1, 2]]})
    engine.let_go.set()
    assert (answer.status_code, answer.json()["reason"]) == (504, "DeadlineExceeded")
