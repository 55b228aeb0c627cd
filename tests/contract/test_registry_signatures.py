"""The signature that the operator reads in the registry: what the pods will tell, or nothing, whatever the server sends."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import moorage_runtime.mlmodel
import moorage_runtime.schema
from moorage_operator.adapters.access import Access
from moorage_operator.adapters.registry import MlflowRegistry, RegistryDeclaration, mlmodel, sources
from moorage_operator.core import signatures
from moorage_operator.core.registry import ModelRef
from moorage_operator.core.signatures import Signature
from stub_http import Reply, Request, Stub, serving

CHAMPION = ModelRef("iris", alias="champion")
URI = "mlflow-artifacts:/1/models/m-1/artifacts"
SECRET = "hunter2"
COLUMNS = [
    {"type": "double", "name": "amount", "required": True},
    {"type": "string", "name": "note", "required": False},
]
TENSORS = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]
LONGEST = mlmodel.MAX_TOLD - len('{"inputs":[["","double"]],"outputs":[]}')
LISTS = [{"type": "array", "items": {"type": "string"}, "name": "wörds"}]


def described(inputs: Any, outputs: Any = None, params: Any = None) -> bytes:
    """An MLmodel file, as MLflow writes it."""
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    texts = {part: json.dumps(value) if value is not None else None for part, value in parts.items()}
    return yaml.safe_dump({"flavors": {"python_function": {}}, "signature": texts}).encode()


def told_by_a_pod(body: bytes, folder: Path) -> Signature | None:
    """What the operator makes of the last words of `fetch`."""
    (folder / "MLmodel").write_bytes(body)
    read = moorage_runtime.mlmodel.read(folder)
    words = {"signature": read.signature_hash, "schema": moorage_runtime.schema.of(read.signature)}
    return signatures.reported(json.loads(json.dumps(words)))


FILES: dict[str, bytes] = {
    "columns": described(COLUMNS, TENSORS),
    "columns without outputs": described(COLUMNS),
    "without names": described([{"type": "double"}, {"type": "long"}], []),
    "tensors and parameters": described(
        TENSORS, TENSORS, [{"name": "top", "type": "long", "default": 3, "shape": None}]
    ),
    "lists": described(LISTS, LISTS),
    "too large": described([{"type": "double", "name": f"column {number}"} for number in range(300)]),
    "the largest that is told": described([{"type": "double", "name": "n" * LONGEST}]),
    "one byte more": described([{"type": "double", "name": "n" * (LONGEST + 1)}]),
    "not to be read": described([7]),
    "no signature": b"flavors: {}",
    "no inputs": described([], COLUMNS),
}


@pytest.mark.parametrize("body", FILES.values(), ids=FILES)
def test_the_registry_and_a_pod_tell_the_same(body: bytes, tmp_path: Path) -> None:
    assert mlmodel.signature(body) == told_by_a_pod(body, tmp_path)


def test_the_files_above_are_of_all_kinds() -> None:
    found = {name: mlmodel.signature(body) for name, body in FILES.items()}
    assert [name for name, read in found.items() if read is None] == ["no signature"]
    assert [name for name, read in found.items() if read and not read.inputs] == [
        "too large",
        "one byte more",
        "not to be read",
        "no inputs",
    ]


MERGED = "a0: &a0 {x: y}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 12))
UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "no YAML": b"signature: [",
    "no map": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "a signature that is a text": b"signature: x",
    "no JSON": b"signature: {inputs: 'x'}",
    "JSON without end": f"signature: {{inputs: '{'[' * 60_000}'}}".encode(),
    "a number without end": f"signature: {{inputs: '[{'1' * 60_000}]'}}".encode(),
    "brackets": b"[" * mlmodel.MAX_BYTES,
    "a Python object": b"signature: !!python/object/apply:os.abort []",
    "merges of merges": MERGED.encode(),
    "itself": b"&a {signature: *a}",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_can_not_be_read_is_no_signature(body: bytes) -> None:
    assert len(body) <= mlmodel.MAX_BYTES
    began = time.process_time()
    assert mlmodel.signature(body) is None
    assert time.process_time() - began < 5


# --- a server that is sick or hostile


class Server:
    """Answers like MLflow, with `file` as the MLmodel."""

    def __init__(self) -> None:
        self.uri = URI
        self.file: Callable[[], Reply] = lambda: Reply(FILES["columns"])

    def __call__(self, request: Request) -> Reply:
        if request.path.endswith("/MLmodel"):
            return self.file()
        if request.path.endswith("/model-versions/get-download-uri"):
            return Reply({"artifact_uri": self.uri})
        version = {"name": "iris", "version": "3", "creation_timestamp": 1, "run_id": "abc", "source": "models:/m-1"}
        return Reply({"model_version": version | {"status": "READY"}})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def stub(server: Server) -> Iterator[Stub]:
    with serving(server) as running:
        yield running


def a_registry(stub: Stub, **declared: Any) -> contextlib.closing[MlflowRegistry]:
    return contextlib.closing(MlflowRegistry(RegistryDeclaration("lab", stub.url, Access(**declared))))


def files_asked_for(stub: Stub) -> list[str]:
    return [request.path for request in stub.requests if request.path.endswith("/MLmodel")]


async def test_it_is_asked_for_once(stub: Stub) -> None:
    with a_registry(stub) as registry:
        found = [await registry.resolve(CHAMPION) for _ in range(3)]
    assert {answer.signature for answer in found} == {mlmodel.signature(FILES["columns"])}
    assert files_asked_for(stub) == ["/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/MLmodel"]


def elsewhere() -> Reply:
    return Reply(status=302, headers={"Location": "http://127.0.0.1:1/MLmodel"})


def slow() -> Reply:
    time.sleep(2.5)
    return Reply(FILES["columns"])


SICK: dict[str, Callable[[], Reply]] = {
    "forbidden": lambda: Reply({"error_code": "PERMISSION_DENIED", "message": SECRET}, 403),
    "not there": lambda: Reply({"error_code": "RESOURCE_DOES_NOT_EXIST"}, 404),
    "broken": lambda: Reply(SECRET.encode(), 500),
    "elsewhere": elsewhere,
    "too large": lambda: Reply(FILES["columns"] + b"#" * mlmodel.MAX_BYTES),
    "malformed": lambda: Reply(b"signature: ["),
    "slow": slow,
}


@pytest.mark.parametrize("file", SICK.values(), ids=SICK)
async def test_without_it_the_version_is_answered_in_time_and_later_polls_do_not_ask(
    stub: Stub, server: Server, file: Callable[[], Reply], caplog: pytest.LogCaptureFixture
) -> None:
    server.file = file
    caplog.set_level("INFO")
    with a_registry(stub) as registry:
        began = time.monotonic()
        for _ in range(5):
            answer = await registry.resolve(CHAMPION)
            assert (answer.version, answer.signature) == ("3", None)
        assert time.monotonic() - began < 4
    assert len(files_asked_for(stub)) <= 2, "one question may be sent once more after a lost connection"
    assert SECRET not in caplog.text


async def test_the_credential_goes_along_and_only_to_the_registry(stub: Stub, server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    with a_registry(stub, credentials_dir=tmp_path) as registry:
        assert (await registry.resolve(CHAMPION)).signature
        assert {*stub.authorizations()} == {f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("mlflow-artifacts:/1/a b", "/api/2.0/mlflow-artifacts/artifacts/1/a%20b"),
        ("mlflow-artifacts://mlflow:5000/1", "/api/2.0/mlflow-artifacts/artifacts/1"),
        (
            "http://mlflow:5000/lab/api/2.0/mlflow-artifacts/artifacts/1/a%20b/",
            "/api/2.0/mlflow-artifacts/artifacts/1/a%20b",
        ),
        ("http://mlflow:5000/api/2.0/mlflow-artifacts/artifacts/1", None),
        ("http://mlflow:5000/lab/elsewhere/1", None),
        ("models:/iris/1", None),
        ("s3://bucket/1", None),
    ],
)
def test_only_what_the_own_server_hands_out_is_asked_for(uri: str, endpoint: str | None) -> None:
    tracking_uri = "http://mlflow:5000/lab/"
    assert sources.checked(uri, model="m", tracking_uri=tracking_uri) == uri
    assert sources.proxied(uri, tracking_uri=tracking_uri) == endpoint
