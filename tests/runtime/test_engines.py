"""The engines on small real models: what they answer, and what they refuse to load."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from moorage_runtime import errors
from moorage_runtime.codecs import arrays
from moorage_runtime.codecs import signature as signatures
from runtime_builders import a_model_folder, load

FLOWER = [5.1, 3.5, 1.4, 0.2]
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


def a_flower() -> arrays.Arrays:
    return {name: np.array([value], "float32") for name, value in zip(NAMES, FLOWER, strict=True)}


@pytest.mark.parametrize(
    ("name", "engine"), [("sklearn", "pyfunc"), ("xgboost", "pyfunc"), ("onnx-columns", "onnxruntime")]
)
def test_a_model_with_columns_tells_the_species(models: dict[str, Path], name: str, engine: str) -> None:
    model = load(models[name])
    assert model.engine.name == engine
    [label, *_] = model.engine.predict(a_flower()).outputs.values()
    assert label.tolist() == [0]


def test_a_graph_that_takes_a_matrix_gives_its_outputs_by_name(models: dict[str, Path]) -> None:
    outputs = load(models["onnx"]).engine.predict({"": np.array([FLOWER, FLOWER], "float32")}).outputs
    assert outputs["label"].tolist() == [0, 0]
    assert outputs["probabilities"].shape == (2, 3)


def test_an_onnx_model_can_be_served_as_a_pyfunc_too(models: dict[str, Path]) -> None:
    assert load(models["onnx"], engine="pyfunc").engine.name == "pyfunc"


@pytest.mark.torch
def test_an_exported_program_is_run_by_torch(exported_program: Path) -> None:
    model = load(exported_program, allow_pickle=False)
    prediction = model.engine.predict({"": np.array([FLOWER, FLOWER, FLOWER], "float32")})
    assert model.engine.name == "torch"
    assert prediction.outputs[""] == pytest.approx(np.full((3, 1), 10.2), rel=1e-6)


@pytest.mark.torch
def test_an_exported_program_with_a_pickle_in_it_is_refused_before_it_is_read(
    exported_program: Path, tmp_path: Path
) -> None:
    import torch  # noqa: PLC0415  # not everyone has it

    victim = tmp_path / "victim"
    folder = poisoned(exported_program, tmp_path / "model", victim)
    with contextlib.suppress(
        Exception
    ):  # torch itself runs the pickle, whatever it says afterwards: the attack is real
        torch.export.load(folder / "data" / "model.pt2")
    assert victim.exists()
    victim.unlink()
    with pytest.raises(errors.PickleNotAllowed, match="export it again with plain tensors"):
        load(folder, allow_pickle=False)
    assert not victim.exists()


def poisoned(original: Path, folder: Path, victim: Path) -> Path:
    """A copy of the program whose sample inputs are a pickle that makes a file."""
    import torch  # noqa: PLC0415  # not everyone has it

    shutil.copytree(original, folder)
    archive = folder / "data" / "model.pt2"
    with zipfile.ZipFile(archive) as read:
        records = {info.filename: read.read(info) for info in read.infolist()}
    payload = io.BytesIO()
    torch.save(_Touch(victim), payload)
    [inputs] = [name for name in records if "sample_inputs" in name]
    with zipfile.ZipFile(archive, "w") as written:
        for name, content in {**records, inputs: payload.getvalue()}.items():
            written.writestr(name, content)
    return folder


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _that_touches(path: Path) -> bytes:
    stream = io.BytesIO()
    pickle.dump(_Touch(path), stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["sklearn", "xgboost"])
def test_a_pyfunc_needs_leave_to_run_its_code(models: dict[str, Path], name: str) -> None:
    with pytest.raises(errors.PickleNotAllowed, match="allowPickle: true if you trust who logged it"):
        load(models[name], allow_pickle=False)


def test_a_refused_pickle_is_never_opened(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    flavors = {"python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"}, "sklearn": {}}
    folder = a_model_folder(tmp_path / "m", flavors=flavors, inputs=[{"type": "double", "name": "a"}])
    (folder / "model.pkl").write_bytes(_that_touches(victim))
    with pytest.raises(errors.PickleNotAllowed):
        load(folder, allow_pickle=False)
    assert not victim.exists()


def test_a_pickled_torch_module_is_told_how_to_be_logged(tmp_path: Path) -> None:
    flavors = {"python_function": {"loader_module": "mlflow.pytorch"}, "pytorch": {"model_data": "data"}}
    folder = a_model_folder(tmp_path / "m", flavors=flavors, inputs=[{"type": "double", "name": "a"}])
    with pytest.raises(errors.PickleNotAllowed, match="serialization_format='pt2'"):
        load(folder, allow_pickle=False)


def test_a_model_without_a_signature_says_how_to_log_one(tmp_path: Path) -> None:
    with pytest.raises(errors.SignatureMissing, match="infer_signature"):
        load(a_model_folder(tmp_path / "m", flavors={"onnx": {"data": "model.onnx"}}))


def test_a_flavour_that_no_engine_knows_is_named(tmp_path: Path) -> None:
    folder = a_model_folder(tmp_path / "m", flavors={"spark": {}}, inputs=[{"type": "double", "name": "a"}])
    with pytest.raises(errors.UnsupportedFlavor, match="its flavors are spark"):
        load(folder)


def test_an_engine_that_can_not_run_the_model_names_one_that_can(models: dict[str, Path]) -> None:
    with pytest.raises(errors.UnsupportedFlavor, match=r"set spec\.runtime\.engine: onnxruntime"):
        load(models["onnx"], engine="torch")


def test_a_gpu_that_is_not_there_is_said_before_loading(models: dict[str, Path]) -> None:
    with pytest.raises(errors.DeviceUnavailable, match="device: cpu"):
        load(models["onnx"], device="cuda")
    with pytest.raises(errors.DeviceUnavailable, match="PyTorch models only"):
        load(models["sklearn"], device="cuda")


def test_a_model_whose_package_the_image_lacks_is_engine_unavailable(tmp_path: Path) -> None:
    flavors = {"python_function": {"loader_module": "no_such_package", "python_version": "3.11.0"}}
    folder = a_model_folder(tmp_path / "m", flavors=flavors, inputs=[{"type": "double", "name": "a"}])
    with pytest.raises(errors.EngineUnavailable, match="no_such_package"):
        load(folder)


def test_a_graph_that_does_not_fit_its_signature_names_both(tmp_path: Path) -> None:
    folder = a_graph(tmp_path, names=("a", "b"))
    a_model_folder(folder, flavors={"onnx": {"data": "model.onnx"}}, inputs=[tensor("x")])
    with pytest.raises(errors.ModelLoadFailed, match=r"inputs \(x\) are not the graph's \(a, b\)"):
        load(folder)


def test_a_graph_with_inputs_by_name_gets_each_column(tmp_path: Path) -> None:
    folder = a_graph(tmp_path, names=("a", "b"))
    columns = [{"type": "double", "name": name, "required": True} for name in ("b", "a")]
    a_model_folder(folder, flavors={"onnx": {"data": "model.onnx"}}, inputs=columns)
    outputs = load(folder).engine.predict({"a": np.array([1.0]), "b": np.array([2.0])}).outputs
    assert outputs["sum"].tolist() == [[3.0]]


def test_broken_bytes_are_a_failed_load_in_plain_words(tmp_path: Path) -> None:
    folder = a_model_folder(tmp_path / "m", flavors={"onnx": {"data": "model.onnx"}}, inputs=[tensor("x")])
    (folder / "model.onnx").write_bytes(b"\xff\xfe not a graph")
    with pytest.raises(errors.ModelLoadFailed, match="log the model again"):
        load(folder)


def test_a_graph_file_outside_of_the_model_is_refused(tmp_path: Path) -> None:
    folder = a_model_folder(tmp_path / "m", flavors={"onnx": {"data": "../model.onnx"}}, inputs=[tensor("x")])
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(errors.ModelLoadFailed, match="not among the artifacts"):
        load(folder)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "deep/weights", "gone"])
def test_weights_that_are_not_beside_the_graph_are_refused(tmp_path: Path, location: str) -> None:
    folder = a_graph(tmp_path, names=("a",), weights_in=location)
    (tmp_path / "secret").write_bytes(b"\0" * 8)
    a_model_folder(folder, flavors={"onnx": {"data": "model.onnx"}}, inputs=[tensor("a")])
    with pytest.raises(errors.ModelLoadFailed, match="weights in a file that is not beside it"):
        load(folder)


def test_weights_beside_the_graph_are_read(tmp_path: Path) -> None:
    folder = a_graph(tmp_path, names=("a",), weights_in="weights")
    (folder / "weights").write_bytes(np.array([5.0]).tobytes())
    a_model_folder(folder, flavors={"onnx": {"data": "model.onnx"}}, inputs=[tensor("a")])
    outputs = load(folder).engine.predict({"a": np.array([[1.0]])}).outputs
    assert outputs["sum"].tolist() == [[6.0]]


def test_a_model_that_fails_on_its_own_example_does_not_become_ready(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(models["onnx"], folder)
    graph = onnx.load(str(folder / "model.onnx"))
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9
    onnx.save(graph, str(folder / "model.onnx"))
    with pytest.raises(errors.WarmupFailed, match="its own input example"):
        load(folder)


def test_without_an_example_the_model_is_warmed_up_with_zeros(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(models["onnx"], folder)
    (folder / "serving_input_example.json").unlink()
    assert load(folder).example[""].tolist() == [[0.0, 0.0, 0.0, 0.0]]


def tensor(name: str) -> dict[str, Any]:
    return {"type": "tensor", "name": name, "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}


def a_graph(root: Path, *, names: tuple[str, ...], weights_in: str = "") -> Path:
    """A graph that adds its inputs, and a constant whose bytes lie in another file if `weights_in` names one."""
    folder = root / "graph"
    folder.mkdir()
    constant = numpy_helper.from_array(np.array([0.0]), "constant")
    if weights_in:
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        for key, value in {"location": weights_in, "length": "8"}.items():
            constant.external_data.add(key=key, value=value)
    inputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in names]
    output = helper.make_tensor_value_info("sum", TensorProto.DOUBLE, [None, 1])
    node = helper.make_node("Sum", [*names, "constant"], ["sum"])
    graph = helper.make_graph([node], "adder", inputs, [output], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def test_a_signature_of_unknown_shape_is_signature_missing() -> None:
    with pytest.raises(errors.SignatureMissing, match="can't be read"):
        signatures.parse({"inputs": [{"nonsense": 1}]})
