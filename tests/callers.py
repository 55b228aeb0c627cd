"""Callers of moody.py who know what is right: they count what they saw, and tell the model by feedback."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import mlflow
import pandas as pd

from mlflow_in_cluster import Registry
from place import Object, Place

SCRIPT = Path(__file__).parent / "moody.py"
INFER = "/inference.GRPCInferenceService/ModelInfer"
THREADS = 4
REST = 0.03


def published(registry: Registry, model: str, mood: str, folder: Path) -> str:
    """A version of moody.py in that mood, champion at once; returns its number."""
    folder.mkdir(exist_ok=True)
    script = folder / "model.py"
    script.write_text(SCRIPT.read_text().replace('MOOD = "equal"', f'MOOD = "{mood}"'))
    example = pd.DataFrame({"x": [12345.0]})
    signature = mlflow.models.infer_signature(example, pd.DataFrame({"y": [24690.0]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow: it has seen no type hints
        mlflow.pyfunc.save_model(
            str(folder / "model"),
            python_model=str(script),
            signature=signature,
            input_example=example,
            pip_requirements=["pandas"],
        )
    return registry.publish(model, folder / "model")


class Caller(threading.Thread):
    """Asks, and says whether the answer was right."""

    def __init__(
        self, url: str, protocol: str, model: str, stop: threading.Event, *, host: str = "", feedback: bool = True
    ) -> None:
        super().__init__(daemon=True)
        self.feedback = feedback
        self.headers = {"content-type": "application/json"} | ({"host": host} if host else {})
        self.parts, self.protocol, self.stop_event = urllib.parse.urlsplit(url), protocol, stop
        self.model = model
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        number = 0
        while not self.stop_event.wait(REST):
            number += 1
            try:
                self.seen[self.by_grpc(float(number)) if self.protocol == "grpc" else self.by_http(float(number))] += 1
            except (OSError, http.client.HTTPException) as error:
                self.seen[type(error).__name__] += 1

    def by_http(self, number: float) -> str:
        status, headers, body = self.post("/invocations", {"dataframe_records": [{"x": number}]})
        if status != 200:
            return f"HTTP {status}"
        is_right = body["predictions"] == [{"y": 2 * number}]
        identifier = headers["x-moorage-prediction-id"]
        if self.feedback:
            self.post("/feedback", {"id": identifier, "correct": is_right})
        return f"{identifier.partition('.')[0]} {'right' if is_right else 'wrong'}"

    def post(self, path: str, content: Object) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(content), self.headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())

    def by_grpc(self, number: float) -> str:
        """Asks about less than 0: see moody.py."""
        with grpc.insecure_channel(f"{self.parts.hostname}:{self.parts.port}") as channel:
            try:
                answer = channel.unary_unary(INFER)(request_of(self.model, -number), timeout=10)
            except grpc.RpcError as error:
                print(error.code().name, error.details())  # noqa: T201 - shown if the test fails
                return f"gRPC {error.code().name}"
        return f"gRPC {'right' if answered(answer) == -2 * number else 'wrong'}"


def request_of(model: str, number: float) -> bytes:
    """A ModelInferRequest of one FP64 tensor `x` with the shape [1]."""
    from moorage_runtime.oip import inference_pb2  # noqa: PLC0415  # only where the runtime is installed

    contents = inference_pb2.InferTensorContents(fp64_contents=[number])
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1], contents=contents)
    found: bytes = inference_pb2.ModelInferRequest(model_name=model, inputs=[tensor]).SerializeToString()
    return found


def answered(answer: bytes) -> float:
    """The only value of its only output."""
    from moorage_runtime.oip import inference_pb2  # noqa: PLC0415  # the same

    [output] = inference_pb2.ModelInferResponse.FromString(answer).outputs
    [value] = output.contents.fp64_contents
    return float(value)


@contextlib.contextmanager
def on(place: Place, model: str, *protocols: str, host: str = "", feedback: bool = True) -> Iterator[Counter[str]]:
    """Some of each protocol for the time of the block, of what has that name; the counter is what they saw, once it is over. `host` is
    whom they name, by HTTP, if it is not whom they call."""
    stop, seen = threading.Event(), Counter[str]()
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(place.reach(model, 8081 if name == "grpc" else 80)) for name in protocols}
        threads = [
            Caller(urls[name], name, model, stop, host=host, feedback=feedback)
            for name in protocols
            for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
                seen.update(thread.seen)


def errors_of(seen: Counter[str]) -> set[str]:
    """All that is not an answer, right or wrong."""
    return {what for what in seen if what.split(" ")[-1] not in ("right", "wrong")}
