"""The files of one model version: listing and downloading them, from the registry's artifact proxy or an object store."""

from __future__ import annotations

import errno
import functools
import logging
import posixpath
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests

from moorage_runtime import errors, manifest, registry

T = TypeVar("T")

logger = logging.getLogger(__name__)

ATTEMPTS = 3
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file, or a folder in a listing; `path` is relative to the model, `size` in bytes, None where the store does not tell."""

    path: str
    size: int | None
    is_folder: bool


class Store(Protocol):
    """Where one version's files lie; paths are relative to it. Every method may be called from several threads."""

    def list(self, folder: str) -> list[RemoteFile]: ...

    def download(self, path: str, folder: Path) -> None: ...


def open_store(uri: str, server: registry.Registry) -> Artifacts:
    """The files at a URI that `Registry.source` gave."""
    proxied = server.proxied_path(uri)
    where = registry.shown(uri)
    return Artifacts(ObjectStore(uri) if proxied is None else Proxy(server, proxied), where)


class Artifacts:
    """The files of one version, with errors that say what to do."""

    def __init__(self, store: Store, where: str) -> None:
        self._store = store
        self._where = where

    def files(self) -> list[RemoteFile]:
        """Every file, with a path that stays inside the model's folder."""
        found = list(self._walk(""))
        if not found:
            raise errors.ArtifactMissing(f"there are no files at {self._where}: they were deleted, or never uploaded")
        return found

    def download(self, path: str, folder: Path) -> None:
        """Download one file to `folder/path`."""
        self._try(path, lambda: self._store.download(path, folder))

    def _walk(self, folder: str) -> Iterator[RemoteFile]:
        for each in self._try("the list of its files", lambda: self._store.list(folder)):
            manifest.refuse_unsafe_path(each.path)
            if each.is_folder:
                yield from self._walk(each.path)
            else:
                yield each

    def _try(self, what: str, action: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return self._translating(what, action)
            except (errors.FetchFailed, errors.RegistryUnreachable) as error:
                logger.warning("attempt %d of %d: %s", attempt, ATTEMPTS, error)
            time.sleep(0.5 * attempt)
        return self._translating(what, action)

    def _translating(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except Exception as error:
            raise self._translated(error, what) from error

    def _translated(self, error: Exception, what: str) -> errors.FetchError:
        causes = list(_chain(error))
        if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
            return errors.DiskFull("the model does not fit on the disk of this node: free some, or use a larger one")
        if any(isinstance(cause, ImportError) for cause in causes):
            return errors.FetchFailed(
                f"this image has no client for {self._where}: use the MLflow server's artifact proxy, or an image with it"
            )
        status = next((status for cause in causes if (status := _status(cause))), 0)
        if status in (401, 403):
            return errors.ArtifactUnauthorized(
                f"the artifact store refuses the credentials ({status}) for {self._where}: check the credentials Secret"
            )
        if status == 404:
            return errors.ArtifactMissing(f"{what} is not at {self._where}: the model's files were deleted or moved")
        if status >= 500 or any(registry.is_silence(cause) for cause in causes):
            return errors.RegistryUnreachable(f"no answer from the artifact store at {self._where} for {what}")
        return errors.FetchFailed(f"downloading {what} from {self._where} failed ({type(error).__name__})")


class Proxy:
    """The tracking server's own artifact proxy, `mlflow-artifacts:/`."""

    def __init__(self, server: registry.Registry, root: str) -> None:
        self._server = server
        self._root = root

    def list(self, folder: str) -> list[RemoteFile]:
        answer = self._server.get(registry.ARTIFACT_PROXY, path=posixpath.join(self._root, folder)).json()
        return [
            RemoteFile(
                path=posixpath.join(folder, each["path"]),
                size=int(each["file_size"]) if "file_size" in each else None,
                is_folder=each["is_dir"],
            )
            for each in answer.get("files", [])
        ]

    def download(self, path: str, folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        url = posixpath.join(registry.ARTIFACT_PROXY, self._root, path)
        with self._server.get(url) as response, target.open("wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)


class ObjectStore:
    """S3, GCS or Azure by MLflow's own clients, whose import takes seconds: only a version that lies there pays for it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def list(self, folder: str) -> list[RemoteFile]:
        return [
            RemoteFile(info.path, info.file_size, info.is_dir)
            for info in self._repository.list_artifacts(folder or None)
        ]

    def download(self, path: str, folder: Path) -> None:
        self._repository.download_artifacts(path, dst_path=str(folder))

    @functools.cached_property
    def _repository(self) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: PLC0415  # see above

        return get_artifact_repository(self._uri)


def _status(error: BaseException) -> int:
    if isinstance(error, requests.RequestException):
        return registry.status_of(error)
    response: Any = getattr(error, "response", None)  # botocore's, a dictionary
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
