"""A real API server for the tests marked `cluster`: the one of $KUBECONFIG, else the one that `hack/cluster --name test up` starts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

REPOSITORY = Path(__file__).parent.parent
MODEL_DEPLOYMENT = "modeldeployments.moorage.dev"
FOR_TESTS = "moorage.dev/for-tests"
"""Label of what tests make outside of namespaces, and what would be in everybody's way."""
LEFTOVERS = ("moorage-e2e-", "moorage-test-")
"""What the names begin with of all namespaces that tests make, and of what they make beside them."""
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

    @property
    def is_users_own(self) -> bool:
        """Not made by hack/cluster, which can then neither disturb it nor give it images or nodes."""
        return "a cluster of yours" in self.hack("cluster", "status")

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
def api() -> Iterator[Api]:
    found = Api(os.environ["KUBECONFIG"], os.environ["PATH"]) if "KUBECONFIG" in os.environ else _started()
    found.kubectl("get", "--raw", "/readyz")
    with _running_file(found).open("w") as running:
        if _is_alone(running):
            _remove_leftovers(found)
        fcntl.flock(running, fcntl.LOCK_SH)
        yield found


def _running_file(api: Api) -> Path:
    """Every run of the tests on that cluster holds a lock of it, which ends with the run however that ends."""
    key = hashlib.sha256(str(Path(api.kubeconfig).resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"moorage-tests-{key}.lock"


def _is_alone(running: IO[str]) -> bool:
    try:
        fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_leftovers(api: Api) -> None:
    """Of a run that was killed: its operator would work on what this one makes, and its models fill the node."""
    api.kubectl("delete", "apiservice", f"--selector={FOR_TESTS}")
    text = api.run("helm", "list", "--all-namespaces", "--all", "--filter=^moorage$", "--output=json").stdout
    for release in json.loads(text or "[]"):
        if release["namespace"].startswith(LEFTOVERS):
            api.run("helm", "uninstall", "moorage", "--namespace", release["namespace"], "--wait", seconds=200)
            api.kubectl("delete", "crd", MODEL_DEPLOYMENT, "--ignore-not-found", seconds=120)
    for kind in ("validatingwebhookconfiguration", "namespace", "persistentvolume"):
        names = [
            name for name in api.kubectl("get", kind, "-o", "name").split() if name.split("/")[1].startswith(LEFTOVERS)
        ]
        if names:
            api.kubectl("delete", *names, "--ignore-not-found", seconds=300)


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
