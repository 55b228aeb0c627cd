"""A version whose columns have other names is put back before its first pod, or where only a pod can tell them before its first request;
told to, the rollout goes on all the same."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import load
from mlflow_in_cluster import Registry
from place import Place, a_model, until

ROLLOUT: dict[str, Any] = {"steps": [{"setWeight": 50}, {"pause": {"duration": 2}}], "scaleDownDelaySeconds": 2}
METRICS = "from urllib import request; print(request.urlopen('http://127.0.0.1:8082/metrics').read().decode())"
REQUESTS = re.compile(r"^moorage_requests_total\{[^}]*\} ([0-9.]+)", re.MULTILINE)

Publish = Callable[..., str]


@pytest.fixture(scope="module")
def publish(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """`publish(model, first=…, output=…)`: the digits as 64 columns, of which the first has that name; gives the version's number.
    With `is_long` its MLmodel is larger than what the operator reads.

    The graph has one input, which takes all columns by their order, so it serves whatever they are called.
    """
    files = registry.download("digits-onnx", tmp_path_factory.mktemp("files"))

    def do(model: str, *, first: str = "pixel_0", output: str = "label", is_long: bool = False) -> str:
        names = [first, *(f"pixel_{number}" for number in range(1, 64))]
        inputs = [{"type": "float", "name": name, "required": True} for name in names]
        outputs = [{"type": "tensor", "name": output, "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
        folder = Path(tmp_path_factory.mktemp(model)) / model
        shutil.copytree(files, folder)
        described = yaml.safe_load((folder / "MLmodel").read_text())
        described.pop("saved_input_example_info", None)
        described["signature"] = {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}
        (folder / "MLmodel").write_text(yaml.safe_dump(described) + "# a word\n" * 8000 * is_long)
        return registry.publish(model, folder)

    return do


def requests_of(place: Place, name: str, revision: str) -> float:
    """How many requests its pods have counted, once they are ready."""
    of_revision = f"--selector=moorage.dev/revision={revision}"
    place.kubectl("wait", "--for=condition=Ready", "pod", of_revision, "--timeout=40s", seconds=50)
    texts = [
        place.kubectl("exec", pod["metadata"]["name"], "--", "python", "-c", METRICS)
        for pod in place.pods(name, revision)
    ]
    return sum(float(count) for text in texts for count in REQUESTS.findall(text))


DIFFERENCES = (
    "input `pixel_0` is gone",
    "input `brightness` is new and required",
    "output `label` is gone",
    "set rollout.signature: any to go on all the same",
)


def pods_ever(place: Place, revision: str) -> set[str]:
    """Everything that was ever said to happen to a pod of a revision, or to what makes its pods."""
    events = place.find("events")
    return {item["reason"] for item in events if item["involvedObject"]["name"].startswith(revision)}


def test_a_renamed_column_is_put_back_without_a_pod_and_any_lets_it_through(place: Place, publish: Publish) -> None:
    publish("columns")
    place.apply(a_model("columns", "columns", replicas=2, rollout=ROLLOUT))
    place.wait_ready("columns")
    stable = place.status("columns")["stable"]["revision"]
    version = publish("columns", first="brightness", output="digit")
    put_back = place.wait_for_reason("columns", "RolledBack")

    [rejected] = place.status("columns")["rejected"]
    assert (rejected["modelVersion"], rejected["reason"]) == (version, "SignatureIncompatible")
    assert [part for part in DIFFERENCES if part not in put_back["message"]] == []
    assert place.condition("columns", "Available")["status"] == "True"
    assert place.get("deployment", rejected["revision"]) == {}
    assert pods_ever(place, stable) >= {"Scheduled", "ScalingReplicaSet"}
    assert pods_ever(place, rejected["revision"]) == set()

    place.change("columns", rollout={"signature": "any"})
    until(
        120,
        "it goes on",
        lambda: place.stable_version("columns") == version,
        lambda: place.status("columns"),
    )


def test_where_only_a_pod_can_read_it_one_pod_is_started_and_gets_no_request(place: Place, publish: Publish) -> None:
    publish("long-columns")
    # Long enough to ask its pods what they were asked.
    rollout = ROLLOUT | {"abortScaleDownDelaySeconds": 60}
    place.apply(a_model("long-columns", "long-columns", replicas=2, rollout=rollout))
    place.wait_ready("long-columns")
    stable = place.status("long-columns")["stable"]["revision"]
    with load.on(place, "long-columns", "digits-onnx", pause=0.05):
        version = publish("long-columns", first="brightness", output="digit", is_long=True)
        put_back = place.wait_for_reason("long-columns", "RolledBack")

        [rejected] = place.status("long-columns")["rejected"]
        assert (rejected["modelVersion"], rejected["reason"]) == (version, "SignatureIncompatible")
        assert [part for part in DIFFERENCES if part not in put_back["message"]] == []
        pods = place.pods("long-columns", rejected["revision"])
        assert len(pods) == 1, "it had a second pod before its signature was known"
        assert requests_of(place, "long-columns", rejected["revision"]) == 0
        assert requests_of(place, "long-columns", stable) > 0


def test_a_version_with_the_same_columns_follows_by_itself(place: Place, publish: Publish) -> None:
    publish("same-columns")
    place.apply(a_model("same-columns", "same-columns", rollout=ROLLOUT))
    place.wait_ready("same-columns")
    version = publish("same-columns")
    until(
        120,
        "it is stable",
        lambda: place.stable_version("same-columns") == version,
        lambda: place.status("same-columns"),
    )
