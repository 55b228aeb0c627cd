"""A registry: what the benchmarks do in it, and one on this machine, whose versions have no files: nothing fetches them."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlflow_server
from devcluster import console

ALIAS = "champion"


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


@contextmanager
def served(models: int) -> Iterator[Mlflow]:
    """A server with `models` registered models, `bench-0` and so on, one version each."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-mlflow-"))
        with console.step("MLflow starts"):
            server = mlflow_server.MlflowServer(Path(folder), mlflow_server.free_port())
            stack.enter_context(server.running())
        mlflow = Mlflow(server.uri)
        for number in range(models):
            mlflow.register(f"bench-{number}")
            mlflow.set_alias(f"bench-{number}", mlflow.add_version(f"bench-{number}"))
        yield mlflow
