"""Real MLflow servers of this machine: one that asks nobody for credentials, and one with a login."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mlflow_server import ADMIN, ADMIN_PASSWORD, MlflowServer, free_port


@dataclass(frozen=True)
class _Servers:
    plain: MlflowServer
    with_login: MlflowServer


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Servers]:
    """Both launched with the first that is asked for: they start side by side, for most of half a minute."""
    plain = MlflowServer(tmp_path_factory.mktemp("mlflow"), free_port())
    folder = tmp_path_factory.mktemp("mlflow-login")
    with_login = MlflowServer(folder, free_port(), username=ADMIN, password=ADMIN_PASSWORD)
    with contextlib.ExitStack() as stack:
        for server in (plain, with_login):
            stack.callback(server.stop)
            server.launch()
        yield _Servers(plain, with_login)


@pytest.fixture(scope="session")
def mlflow_server(_servers: _Servers) -> MlflowServer:
    """A server that asks nobody for credentials."""
    _servers.plain.wait_until_healthy()
    return _servers.plain


@pytest.fixture(scope="session")
def mlflow_server_with_login(_servers: _Servers) -> MlflowServer:
    """A server with basic-auth: only `username` and `password` of it get an answer."""
    _servers.with_login.wait_until_healthy()
    return _servers.with_login
