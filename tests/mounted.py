"""A Secret as the kubelet mounts it for the operator: a directory with a file for each key."""

from __future__ import annotations

from pathlib import Path


def secret(directory: Path, **keys: str) -> Path:
    directory.mkdir(exist_ok=True)
    for key, value in keys.items():
        (directory / key).write_text(value)
    return directory


class Rotated:
    """What it says now, behind the link that the kubelet swaps."""

    def __init__(self, folder: Path, **keys: str) -> None:
        self.directory = folder / "mounted"
        self.directory.mkdir()
        self._generations = 0
        self.say(**keys)

    def say(self, **keys: str) -> None:
        self._generations += 1
        data = self.directory / "..data"
        data.unlink(missing_ok=True)
        data.symlink_to(secret(self.directory / f"..{self._generations}", **keys))
