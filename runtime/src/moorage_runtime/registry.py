"""All of the runtime's MLflow I/O: which files a model version has, and downloading them. Only `fetch` imports it.

The registry is hostile input: it names URIs, and this module sends credentials only to the tracking server itself and to
the object stores that the pod was given credentials for. It never opens a local path that the registry names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from moorage_runtime import errors, manifest

T = TypeVar("T")

OBJECT_STORES = ("s3", "gs", "abfs", "abfss", "wasbs")
ARTIFACT_PROXY = "/api/2.0/mlflow-artifacts/artifacts/"

ASKING_SECONDS = 8.0
"""How long to go on asking a registry that does not answer: the kubelet starts the container again, with its own backoff."""

_INDIRECTIONS = 3


@dataclass(frozen=True)
class RemoteFile:
    path: str
    size: int | None


class Registry:
    """One tracking server; its credentials are in this process' environment, where MLflow's client looks for them."""

    def __init__(self, uri: str) -> None:
        if not uri.startswith(("http://", "https://")):
            raise errors.UsageError("MLFLOW_TRACKING_URI must be the http:// or https:// address of an MLflow server")
        self._uri = uri.rstrip("/")
        self._client = mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def version_of_alias(self, name: str, alias: str) -> str:
        version = self._ask(lambda: self._client.get_model_version_by_alias(name, alias), f"{name}@{alias}")
        return str(version.version)

    def source(self, name: str, version: str) -> str:
        """The URI of the version's artifacts, allowed and with no more indirection in it."""
        what = f"{name} version {version}"
        uri: str = self._ask(lambda: self._client.get_model_version_download_uri(name, version), what)
        for _ in range(_INDIRECTIONS):
            if not uri.startswith("models:/"):
                return self._allowed(uri)
            uri = self._follow(uri, what)
        raise errors.SourceRefused(f"the artifacts of {what} are a chain of models:/ URIs: register the version again")

    def _follow(self, uri: str, what: str) -> str:
        target = uri.removeprefix("models:/").strip("/")
        if target.startswith("m-") and "/" not in target:
            return str(self._ask(lambda: self._client.get_logged_model(target), what).artifact_location)
        name, _, version = target.rpartition("/")
        if not name or not version.isdecimal():
            raise errors.SourceRefused(f"{what} is stored at {_shown(uri)}: register a version with its files")
        return str(self._ask(lambda: self._client.get_model_version_download_uri(name, version), what))

    def _allowed(self, uri: str) -> str:
        parsed = urllib.parse.urlsplit(uri)
        own = urllib.parse.urlsplit(self._uri)
        climbs = ".." in urllib.parse.unquote(urllib.parse.unquote(parsed.path)).replace("\\", "/").split("/")
        same_server = parsed.netloc in ("", own.netloc)
        is_proxy = parsed.scheme == "mlflow-artifacts" and same_server
        is_proxy = is_proxy or uri.startswith(self._uri + ARTIFACT_PROXY)
        if climbs or parsed.query or parsed.fragment or not (is_proxy or parsed.scheme in OBJECT_STORES):
            raise errors.SourceRefused(
                f"the artifacts lie at {_shown(uri)}, where a registry may not send a pod: "
                "use the server's artifact proxy (mlflow-artifacts:/) or s3, gs, abfss or wasbs"
            )
        return uri

    def _ask(self, question: Callable[[], T], what: str) -> T:
        """Answers no come at once; silence is asked again, with short pauses, until `ASKING_SECONDS` are over."""
        deadline = time.monotonic() + ASKING_SECONDS
        pause = 0.25
        while True:
            try:
                with _http(timeout=3, retries=0):
                    return question()
            except Exception as error:
                fault = self._translated(error, what)
                if not isinstance(fault, errors.RegistryUnreachable) or time.monotonic() + pause > deadline:
                    raise fault from error
            time.sleep(pause)
            pause *= 2

    def _translated(self, error: Exception, what: str) -> errors.FetchError:
        status = _http_status(error)
        if status in (401, 403):
            return errors.RegistryUnauthorized(
                f"the registry {self._uri} refuses the credentials ({status}): check the Secret that "
                "spec.model.registry.credentialsSecret names (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN)"
            )
        if status == 404:
            return errors.ModelVersionNotFound(
                f"the registry {self._uri} has no {what}: check the name and the version"
            )
        if any(isinstance(cause, requests.exceptions.SSLError) for cause in _chain(error)):
            return errors.RegistryUnreachable(
                f"the certificate of the registry at {self._uri} is not trusted: give its CA as the registry's caBundle"
            )
        if status >= 500 or _is_silence(error):
            return errors.RegistryUnreachable(
                f"no answer from the registry at {self._uri}: check that it runs and that this pod may connect to it"
            )
        return errors.FetchFailed(f"the registry {self._uri} can't say where {what} is ({type(error).__name__})")


