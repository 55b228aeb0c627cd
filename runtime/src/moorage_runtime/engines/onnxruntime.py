"""ONNX graphs on onnxruntime, CPU or CUDA. The graph is data: nothing of it is unpickled, and its weights stay in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays
from moorage_runtime.codecs import signature as signatures
from moorage_runtime.engines import ModelFiles

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(string)": "object",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(uint8)": "uint8",
}


class OnnxEngine:
    name = "onnxruntime"

    def __init__(self, session: Any, signature: signatures.Signature) -> None:
        self._session = session
        self._tabular = signature.is_tabular
        self._inputs = {node.name: node for node in session.get_inputs()}
        self._outputs = [node.name for node in session.get_outputs()]
        self._single = self._fit(signature)

    def predict(self, inputs: arrays.Arrays) -> answers.Prediction:
        found = self._session.run(self._outputs, self._feed(inputs))
        outputs = {name: _as_array(value) for name, value in zip(self._outputs, found, strict=True)}
        return answers.Prediction(outputs, is_table=self._tabular)

    def _fit(self, signature: signatures.Signature) -> bool:
        """True if the graph's only input takes everything, False if inputs go by name."""
        names = {field.name for field in signature.inputs}
        if names == set(self._inputs):
            return False
        if len(self._inputs) == 1 and (self._tabular or len(names) == 1):
            return True
        raise errors.ModelLoadFailed(
            f"the signature's inputs ({_listed(names)}) are not the graph's ({_listed(self._inputs)}): "
            "log the model with a signature that names the graph's inputs"
        )

    def _feed(self, inputs: arrays.Arrays) -> arrays.Arrays:
        if self._single:
            [node] = self._inputs.values()
            only = np.column_stack(list(inputs.values())) if self._tabular else next(iter(inputs.values()))
            return {node.name: only.astype(_DTYPES[node.type], copy=False)}
        return {name: self._fitted(self._inputs[name], array) for name, array in inputs.items()}

    def _fitted(self, node: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cast = array.astype(_DTYPES[node.type], copy=False)
        # A column is one-dimensional, sklearn-onnx makes an input of [rows, 1] of it.
        return cast.reshape(-1, 1) if self._tabular and len(node.shape) == 2 else cast


def load(files: ModelFiles) -> OnnxEngine:
    graph = files.folder / str(files.described.flavors["onnx"].get("data", "model.onnx"))
    if not graph.resolve().is_relative_to(files.folder.resolve()) or not graph.is_file():
        raise errors.ModelLoadFailed(
            "the MLmodel file names an ONNX file that is not among the artifacts: log it again"
        )
    _refuse_weights_elsewhere(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = files.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings are about optimisations
    session = onnxruntime.InferenceSession(str(graph), options, providers=_providers(files.device))
    if files.device == "cuda" and CUDA not in session.get_providers():
        raise errors.DeviceUnavailable("no usable GPU: onnxruntime fell back to the CPU, see the log for the reason")
    return OnnxEngine(session, files.signature)


def _providers(device: str) -> list[str]:
    available = onnxruntime.get_available_providers()
    if device == "cuda" and CUDA not in available:
        raise errors.DeviceUnavailable(
            "this image's onnxruntime has no CUDA: use the GPU image, or set spec.runtime.device: cpu"
        )
    if device == "cpu" or CUDA not in available:
        return [CPU]
    onnxruntime.preload_dlls()  # CUDA's libraries are packages of their own, where the loader does not look
    return [CUDA, CPU]


def _refuse_weights_elsewhere(graph: Path) -> None:
    """Weights in files of their own must lie beside the graph: a path in a graph is what its author wants it to be."""
    try:
        model = onnx.load(str(graph), load_external_data=False)
    except Exception as error:  # protobuf raises its own kinds
        raise errors.ModelLoadFailed("the ONNX file can't be read: log the model again") from error
    for location in _locations(model):
        file = graph.parent / location
        if location != Path(location).name or file.is_symlink() or not file.is_file():
            raise errors.ModelLoadFailed(
                "the ONNX file has weights in a file that is not beside it: log the model with all its files in one folder"
            )


def _locations(message: Any) -> Iterator[str]:
    """Of every tensor with external data, wherever in the graph, its subgraphs and functions it is."""
    if isinstance(message, onnx.TensorProto):
        for entry in message.external_data:
            if entry.key == "location":
                yield entry.value
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _locations(part)


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    """scikit-learn's classifiers give a list of {class: probability}: a matrix in the order of the classes."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value])
    return np.asarray(value)


def _listed(names: Any) -> str:
    return ", ".join(sorted(name or signatures.ONLY_INPUT for name in names)[:10])
