"""Programs made by torch.export, as `mlflow.pytorch.log_model(serialization_format="pt2")` stores them, on CPU or CUDA.

torch.export.load unpickles what the archive calls pickled. So every record is checked first: only tensors and JSON pass.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import pytorch as mlflow_pytorch
from mlflow.exceptions import MlflowException

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays
from moorage_runtime.codecs import signature as signatures
from moorage_runtime.engines import ModelFiles, exported_program


class TorchEngine:
    name = "torch"

    def __init__(self, module: Any, signature: signatures.Signature, device: str) -> None:
        self._module = module
        self._signature = signature
        self._device = device

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        with torch.inference_mode():
            return answers.Prediction(self._named(self._module(*self._tensors(inputs))))

    def _tensors(self, inputs: arrays.Arrays) -> list[Any]:
        if self._signature.is_tabular:  # the columns are the features of one float tensor, as in MLflow's own wrapper
            stacked = np.column_stack(list(inputs.values())).astype(np.float32)
            return [torch.from_numpy(stacked).to(self._device)]
        ordered = (inputs[field.name] for field in self._signature.inputs)
        # torch refuses arrays that it may not write to, and warns; a copy of a request's array costs little.
        return [torch.from_numpy(np.array(array)).to(self._device) for array in ordered]

    def _named(self, result: Any) -> dict[str, np.ndarray[Any, Any]]:
        if isinstance(result, dict):
            return {str(name): _array(tensor) for name, tensor in result.items()}
        tensors = list(result) if isinstance(result, tuple | list) else [result]
        names = [field.name for field in self._signature.outputs]
        if len(names) != len(tensors):
            names = [""] if len(tensors) == 1 else [f"output_{position}" for position in range(len(tensors))]
        return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}


def load(files: ModelFiles) -> TorchEngine:
    archive = exported_program(files)
    if archive is None:
        raise errors.UnsupportedFlavor("the model is no exported program: log it with serialization_format='pt2'")
    device = _device(files.device)
    torch.set_num_threads(files.threads)
    _refuse_pickles(archive)
    program = torch.export.load(str(archive))
    if device != "cpu":
        from torch.export import passes  # noqa: PLC0415  # pulls in the compiler, which a CPU does not need

        program = passes.move_to_device_pass(program, device)
    return TorchEngine(program.module(), files.signature, device)


def _device(wanted: str) -> str:
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise errors.DeviceUnavailable(
            "torch finds no GPU: ask for one in spec.resources, or set spec.runtime.device: cpu"
        )
    return "cuda" if has_gpu and wanted != "cpu" else "cpu"


def _refuse_pickles(archive: Path) -> None:
    # Private, and the only implementation that knows every kind of record of such an archive; a test holds it in place.
    check = mlflow_pytorch._validate_pt2_archive_is_pickle_free  # noqa: SLF001
    try:
        with warnings.catch_warnings(action="ignore"):
            check(str(archive))
    except MlflowException as error:
        raise errors.PickleNotAllowed(
            "the exported program holds pickled objects besides its tensors: export it again with plain tensors only"
        ) from error


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor)
