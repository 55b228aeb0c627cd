"""A real MLflow server in the cluster, in a namespace of its own, and the models that the end-to-end tests serve from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_server import ADMIN, ADMIN_PASSWORD, publish
from place import Object, Place, ask, until

REPOSITORY = Path(__file__).parent.parent
MANIFEST = REPOSITORY / "hack/mlflow-server/mlflow.yaml"
PORT = 5000
LOGIN = "mlflow-login"

COPY = f"""
import os, sys
import mlflow
here, there, name = sys.argv[1:]
mlflow.set_tracking_uri(here)
folder = mlflow.artifacts.download_artifacts("models:/digits-onnx/1", dst_path="/tmp/copied")
os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = {ADMIN!r}, {ADMIN_PASSWORD!r}
mlflow.set_tracking_uri(there)
client = mlflow.MlflowClient(there, there)
if client.search_registered_models(f"name = '{{name}}'"):
    sys.exit()
client.create_registered_model(name)
run = client.create_run("0")
logged = client.create_logged_model("0", name=name, source_run_id=run.info.run_id)
client.log_model_artifacts(logged.model_id, folder)
client.finalize_logged_model(logged.model_id, "READY")
client.create_model_version(name, logged.artifact_location, run_id=run.info.run_id, model_id=logged.model_id)
client.set_registered_model_alias(name, "champion", "1")
"""
"""Runs in the server's pod: registers a model of one server with the other, which wants a login."""


@dataclass(frozen=True)
class Registry:
    """The server without a login, `mlflow`; `LOGIN` is a second one with other data and a login."""

    place: Place
    url: str
    """For this process."""

    def tracking_uri(self, service: str = "mlflow") -> str:
        """For pods and the operator."""
        return f"http://{service}.{self.place.name}.svc:{PORT}"

    def client(self) -> Any:
        from mlflow import MlflowClient  # noqa: PLC0415  # takes seconds to import

        return MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def train(self, example: str) -> None:
        """Run examples/NAME/train.py: logs the model, registers it, sets the alias `champion`."""
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
        script = REPOSITORY / "examples" / example / "train.py"
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    def copy(self, model: str, *, source: str = "digits-onnx", version: str = "1") -> str:
        """Register the files of a version once more, as the next version of `model`; returns its number."""
        client = self.client()
        if not client.search_registered_models(f"name = '{model}'"):
            client.create_registered_model(model)
        original = client.get_model_version(source, version)
        logged = original.source.removeprefix("models:/")
        made = client.create_model_version(model, original.source, run_id=original.run_id, model_id=logged)
        return str(made.version)

    def download(self, model: str, folder: Path) -> Path:
        """Version 1's files, to change and publish again."""
        [pod] = self.place.find("pods", "app.kubernetes.io/name=mlflow")
        self.place.kubectl("cp", f"{pod['metadata']['name']}:{self.files(model, '1')}", str(folder / model))
        assert (folder / model / "MLmodel").exists()
        return folder / model

    def publish(self, model: str, folder: Path) -> str:
        """A folder as the next version of `model`, and its champion."""
        return publish(self.client(), model, folder, alias="champion")

    def publish_behind_login(self, model: str) -> None:
        """digits-onnx once more, registered as `model` on the server with the login, champion; once is enough."""
        self.in_pod("python", "-W", "ignore", "-c", COPY, f"http://localhost:{PORT}", f"http://{LOGIN}:{PORT}", model)

    def set_alias(self, model: str, version: str, alias: str = "champion") -> None:
        self.client().set_registered_model_alias(model, alias, version)

    def stop(self) -> None:
        self.place.kubectl("scale", "deployment/mlflow", "--replicas=0")
        until(60, "MLflow has ended", lambda: not self.place.find("pods", "app.kubernetes.io/name=mlflow"))

    def start(self) -> None:
        self.place.kubectl("scale", "deployment/mlflow", "--replicas=1")
        self.place.wait_rolled_out("mlflow", seconds=120)

    def in_pod(self, *command: str) -> str:
        """Run a command where the server's data is."""
        return self.place.kubectl("exec", "deployment/mlflow", "--", *command)

    def tamper(self, model: str, version: str = "1", **columns: str) -> None:
        """Write what no API of MLflow takes, straight into its database: a version's status or source."""
        assignments = ", ".join(f"{name} = '{value}'" for name, value in columns.items())
        statement = f"UPDATE model_versions SET {assignments} WHERE name = '{model}' AND version = {version}"  # noqa: S608
        script = f"import sqlite3; db = sqlite3.connect('/data/mlflow.db', timeout=30); db.execute({statement!r}); db.commit()"
        self.in_pod("python", "-c", script)

    def files(self, model: str, version: str) -> str:
        """The folder of a version's artifacts, in the server's pod."""
        source = str(self.client().get_model_version_download_uri(model, version))
        return "/data/artifacts/" + source.removeprefix("mlflow-artifacts:").lstrip("/")


def manifests(place: Place) -> list[Object]:
    """Those of the demo, for this namespace, with a server beside them that wants a login and keeps nothing."""
    text = MANIFEST.read_text().replace("moorage-demo", place.name)
    found: list[Object] = [item for item in yaml.safe_load_all(text) if item]
    copies = [json.loads(json.dumps(item)) for item in found if item["kind"] in ("Service", "Deployment")]
    return [*found, *(_with_login(item) for item in copies)]


def _with_login(item: Object) -> Object:
    item["metadata"]["name"] = LOGIN
    labels = {"app.kubernetes.io/name": LOGIN}
    if item["kind"] == "Service":
        item["spec"]["selector"] = labels
        return item
    item["metadata"]["labels"] = item["spec"]["template"]["metadata"]["labels"] = labels
    item["spec"]["selector"]["matchLabels"] = labels
    pod = item["spec"]["template"]["spec"]
    pod["volumes"][0] = {"name": "data", "emptyDir": {}}
    container = pod["containers"][0]
    del container["volumeMounts"][0]["subPath"]
    pod["securityContext"]["fsGroup"] = 65532
    container["args"] = [*container["args"], "--app-name=basic-auth"]
    container["args"] = [
        argument.replace("=mlflow,mlflow:*,mlflow.*,", f"={LOGIN},{LOGIN}:*,{LOGIN}.*,")
        for argument in container["args"]
    ]
    container["env"] += [
        {"name": "MLFLOW_AUTH_ADMIN_USERNAME", "value": ADMIN},
        {"name": "MLFLOW_AUTH_ADMIN_PASSWORD", "value": ADMIN_PASSWORD},
        {"name": "MLFLOW_FLASK_SERVER_SECRET_KEY", "value": "only for tests"},
    ]
    return item


def is_up(url: str) -> bool:
    try:
        return ask(f"{url}/api/2.0/mlflow/experiments/search?max_results=1") is not None
    except AssertionError as refusal:
        return "401" in str(refusal)
