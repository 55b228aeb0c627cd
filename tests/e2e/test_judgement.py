"""Each guard catches a version that is worse in just its way, on requests as callers send them, and lets an equal one through."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import mlflow
import pandas as pd
import pytest

from mlflow_in_cluster import Registry
from moorage_operator.core.reasons import Reason
from place import Object, Place, a_model, until

MODEL = "moody"
SCRIPT = Path(__file__).parents[1] / "moody.py"
INFER = "/inference.GRPCInferenceService/ModelInfer"
THREADS = 4
REST = 0.03

ERRORS = {"name": "errors", "errorRate": {}}
SLOW = {"name": "slow", "latency": {"quantile": 0.9, "maxSeconds": 0.2}}
SAME = {"name": "same", "disagreement": {"max": "3%"}}
QUALITY = {"name": "quality", "feedback": {}}
QUICK = {"intervalSeconds": 5, "initialDelaySeconds": 1, "minRequests": 30}


@dataclass(frozen=True)
class Worse:
    """A version, what finds out, and all the errors that callers may see until then."""

    mood: str
    guard: Object
    reasons: frozenset[Reason] = frozenset({Reason.ANALYSIS_FAILED})
    errors: frozenset[str] = frozenset()
    protocols: tuple[str, ...] = ("http",)
    replicas: int = 1


WORSE = {
    "failing": Worse("failing", ERRORS, errors=frozenset({"HTTP 500"})),
    "failing only over gRPC": Worse(
        "failing by gRPC", ERRORS, errors=frozenset({"gRPC INTERNAL"}), protocols=("http", "grpc")
    ),
    "slow": Worse("slow", SLOW),
    "disagreeing": Worse("wrong", SAME),
    "less accurate": Worse("wrong", QUALITY),
    # A pod that crashes costs the one or two requests that it has, and is away for seconds; the guard needs some eight errors. Long
    # before that one pod has crashed twice, or both are away: that needs no statistics.
    "crashing": Worse(
        "crashing",
        ERRORS,
        reasons=frozenset({Reason.ANALYSIS_FAILED, Reason.CANARY_LOST, Reason.CANARY_CRASHES}),
        errors=frozenset({"HTTP 502", "HTTP 503"}),
        replicas=2,
    ),
}


def published(registry: Registry, mood: str, folder: Path) -> str:
    """A version of that mood, champion at once; returns its number."""
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
    return registry.publish(MODEL, folder / "model")


@pytest.fixture(scope="module")
def moody(place: Place, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model deployment whose stable version is in no mood at all."""
    published(registry, "equal", tmp_path_factory.mktemp("equal"))
    place.apply(a_model(MODEL, MODEL, runtime={"allowPickle": True}, rollout=rollout(ERRORS)))
    place.wait_ready(MODEL)
    return MODEL


def rollout(*guards: Object) -> Object:
    """Half of the requests, for as long as it takes to judge them."""
    steps = [{"setWeight": 50}, {"analysis": {"duration": 5}}]
    return {
        "steps": steps,
        "analysis": QUICK | {"guards": list(guards)},
        "shadow": {"percent": 50 if SAME in guards else 0},
        "scaleDownDelaySeconds": 2,
        "abortScaleDownDelaySeconds": 2,
    }


class Caller(threading.Thread):
    """Asks, and says whether the answer was right."""

    def __init__(self, url: str, protocol: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.parts, self.protocol, self.stop_event = urllib.parse.urlsplit(url), protocol, stop
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
        self.post("/feedback", {"id": identifier, "correct": is_right})
        return f"{identifier.partition('.')[0]} {'right' if is_right else 'wrong'}"

    def post(self, path: str, content: Object) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(content), {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())

    def by_grpc(self, number: float) -> str:
        """Asks about less than 0: see moody.py."""
        with grpc.insecure_channel(f"{self.parts.hostname}:{self.parts.port}") as channel:
            try:
                answer = channel.unary_unary(INFER)(request_of(-number), timeout=10)
            except grpc.RpcError as error:
                return f"gRPC {error.code().name}"
        return f"gRPC {'right' if answered(answer) == -2 * number else 'wrong'}"


def request_of(number: float) -> bytes:
    """A ModelInferRequest of one FP64 tensor `x` with the shape [1]."""
    from moorage_runtime.oip import inference_pb2  # noqa: PLC0415  # only where the runtime is installed

    contents = inference_pb2.InferTensorContents(fp64_contents=[number])
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1], contents=contents)
    found: bytes = inference_pb2.ModelInferRequest(model_name=MODEL, inputs=[tensor]).SerializeToString()
    return found


