"""One writer at a time: two runs of a command wait for each other instead of undoing each other's work."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from devcluster import console


@contextlib.contextmanager
def held(path: pathlib.Path, waiting_for: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, waiting_for)
    try:
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def _acquire(path: pathlib.Path, waiting_for: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with console.step(f"wait for {waiting_for}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # the holder before us removed the file: another may hold its successor


def _is_still(path: pathlib.Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
