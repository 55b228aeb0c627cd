"""What this machine has and lacks to run a cluster, found out without changing anything."""

import os
import pathlib
import platform
import shutil

from devcluster import console, paths, tools, versions


def search_path() -> str:
    """PATH, and the folders of administration programs that a user's PATH may lack."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def has_docker() -> bool:
    """An engine that answers: the client alone is of no use."""
    return console.succeeds(["docker", "info"])


def has_kind() -> bool:
    return shutil.which("kind") is not None


def can_have_node() -> bool:
    return platform.system() == "Linux" and os.geteuid() == 0


def cni_plugins() -> pathlib.Path | None:
    folders = (pathlib.Path("/usr/lib/cni"), pathlib.Path("/opt/cni/bin"))
    return next((folder for folder in folders if (folder / "bridge").exists()), None)


def missing_for_node() -> list[str]:
    """The rows of packages.txt for the node that are absent here, and Go if something is still to be built."""
    rows = [line.split() for line in (paths.HACK / "packages.txt").read_text().splitlines()]
    lacking = [f"{program} (package {package})" for program, package in _of_node(rows) if not _present(program)]
    if shutil.which("go") is None and not tools.built(*tools.NODE):
        lacking.append(f"go {versions.GO} or newer (https://go.dev/doc/install)")
    return lacking


def _of_node(rows: list[list[str]]) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in rows if row and row[0] == "node"]


def _present(program: str) -> bool:
    if program.endswith("/cni/bridge"):
        return cni_plugins() is not None
    return shutil.which(program, path=search_path()) is not None