def answered(answer: bytes) -> float:
    """The only value of its only output."""
    from moorage_runtime.oip import inference_pb2  # noqa: PLC0415  # the same

    [output] = inference_pb2.ModelInferResponse.FromString(answer).outputs
    [value] = output.contents.fp64_contents
    return float(value)


@contextlib.contextmanager
def callers(place: Place, *protocols: str) -> Iterator[Counter[str]]:
    """Some of each protocol for the time of the block; the counter is what they saw, once it is over."""
    stop, seen = threading.Event(), Counter[str]()
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(place.reach(MODEL, 8081 if name == "grpc" else 80)) for name in protocols}
        threads = [Caller(urls[name], name, stop) for name in protocols for _ in range(THREADS)]
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


@pytest.mark.parametrize("worse", WORSE.values(), ids=WORSE)
def test_what_is_worse_is_put_back_with_its_evidence(
    place: Place, registry: Registry, moody: str, tmp_path: Path, worse: Worse
) -> None:
    stable = place.stable_version(moody)
    place.change(moody, replicas=worse.replicas, rollout=rollout(worse.guard))
    with callers(place, *worse.protocols) as seen:
        version = published(registry, worse.mood, tmp_path)
        until(120, f"version {version} is put back", lambda: outcome(place, version), lambda: place.status(moody))

    status = place.status(moody)
    assert outcome(place, version) == "RolledBack", status
    [rejected] = status["rejected"]
    assert rejected["reason"] in worse.reasons, (rejected, seen)
    if rejected["reason"] == Reason.ANALYSIS_FAILED:
        assert rejected["message"].startswith(f"{worse.guard['name']}: ")
        [judged] = status["analysis"]
        assert (judged["guard"], judged["verdict"]) == (worse.guard["name"], "harm")
    assert errors_of(seen) <= worse.errors, seen
    assert place.stable_version(moody) == stable
    assert place.condition(moody, "Available")["status"] == "True"


def outcome(place: Place, version: str) -> str:
    """How the rollout of that version ended; empty while it has not."""
    history = place.status(MODEL).get("history", [])
    return next((str(item["result"]) for item in history if item["modelVersion"] == version), "")


def test_an_equal_version_passes_all_guards(place: Place, registry: Registry, moody: str, tmp_path: Path) -> None:
    place.change(moody, replicas=1, rollout=rollout(ERRORS, SLOW, SAME, QUALITY))
    with callers(place, "http", "grpc") as seen:
        version = published(registry, "equal", tmp_path)
        until(120, f"version {version} is promoted", lambda: outcome(place, version), lambda: place.status(moody))

    status = place.status(moody)
    assert outcome(place, version) == "Promoted", status
    assert {item["guard"]: item["verdict"] for item in status["analysis"]}.keys() == {
        "errors",
        "slow",
        "same",
        "quality",
    }
    assert all(item["canaryRequests"] >= QUICK["minRequests"] for item in status["analysis"])
    assert {key.split(" ")[-1] for key in seen} == {"right"}, seen


def test_without_traffic_it_waits_and_says_so(place: Place, registry: Registry, moody: str, tmp_path: Path) -> None:
    place.change(moody, rollout=rollout(ERRORS))
    version = published(registry, "equal", tmp_path)
    message = until(
        90,
        "it says what it waits for",
        lambda: found if "errors: 0 of 30 requests" in (found := place.status(moody)["message"]) else "",
        lambda: place.status(moody),
    )
    assert "step 2 of 3: 50 %" in message
    canary = place.status(moody)["canary"]["revision"]
    place.kubectl("annotate", "--overwrite", "mdep", moody, f"moorage.dev/command=promote@{canary}/1")
    until(60, "it is promoted by hand", lambda: outcome(place, version) == "Promoted", lambda: place.status(moody))
