"""Engines run a loaded model. Each loads from the artifacts' folder and turns arrays into a prediction; nothing else.

onnxruntime   ONNX graphs            torch    exported programs (torch.export)
pyfunc        everything else that MLflow can load: loading runs code that came with the model, so it must be allowed
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moorage_runtime import errors, mlmodel
from moorage_runtime.codecs import answers, arrays
from moorage_runtime.codecs import signature as signatures

AUTO = "auto"


@dataclass(frozen=True)
class ModelFiles:
    """All that an engine needs to know to load."""

    folder: Path
    described: mlmodel.MLmodel
    signature: signatures.Signature
    device: str
    allow_pickle: bool
    threads: int


class Engine(Protocol):
    """A loaded model. `predict` is called from several threads at once."""

    name: str

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        """May raise anything: the caller answers 500."""


def load(files: ModelFiles, engine: str) -> Engine:
    """Raises `errors.LoadError`. `engine` is `auto` or an engine's name."""
    name = _chosen(files, engine)
    _refuse_code(files, name)
    module = _LIBRARIES[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise errors.EngineUnavailable(
            f"this image has no {module}, which the engine {name} needs: set spec.runtime.engine: {name}"
            " to get the image that has it, or spec.runtime.image to one of your own"
        ) from error
    loader: Callable[[ModelFiles], Engine] = importlib.import_module(f"moorage_runtime.engines.{name}").load
    return loader(files)


def exported_program(files: ModelFiles) -> Path | None:
    """Where MLflow puts a torch.export archive, if this model has one."""
    flavor = files.described.flavors.get("pytorch")
    if flavor is None:
        return None
    file = files.folder / str(flavor.get("model_data", "data")) / "model.pt2"
    return file if file.is_file() and file.resolve().is_relative_to(files.folder.resolve()) else None


def _chosen(files: ModelFiles, engine: str) -> str:
    flavors = files.described.flavors
    able = {
        "onnxruntime": "onnx" in flavors,
        "torch": exported_program(files) is not None,
        "pyfunc": "python_function" in flavors,
    }
    if engine != AUTO and able[engine]:
        return engine
    found = next((name for name, is_able in able.items() if is_able), None)
    if engine == AUTO and found:
        return found
    what = f"the engine {engine} can't run" if engine != AUTO else "no engine can run"
    hint = f"set spec.runtime.engine: {found}" if found else "log it as ONNX, as an exported program or as a pyfunc"
    pickled = "a pickled module: log it with serialization_format='pt2', " if "pytorch" in flavors else ""
    raise errors.UnsupportedFlavor(f"{what} this model ({pickled}its flavors are {_listed(flavors)}): {hint}")


def _refuse_code(files: ModelFiles, engine: str) -> None:
    if files.allow_pickle or engine != "pyfunc":
        return
    better = "ONNX (mlflow.onnx.log_model)"
    if "pytorch" in files.described.flavors:
        better = "an exported program (serialization_format='pt2')"
    raise errors.PickleNotAllowed(
        f"loading this model ({_listed(files.described.flavors)}) runs code that came with it: set "
        f"spec.runtime.allowPickle: true if you trust who logged it, or log it as {better}"
    )


def _listed(flavors: Mapping[str, object]) -> str:
    return ", ".join(sorted(flavors)[:10])


_LIBRARIES = {"onnxruntime": "onnxruntime", "torch": "torch", "pyfunc": "mlflow.pyfunc"}
