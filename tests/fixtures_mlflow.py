"""Real MLflow servers of this machine: one that asks nobody for credentials, and one with a login."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlflow_server import ADMIN, ADMIN_PASSWORD, MlflowServer, free_port


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that asks nobody for credentials."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow"), free_port()).running() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server_with_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server with basic-auth: only `username` and `password` of it get an answer."""
    folder = tmp_path_factory.mktemp("mlflow-login")
    with MlflowServer(folder, free_port(), username=ADMIN, password=ADMIN_PASSWORD).running() as server:
        yield server
