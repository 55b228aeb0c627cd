"""Which files a fetched model consists of: path, size and SHA-256 of each, and one digest over them all.

`fetch` writes it, `serve` reads it. Only plain files count: a link in a model is refused, because it can point anywhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from moorage_runtime import errors

ARTIFACTS = "artifacts"
FILE = "manifest.json"


@dataclass(frozen=True)
class Entry:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of one model version, sorted by path."""

    model: str
    version: str
    files: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """Over the files alone: the same files have the same digest, whatever the model is called."""
        listed = orjson.dumps([asdict(entry) for entry in self.files], option=orjson.OPT_SORT_KEYS)
        return "sha256:" + hashlib.sha256(listed).hexdigest()


def scan(folder: Path, *, model: str = "", version: str = "") -> Manifest:
    """Hash every file below the folder."""
    entries = [Entry(path, file.stat().st_size, _sha256(file)) for path, file in _plain_files(folder)]
    return Manifest(model, version, tuple(sorted(entries, key=lambda entry: entry.path)))


def refuse_unsafe_path(path: str) -> None:
    """A path that a registry names must stay inside the model's folder."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts or "." in parts or "" in parts:
        raise errors.SourceRefused(
            f"the model lists a file {path!r} that would lie outside of its folder: log it again"
        )


def save(manifest: Manifest, model_dir: Path) -> None:
    """Replace the file in one step: a reader sees a whole manifest or none."""
    body = {**asdict(manifest), "digest": manifest.digest}
    partial = model_dir / (FILE + ".partial")
    partial.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
    partial.replace(model_dir / FILE)


def load(model_dir: Path) -> Manifest | None:
    """The manifest of an earlier fetch, or None where there is none that can be read."""
    try:
        body = orjson.loads((model_dir / FILE).read_bytes())
        files = tuple(Entry(**entry) for entry in body["files"])
        return Manifest(body["model"], body["version"], files)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def total_size(files: Sequence[Entry]) -> int:
    return sum(entry.size for entry in files)


def _plain_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            file = Path(root, name)
            path = file.relative_to(folder).as_posix()
            status = file.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise errors.SourceRefused(
                    f"{path!r} in the model is a link or no plain file: log the model without it"
                )
            yield path, file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
