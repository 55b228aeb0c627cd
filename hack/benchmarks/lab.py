"""The cluster that is measured: made by `hack/cluster` for the benchmark alone, and made anew for each run.

A new one, because what is left of a run (etcd's history, caches, garbage being collected) would slow down the next.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import console

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
FAKE_NODES = 20


@dataclass(frozen=True)
class Lab:
    """How to reach the cluster, and a folder for files and logs of this benchmark."""

    name: str
    kubeconfig: str
    path: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"KUBECONFIG": self.kubeconfig, "PATH": self.path}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        program = shutil.which("kubectl", path=self.path) or "kubectl"
        return console.run([program, *arguments], env=self.environment, stdin=stdin)


@contextmanager
def new(name: str, *, fake_nodes: int = FAKE_NODES) -> Iterator[Lab]:
    """A cluster without any past, with the CRD and an empty namespace. It is deleted afterwards."""
    cluster(name, "delete")
    cluster(name, "up")
    try:
        if fake_nodes:
            cluster(name, "kwok", "--nodes", str(fake_nodes))
        with tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder:
            yield _prepared(name, Path(folder))
    finally:
        cluster(name, "delete")


def cluster(name: str, *arguments: str) -> str:
    """`hack/cluster`, whatever KUBECONFIG says: this is never somebody's own cluster."""
    return console.run([str(ROOT / "hack/cluster"), "--name", name, *arguments], env=_of_nobody())


def _of_nobody() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}


def _prepared(name: str, folder: Path) -> Lab:
    program = f'eval "$({ROOT}/hack/cluster --name {name} env)"; printf "%s\\n%s" "$KUBECONFIG" "$PATH"'
    kubeconfig, path = console.run(["bash", "-c", program], env=_of_nobody()).split("\n", 1)
    lab = Lab(name, kubeconfig, path, folder)
    lab.kubectl("apply", "--server-side", "--filename", str(ROOT / "crds"))
    lab.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.moorage.dev", "--timeout=30s")
    lab.kubectl("get", "modeldeployments", "--all-namespaces")  # established, it may yet answer "too many requests"
    lab.kubectl("create", "namespace", NAMESPACE)
    return lab
