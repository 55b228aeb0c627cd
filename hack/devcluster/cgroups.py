"""The control group that holds a node's pods, the same folder in every hierarchy, and its removal."""

import os
import pathlib
import time

from devcluster import console


def _hierarchies(*types: str) -> list[pathlib.Path]:
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    return [pathlib.Path(mount[1]) for mount in mounts if mount[2] in types]


def create(name: str) -> None:
    """Version 1 has one mount per controller, version 2 one for all; where both are mounted, the controllers are in the former."""
    for hierarchy in _hierarchies("cgroup") or _hierarchies("cgroup2"):
        (hierarchy / name).mkdir(exist_ok=True)


def remains(name: str) -> list[pathlib.Path]:
    return [hierarchy / name for hierarchy in _hierarchies("cgroup", "cgroup2") if (hierarchy / name).exists()]


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
