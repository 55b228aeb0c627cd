"""Builders for the runtime's tests: a loaded model, a service around it, a client of its app, a model folder by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from moorage_runtime import app, errors, limits, loading, service, telemetry
from moorage_runtime.codecs import answers, arrays, signature

JSON = {"content-type": "application/json"}


def load(folder: Path, **options: Any) -> service.Model:
    """Load a model as `serve` does; every code is trusted unless a test says otherwise."""
    return loading.load(folder, **{"engine": "auto", "device": "auto", "allow_pickle": True, **options})


def a_service(
    name: str = "iris",
    version: str = "3",
    *,
    revision: str = "iris-v3-0123abcd",
    address: str = "127.0.0.1",
    **bounds: Any,
) -> service.ModelService:
    metrics = telemetry.Metrics(model=name, version=version, revision=revision)
    return service.ModelService(
        name=name, version=version, metrics=metrics, bounds=limits.Limits(**bounds), address=address
    )


def a_client(served: service.ModelService) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app.app(served, port=8080))
    return httpx.AsyncClient(transport=transport, base_url="http://runtime")


def columns(**types: str) -> signature.Signature:
    """A tabular signature; a type that ends in `?` is optional."""
    fields = [signature.Field(name, kind.rstrip("?"), required=not kind.endswith("?")) for name, kind in types.items()]
    return signature.Signature(tuple(fields))


def tensors(**shapes: tuple[str, tuple[int, ...]]) -> signature.Signature:
    """A signature of named tensors: name=(type, shape)."""
    return signature.Signature(tuple(signature.Field(name, kind, shape) for name, (kind, shape) in shapes.items()))


def a_model_folder(folder: Path, *, flavors: Mapping[str, Any], inputs: list[dict[str, Any]] | None = None) -> Path:
    """A folder with nothing but an MLmodel file."""
    folder.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {"flavors": dict(flavors)}
    if inputs is not None:
        body["signature"] = {"inputs": json.dumps(inputs), "outputs": None, "params": None}
    (folder / "MLmodel").write_text(yaml.safe_dump(body))
    return folder


class Adder:
    """An engine that answers the sum of each row, or fails, or waits: what the runtime does around an engine is under test."""

    name = "adder"

    def __init__(self, *, fault: Exception | None = None) -> None:
        self.fault = fault

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        if self.fault is not None:
            raise self.fault
        return answers.Prediction({"": np.sum(list(inputs.values()), axis=0)})


class Stuck(Adder):
    """An engine that does not come back before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.let_go = threading.Event()

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        self.started.set()
        self.let_go.wait(30)
        return super().predict(inputs)


def leaves(root: type[errors.RuntimeFault]) -> list[type[Any]]:
    """The errors below this one that are raised themselves."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]


def an_adder(engine: Any | None = None, *names: str) -> service.Model:
    wanted = columns(**dict.fromkeys(names or ("a", "b"), "double"))
    example = {field.name: np.zeros(1) for field in wanted.inputs}
    return service.Model(engine or Adder(), wanted, example)
