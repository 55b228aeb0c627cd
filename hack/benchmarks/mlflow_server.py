"""A real MLflow server on this machine, with registered models that have versions and aliases, but no files: nothing fetches them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster import console

ALIAS = "champion"
START_SECONDS = 120


class Mlflow:
    """What the benchmarks do in a registry, by its REST API. `uri` is its tracking URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def register(self, model: str) -> None:
        self.call("registered-models/create", {"name": model})

    def add_version(self, model: str, *, source: str = "") -> str:
        body = {"name": model, "source": source or f"s3://bench/{model}"}
        return str(self.call("model-versions/create", body)["model_version"]["version"])

    def set_alias(self, model: str, version: str) -> None:
        self.call("registered-models/alias", {"name": model, "alias": ALIAS, "version": version})

    def copy_version(self, model: str) -> str:
        """The same files as the newest version has, as one more version."""
        found = self.call("registered-models/get-latest-versions", {"name": model})["model_versions"][0]
        kept = {"name": model, "source": found["source"], "model_id": found["source"].removeprefix("models:/")}
        return str(self.call("model-versions/create", kept)["model_version"]["version"])

    def call(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - http, this machine's own server
            f"{self.uri}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise console.Failure(f"MLflow refuses {path}: {error.read().decode()[:500]}") from error

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:  # noqa: S310 - as above
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def served(models: int) -> Iterator[Mlflow]:
    """A server with `models` registered models, `bench-0` and so on, one version each."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-mlflow-") as folder:
        port = free_port()
        process = _start(Path(folder), port)
        try:
            mlflow = Mlflow(f"http://127.0.0.1:{port}")
            _wait(mlflow, process, Path(folder))
            for number in range(models):
                mlflow.register(f"bench-{number}")
                mlflow.set_alias(f"bench-{number}", mlflow.add_version(f"bench-{number}"))
            yield mlflow
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # nothing in it is to be kept
            process.wait()


def free_port() -> int:
    """A port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts"]
    command += [f"--artifacts-destination={folder / 'artifacts'}"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def _wait(mlflow: Mlflow, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with console.step("MLflow starts"):
        while not mlflow.is_healthy():
            if process.poll() is not None or time.monotonic() > deadline:
                raise console.Failure(
                    "MLflow did not start:\n" + console.last_lines((folder / "server.log").read_text())
                )
            time.sleep(0.1)
