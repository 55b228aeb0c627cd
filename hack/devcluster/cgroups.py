"""The control group that holds a node's pods, the same folder in every hierarchy, and its removal."""

import os
import pathlib
import time

from devcluster import console


def _hierarchies() -> list[pathlib.Path]:
    """Version 1 has one mount per controller, version 2 one for all; a mixed machine's kubelet uses the former."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    first = [pathlib.Path(mount[1]) for mount in mounts if mount[2] == "cgroup"]
    return first or [pathlib.Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]


def create(name: str) -> None:
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def remains(name: str) -> list[pathlib.Path]:
    return [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).exists()]


def remove(name: str, deadline_seconds: float = 20.0) -> None:
    """Deepest first. A group stays busy for a moment after its last process has ended."""
    deadline = time.monotonic() + deadline_seconds
    while left := remains(name):
        for top in left:
            _remove_tree(top)
        if time.monotonic() > deadline:
            raise console.Failure(f"These control groups are still in use: {', '.join(map(str, left))}")
        time.sleep(0.02)


def _remove_tree(top: pathlib.Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            pathlib.Path(folder).rmdir()
        except OSError:  # busy: the next round sees it again
            return
