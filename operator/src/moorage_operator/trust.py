"""TLS contexts that follow their files: the cluster's authority, or a client's certificate, may be replaced while the process runs."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class FollowingContext(ssl.SSLContext):
    """Each new connection is made by a context of the files as they are then; connections that are open stay so.

    `make` reads the files. The kubelet replaces a mounted ConfigMap's files by moving a link, so that none is ever half written.
    """

    _make: Callable[[], ssl.SSLContext]
    _files: tuple[str, ...]
    _seen: Stamp
    _current: ssl.SSLContext

    def __new__(cls, make: Callable[[], ssl.SSLContext], *files: str) -> FollowingContext:
        self: FollowingContext = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._make, self._files = make, files
        self._seen, self._current = _stamp(files), make()
        return self

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """How asyncio begins a connection."""
        self._follow()
        return self._current.wrap_bio(*arguments, **options)

    def _follow(self) -> None:
        try:
            stamp = _stamp(self._files)
            if stamp != self._seen:
                self._current = self._make()
                self._seen = stamp
                log.info("%s changed: new connections follow", " or ".join(self._files))
        except (OSError, ssl.SSLError) as error:
            log.warning("%s can't be used, what was read before is kept: %s", " or ".join(self._files), error)


def _stamp(files: tuple[str, ...]) -> Stamp:
    found = [os.stat(file) for file in files]  # noqa: PTH116  # follows links, and a path may be one of bytes
    return tuple((item.st_ino, item.st_mtime_ns, item.st_size) for item in found)
