"""Whatever MLflow can load as a pyfunc: scikit-learn, XGBoost, LightGBM, a user's own PythonModel. Loading runs the model's code."""

from __future__ import annotations

import logging
import os
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays
from moorage_runtime.codecs import signature as signatures
from moorage_runtime.engines import ModelFiles


class PyfuncEngine:
    name = "pyfunc"

    def __init__(self, model: Any, signature: signatures.Signature) -> None:
        self._model = model
        self._signature = signature

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        return _prediction(self._model.predict(self._data(inputs)))

    def _data(self, inputs: arrays.Arrays) -> Any:
        fields = self._signature.inputs
        if self._signature.is_tabular:
            return pd.DataFrame({field.name or 0: inputs[field.name] for field in fields if field.name in inputs})
        if len(fields) == 1 and not fields[0].name:
            return inputs[""]
        return dict(inputs)


def load(files: ModelFiles) -> PyfuncEngine:
    _use_device(files.device)
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns of every version that differs from training
    try:
        model = mlflow.pyfunc.load_model(str(files.folder), suppress_warnings=True)
    except ModuleNotFoundError as error:
        raise errors.EngineUnavailable(
            f"the model needs the Python package {error.name}, which this image lacks: set spec.runtime.engine: torch for"
            " PyTorch models, or spec.runtime.image to an image with it"
        ) from error
    return PyfuncEngine(model, files.signature)


def _use_device(device: str) -> None:
    """Only MLflow's PyTorch models can be told; for the others a GPU would be a promise that nobody keeps."""
    if device == "auto":
        return
    if device == "cuda" and not _torch_has_gpu():
        raise errors.DeviceUnavailable(
            "the engine pyfunc uses a GPU for PyTorch models only, and torch finds none: set spec.runtime.device: auto"
        )
    os.environ["MLFLOW_DEFAULT_PREDICTION_DEVICE"] = device


def _torch_has_gpu() -> bool:
    try:
        import torch  # noqa: PLC0415  # not in every image
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _prediction(result: Any) -> answers.Prediction:
    if isinstance(result, pd.DataFrame):
        return answers.Prediction({str(name): _column(result[name]) for name in result.columns}, is_table=True)
    if isinstance(result, dict):
        return answers.Prediction({str(name): _array(value) for name, value in result.items()})
    return answers.Prediction({"": _array(result)})


def _column(series: pd.Series[Any]) -> np.ndarray[Any, Any]:
    return np.asarray(series.to_numpy())


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, pd.Series):
        return _column(value)
    if hasattr(value, "toarray"):  # a sparse matrix
        return np.asarray(value.toarray())
    if isinstance(value, list) and any(isinstance(item, str | dict | list) or item is None for item in value):
        array = np.empty(len(value), dtype=object)
        array[:] = value
        return array
    return np.asarray(value)
