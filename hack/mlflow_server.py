"""A real MLflow server (SQLite, artifact proxy) for tests and benchmarks, on a loopback port, without and with basic-auth.

It starts and stops one program and publishes model folders the way `log_model` does. Which models are published, and
what is asked of the registry, is the caller's business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devcluster import console

ADMIN = "admin"
ADMIN_PASSWORD = "a long enough passphrase"  # noqa: S105  # of servers that live for minutes


@dataclass
class MlflowServer:
    """One server over one folder: `stop` and `start` again keep its port and its data, as an outage does."""

    folder: Path
    port: int
    username: str = ""
    password: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a pod that talks to this server has in its environment."""
        credentials = {"MLFLOW_TRACKING_USERNAME": self.username, "MLFLOW_TRACKING_PASSWORD": self.password}
        return {"MLFLOW_TRACKING_URI": self.uri, **(credentials if self.username else {})}

    def client(self) -> Any:
        """MLflow's own client, allowed to do everything; its credentials are in its URI, not in the environment."""
        from mlflow import MlflowClient  # noqa: PLC0415  # takes seconds to import, and most tests need none

        login = f"{self.username}:{self.password.replace(' ', '%20')}@" if self.username else ""
        uri = f"http://{login}127.0.0.1:{self.port}"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def publish(self, name: str, model: Path, *, alias: str = "") -> str:
        """Log the model folder, register it as the next version of `name`, set the alias; returns the version."""
        return publish(self.client(), name, model, alias=alias)

    @contextlib.contextmanager
    def running(self) -> Iterator[MlflowServer]:
        """It answers within the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        self.launch()
        self.wait_until_healthy()

    def launch(self) -> None:
        """Without waiting: it takes many seconds until the first answer."""
        users = f"sqlite:///{self.folder / 'users.db'}"
        (self.folder / "basic_auth.ini").write_text(f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {users}\n")
        environment = {
            **os.environ,
            "MLFLOW_AUTH_ADMIN_USERNAME": self.username or ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password or ADMIN_PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for tests",
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a second set of processes that no test needs
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 110
        while not self._is_healthy():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise console.Failure(
                    "MLflow did not start:\n" + console.last_lines((self.folder / "server.log").read_text())
                )
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(
            ProcessLookupError
        ):  # whoever of its session is left: it does not end all its children
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None

    def _command(self) -> list[str]:
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        command = [sys.executable, "-m", "mlflow", "server", "--serve-artifacts"]
        command += ["--app-name", "basic-auth"] if self.username else []
        return command + [word for option in options.items() for word in option]

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:  # noqa: S310  # http, loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def publish(client: Any, name: str, model: Path, *, alias: str = "") -> str:
    """See `MlflowServer.publish`; `client` is an `MlflowClient` of any server."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    run = client.create_run(experiment_id="0")
    logged = client.create_logged_model("0", name=name, source_run_id=run.info.run_id)
    client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, "READY")
    source = logged.artifact_location
    version = client.create_model_version(name, source, run_id=run.info.run_id, model_id=logged.model_id)
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
