"""From a folder of artifacts to a model that has answered once: describe → load → warm up. Runs in a thread."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from moorage_runtime import engines, errors, mlmodel, service, threads
from moorage_runtime.codecs import arrays, mlflow
from moorage_runtime.codecs import signature as signatures

logger = logging.getLogger(__name__)


def load(folder: Path, *, engine: str, device: str, allow_pickle: bool) -> service.Model:
    """Raises `errors.LoadError` and nothing else: whatever a library says is in the log, as the error's cause."""
    try:
        described = mlmodel.read(folder)
        signature = signatures.parse(described.signature)
        files = engines.ModelFiles(folder, described, signature, device, allow_pickle, threads.for_each_prediction())
        loaded = engines.load(files, engine)
        example, is_real = _example(folder, described, signature)
        _warm_up(loaded, signature, example, is_real=is_real)
        return service.Model(loaded, signature, example)
    except errors.LoadError:
        raise
    except errors.FetchError as error:
        raise errors.ModelLoadFailed(str(error)) from error
    except Exception as error:
        if _is_out_of_memory(error):
            raise errors.OutOfMemory("the model does not fit in memory: raise spec.resources.limits") from error
        raise errors.ModelLoadFailed(
            f"the model can't be loaded ({type(error).__name__}): the log of the container serve has the reason"
        ) from error


def _example(folder: Path, described: mlmodel.MLmodel, signature: signatures.Signature) -> tuple[arrays.Arrays, bool]:
    """The model's own input example, or zeros where it has none that its signature takes."""
    file = folder / described.example_file
    if described.example_file and file.is_file() and file.resolve().is_relative_to(folder.resolve()):
        try:
            return mlflow.body(signature, orjson.loads(file.read_bytes())), True
        except (errors.RequestError, ValueError):
            logger.warning("the input example does not fit the signature: warming up with zeros")
    return {field.name: _zeros(field) for field in signature.inputs}, False


def _zeros(field: signatures.Field) -> np.ndarray[Any, Any]:
    if field.is_json:
        return arrays.column(field, [[]])
    shape = (1,) if field.shape is None else tuple(1 if size == -1 else size for size in field.shape)
    if field.dtype.kind == "O":
        return np.full(shape, b"" if field.type == "binary" else "", dtype=object)
    return np.zeros(shape, dtype=field.dtype)


def _warm_up(engine: engines.Engine, signature: signatures.Signature, example: arrays.Arrays, *, is_real: bool) -> None:
    """A first prediction is slow, and shows whether there will be any: both before the first request."""
    started = time.monotonic()
    try:
        engine.predict(example)
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        # Made-up text or dates may rightly be refused by a model, its own example and numbers may not.
        if is_real or all(field.dtype.kind in "biuf" for field in signature.inputs):
            what = "its own input example" if is_real else "zeros"
            raise errors.WarmupFailed(
                f"the model fails on {what} ({type(error).__name__}): the log of the container serve has the reason"
            ) from error
        logger.warning("no warm-up: the model has no input example, and refuses made-up values")
        return
    logger.info("warmed up with %s in %.3f s", "its input example" if is_real else "zeros", time.monotonic() - started)


def _is_out_of_memory(error: Exception) -> bool:
    # torch and onnxruntime have kinds of their own, which can't be imported here.
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "Failed to allocate" in str(error)
