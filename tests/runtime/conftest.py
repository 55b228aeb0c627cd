"""Small real models, saved by MLflow itself, once a session; and the runtime's app around one of them."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import mlflow.onnx
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pytest
import skl2onnx
import xgboost
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from runtime_builders import a_client, a_service, load

IRIS, SPECIES = load_iris(return_X_y=True, as_frame=True)
IRIS = IRIS.astype("float32")
MATRIX = IRIS.to_numpy()
CLASSIFIER = LogisticRegression(max_iter=500).fit(IRIS, SPECIES)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`sklearn` and `xgboost` take four named columns, `onnx` takes a matrix, `onnx-columns` the columns."""
    root = tmp_path_factory.mktemp("models")
    folders = {name: root / name for name in ("sklearn", "xgboost", "onnx", "onnx-columns")}
    columns = {"signature": infer_signature(IRIS, CLASSIFIER.predict(IRIS)), "input_example": IRIS.head(3)}
    outputs = {
        "label": CLASSIFIER.predict(IRIS),
        "probabilities": CLASSIFIER.predict_proba(IRIS).astype("float32"),
    }
    graph = skl2onnx.to_onnx(CLASSIFIER, MATRIX[:1], options={"zipmap": False})
    with warnings.catch_warnings(action="ignore"):  # what MLflow and its libraries say while saving is not under test
        mlflow.sklearn.save_model(CLASSIFIER, folders["sklearn"], pip_requirements=[], **columns)
        booster = xgboost.XGBClassifier(n_estimators=3).fit(IRIS, SPECIES)
        mlflow.xgboost.save_model(booster, folders["xgboost"], pip_requirements=[], model_format="json", **columns)
        signature = infer_signature(MATRIX, outputs)
        mlflow.onnx.save_model(
            graph, folders["onnx"], signature=signature, input_example=MATRIX[:3], pip_requirements=[]
        )
        mlflow.onnx.save_model(graph, folders["onnx-columns"], pip_requirements=[], **columns)
    return folders


@pytest.fixture(scope="session")
def exported_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch module as MLflow stores an exported program; its only layer doubles the first feature."""
    torch = pytest.importorskip("torch")
    import mlflow.pytorch  # noqa: PLC0415  # needs torch

    layer = torch.nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    folder = tmp_path_factory.mktemp("torch") / "model"
    signature = infer_signature(MATRIX, np.zeros((2, 1), "float32"))
    with warnings.catch_warnings(action="ignore"):  # what MLflow and torch say while exporting is not under test
        mlflow.pytorch.save_model(
            layer.eval(),
            folder,
            signature=signature,
            input_example=MATRIX[:2],
            serialization_format="pt2",
            pip_requirements=[],
        )
    return folder


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[..., Awaitable[httpx.AsyncClient]]]:
    """A client of the app with a model from a folder, loaded."""
    opened: list[httpx.AsyncClient] = []

    async def client(folder: Path, **options: Any) -> httpx.AsyncClient:
        served = a_service()
        await served.load(lambda: load(folder, **options))
        opened.append(a_client(served))
        return opened[-1]

    yield client
    for each in opened:
        await each.aclose()
