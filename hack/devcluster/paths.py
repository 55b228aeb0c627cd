"""Where everything lies: the sources in this repository, the built programs by version, and each cluster's state."""

import dataclasses
import os
import pathlib

HACK = pathlib.Path(__file__).resolve().parent.parent
NODE_SOURCES = HACK / "node"


def _home(variable: str, default: str) -> pathlib.Path:
    return pathlib.Path(os.environ.get(variable) or pathlib.Path.home() / default) / "moorage"


def binaries() -> pathlib.Path:
    """Programs built once for all clusters and checkouts of this user, a folder per program and version."""
    return _home("XDG_CACHE_HOME", ".cache") / "bin"


def state_root() -> pathlib.Path:
    return _home("XDG_STATE_HOME", ".local/state")


@dataclasses.dataclass(frozen=True)
class State:
    """One cluster's folder. `record` marks it as ours: nothing is read as a cluster, or deleted, without it."""

    folder: pathlib.Path

    @property
    def record(self) -> pathlib.Path:
        return self.folder / "cluster.json"

    @property
    def process(self) -> pathlib.Path:
        return self.folder / "process.json"

    @property
    def failure(self) -> pathlib.Path:
        return self.folder / "failure.txt"

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.folder / "kubeconfig"

    @property
    def pki(self) -> pathlib.Path:
        return self.folder / "pki"

    @property
    def logs(self) -> pathlib.Path:
        return self.folder / "log"

    @property
    def lock(self) -> pathlib.Path:
        """Beside the folder, not in it: `delete` holds it while the folder goes."""
        return self.folder.with_name(self.folder.name + ".lock")