class Artifacts:
    """The files at one allowed URI. Every method may be called from several threads."""

    def __init__(self, uri: str, tracking_uri: str) -> None:
        self._shown = _shown(uri)
        try:
            self._store = get_artifact_repository(uri, tracking_uri=tracking_uri, registry_uri=tracking_uri)
        except (ImportError, MlflowException) as error:
            raise self._no_client() from error

    def list(self) -> list[RemoteFile]:
        """Every file, with a path that stays inside the model's folder."""
        with _http(timeout=30, retries=3), self._translating("the list of its files"):
            found = list(self._walk(""))
        if not found:
            raise errors.ArtifactMissing(f"there are no files at {self._shown}: they were deleted, or never uploaded")
        return found

    def download(self, path: str, folder: Path) -> None:
        """Download one file to `folder/path`."""
        with self._translating(path):
            self._store.download_artifacts(path, dst_path=str(folder))

    def _walk(self, folder: str) -> Iterator[RemoteFile]:
        for info in self._store.list_artifacts(folder or None):
            manifest.refuse_unsafe_path(info.path)
            if info.is_dir:
                yield from self._walk(info.path)
            else:
                yield RemoteFile(info.path, info.file_size)

    @contextlib.contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        try:
            yield
        except errors.FetchError:
            raise
        except Exception as error:
            raise self._translated(error, what) from error

    def _translated(self, error: Exception, what: str) -> errors.FetchError:
        if any(isinstance(cause, ImportError) for cause in _chain(error)):
            return self._no_client()
        status = _http_status(error)
        full = any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in _chain(error))
        if full:
            return errors.DiskFull("the model does not fit on the disk of this node: free some, or use a larger one")
        if status in (401, 403):
            return errors.ArtifactUnauthorized(
                f"the artifact store refuses the credentials ({status}) for {self._shown}: check the credentials Secret"
            )
        if status == 404:
            return errors.ArtifactMissing(f"{what} is not at {self._shown}: the model's files were deleted or moved")
        if _is_silence(error):
            return errors.RegistryUnreachable(f"no answer from the artifact store at {self._shown} for {what}")
        return errors.FetchFailed(f"downloading {what} from {self._shown} failed ({type(error).__name__})")

    def _no_client(self) -> errors.FetchError:
        return errors.FetchFailed(
            f"this image has no client for {self._shown}: use the MLflow server's artifact proxy, or an image with it"
        )


@contextlib.contextmanager
def downloading() -> Iterator[None]:
    """Around downloads: a read may pause for long, and a broken connection is tried again."""
    with _http(timeout=60, retries=3):
        yield


@contextlib.contextmanager
def _http(*, timeout: int, retries: int) -> Iterator[None]:
    # MLflow's client takes these from the environment only, and reads them at each request.
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _http_status(error: Exception) -> int:
    """The code that a server answered with, or 0 where none did."""
    for cause in _chain(error):
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return int(cause.response.status_code)
        response: Any = getattr(cause, "response", None)  # botocore's, a dictionary
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if isinstance(error, MlflowException) and not _is_silence(error):
        return int(error.get_http_status_code())
    return 0


def _is_silence(error: Exception) -> bool:
    kinds = (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError)
    return any(isinstance(cause, kinds) for cause in _chain(error)) or "timeout exception" in str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _shown(uri: str) -> str:
    """The URI without what could be a secret in it."""
    parsed = urllib.parse.urlsplit(uri)
    return (
        f"{parsed.scheme}://{parsed.hostname or ''}{parsed.path}"[:300]
        if parsed.netloc
        else uri.split("?", maxsplit=1)[0][:300]
    )
