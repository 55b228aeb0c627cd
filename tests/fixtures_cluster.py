"""A real API server for the tests marked `cluster`: the one of $KUBECONFIG, else the one that `hack/cluster --name test up` starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
START_CLUSTER = """set -eu
hack/cluster --name test up --audit --gpus 4 >&2
eval "$(hack/cluster --name test env)"
printf "%s\\n%s" "$KUBECONFIG" "$PATH"
"""


@dataclass(frozen=True)
class Api:
    """How to reach it; `kubectl` is for what the operator itself has no right to do."""

    kubeconfig: str
    path: str

    def environment(self) -> dict[str, str]:
        """For a program that is to use it."""
        return os.environ | {"KUBECONFIG": self.kubeconfig, "PATH": self.path}

    def program(self, name: str = "kubectl") -> str:
        found = shutil.which(name, path=self.path)
        if found is None:
            pytest.fail(f"{name} is not on PATH: `hack/cluster up`, then `eval $(hack/cluster env)`")
        return found

    def run(self, *command: str, stdin: str = "", seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """kubectl or another program, which may fail."""
        return subprocess.run(
            [self.program(command[0]), *command[1:]], input=stdin, env=self.environment(), capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip

    def hack(self, script: str, *arguments: str) -> str:
        """What one of the project's own scripts prints."""
        done = subprocess.run(
            [f"hack/{script}", *arguments], cwd=REPOSITORY, env=self.environment(), stdout=subprocess.PIPE, text=True,
            timeout=1500, check=True,
        )  # fmt: skip
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str = "", seconds: float = 60) -> str:
        done = self.run("kubectl", *arguments, stdin=stdin, seconds=seconds)
        if done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubeconfig_of(self, token: str, file: Path) -> str:
        """A kubeconfig for the same server and another user."""
        settings = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        settings["users"] = [{"name": user["name"], "user": {"token": token}} for user in settings["users"]]
        file.write_text(json.dumps(settings))
        return str(file)


@pytest.fixture(scope="session")
def api() -> Api:
    found = Api(os.environ["KUBECONFIG"], os.environ["PATH"]) if "KUBECONFIG" in os.environ else _started()
    found.kubectl("get", "--raw", "/readyz")
    return found


@pytest.fixture(scope="module")
def namespace(api: Api) -> Iterator[str]:
    """A fresh one, gone after the module."""
    name = f"moorage-test-{uuid.uuid4().hex[:8]}"
    api.kubectl("create", "namespace", name)
    yield name
    api.kubectl("delete", "namespace", name, "--wait=false")


def _started() -> Api:
    done = subprocess.run(
        ["bash", "-c", START_CLUSTER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=1800, check=False
    )
    if done.returncode:
        pytest.fail("there is no cluster: set KUBECONFIG to one, or see above why `hack/cluster up` could not start it")
    kubeconfig, path = done.stdout.split("\n", 1)
    return Api(kubeconfig, path)
