"""The folder that the router's two containers share: what HAProxy starts with, always the last state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moorage_operator.router.settings import Layout


@dataclass(frozen=True)
class Files:
    """HAProxy's configuration and its map."""

    config: str
    splits: str


def write(layout: Layout, files: Files) -> None:
    """Each whole or not at all; the configuration last, because HAProxy waits for it."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    _replace(layout.map_file, files.splits)
    _replace(layout.config_file, files.config)


def _replace(file: Path, text: str) -> None:
    # Not flushed to the disk: the folder lives as long as the pod, and a node that loses power loses the pod.
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)
