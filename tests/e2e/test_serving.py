"""The main job: a ModelDeployment of each engine becomes Ready and answers, with what its registry has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from installation import RIGHT
from mlflow_in_cluster import Registry
from place import Place, a_model, key_of

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
INFER = "/v2/models/{model}/infer"


def deploy(place: Place, example: str) -> Any:
    """As its README says; returns the example's request."""
    place.apply(yaml.safe_load((EXAMPLES / example / "modeldeployment.yaml").read_text()))
    place.wait_ready(example)
    return json.loads((EXAMPLES / example / "request.json").read_text())


def test_a_scikit_learn_model_answers_by_pyfunc(place: Place) -> None:
    request = deploy(place, "iris")

    assert place.ask("iris", "/predict", request)["predictions"] == [0, 2]
    split = {"columns": list(request["rows"][0]), "data": [list(row.values()) for row in request["rows"]]}
    assert place.ask("iris", "/invocations", {"dataframe_split": split})["predictions"] == [0, 2]


def test_an_onnx_model_answers_by_onnxruntime_in_the_open_inference_protocol(place: Place) -> None:
    request = deploy(place, "digits-onnx")
    pixels = request["inputs"][0]
    tensor = {"name": "input", "shape": [1, 64], "datatype": "FP32", "data": pixels}

    metadata = place.ask("digits-onnx", "/v2/models/digits-onnx")
    tensor["name"] = metadata["inputs"][0]["name"]
    outputs = place.ask("digits-onnx", INFER.format(model="digits-onnx"), {"inputs": [tensor]})["outputs"]

    assert {item["name"]: item["data"] for item in outputs}["label"] == [0]
    assert place.ask("digits-onnx", "/invocations", request)["predictions"]["label"] == [0]


@pytest.mark.torch
def test_an_exported_program_answers_by_torch(place: Place, registry: Registry) -> None:
    registry.train("digits-torch")
    request = deploy(place, "digits-torch")

    [scores] = place.ask("digits-torch", "/invocations", request)["predictions"]

    assert scores.index(max(scores)) == 0


def test_all_children_belong_to_the_model_deployment_and_are_what_docs_say(place: Place) -> None:
    place.apply(a_model("small", replicas=2))
    place.wait_ready("small")
    [stable] = {place.status("small")["stable"]["revision"]}

    found = {key_of(item) for item in place.children("small")}
    assert found == {
        ("ControllerRevision", stable),
        ("ConfigMap", stable),
        ("Deployment", stable),
        ("Service", stable),
        ("PodDisruptionBudget", stable),
        ("Service", "small"),
    }
    for item in place.children("small"):
        [owner] = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("ModelDeployment", "small", True)


def test_status_and_columns_say_what_runs(place: Place) -> None:
    place.apply(a_model("told", alias="champion"))
    place.wait_ready("told")
    status = place.status("told")

    assert status["model"]["version"] == "1"
    assert status["model"]["source"]
    assert status["stable"]["digest"].startswith("sha256:")
    assert status["observedGeneration"] == place.model("told")["metadata"]["generation"]
    heads, row = place.kubectl("get", "mdep", "told").splitlines()
    assert heads.split()[:2] == ["NAME", "READY"]
    assert row.split()[:2] == ["told", "True"]


def test_two_registries_with_different_credentials_serve_at_once(place: Place, registry: Registry) -> None:
    registry.publish_behind_login("guarded")
    secret = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a long enough passphrase"}
    place.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": secret},
        a_model("open"),
        a_model("closed", version="1")
        | {
            "spec": {
                "model": {
                    "name": "guarded",
                    "version": "1",
                    "registry": {"name": "secured", "credentialsSecret": "login"},
                }
            }
        },
    )

    place.wait_ready("open", "closed")

    [pod] = place.pods("closed")
    [serve] = pod["spec"]["containers"]
    assert not [item for item in serve.get("env", []) if "PASSWORD" in item["name"]], "serve needs no credentials"
    assert secret["MLFLOW_TRACKING_PASSWORD"] not in json.dumps([place.model("closed"), place.find("events"), pod])
    assert RIGHT not in json.dumps(place.model("closed"))


def test_the_documentation_page_is_served(place: Place) -> None:
    place.apply(a_model("paged"))
    place.wait_ready("paged")

    assert place.ask("paged", "/openapi.json")["info"]["title"]
