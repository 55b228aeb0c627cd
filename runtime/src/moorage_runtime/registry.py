"""A client of the five calls of MLflow's REST API that `fetch` needs: what a model version is made of, and where it lies.

Not MLflow's own client, because importing that takes longer than all the rest of a fetch: docs/adr/0004. The registry is
hostile input: it names URIs, and `source` lets none through that would send a pod anywhere but to the tracking server itself
or to an object store. Source of the protocol: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import tempfile
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from moorage_runtime import errors

OBJECT_STORES = ("s3", "gs", "abfs", "abfss", "wasbs")
ARTIFACT_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_MLFLOW_API = "/api/2.0/mlflow"

CONNECTIONS = 8

ASKING_SECONDS = 8.0
"""How long to go on asking a registry that does not answer: the kubelet starts the container again, with its own backoff."""

_CONNECT_SECONDS = 3.0
_READ_SECONDS = 60.0
"""How long an answer may pause, once the registry is known to answer."""

_INDIRECTIONS = 3
_NO_SUCH = (400, 404)
"""MLflow answers 400 to a name, a version or an alias that it does not know or does not like, where it does not answer 404."""


class Registry:
    """One tracking server. Every method may be called from several threads.

    `environment` holds the variables that MLflow's own client knows: user name and password, or a token.
    """

    def __init__(self, uri: str, *, environment: Mapping[str, str], ca_bundle: str = "") -> None:
        if not uri.startswith(("http://", "https://")):
            raise errors.UsageError("MLFLOW_TRACKING_URI must be the http:// or https:// address of an MLflow server")
        self._uri = uri.rstrip("/")
        self._http = _session(environment)
        self._verify = _verification(environment, ca_bundle)

    def version_of_alias(self, name: str, alias: str) -> str:
        what = f"{name}@{alias}"
        return self._ask("/registered-models/alias", what, ("model_version", "version"), name=name, alias=alias)

    def source(self, name: str, version: str) -> str:
        """The URI of the version's artifacts, allowed and with no more indirection in it."""
        what = f"{name} version {version}"
        uri = self._download_uri(name, version, what)
        for _ in range(_INDIRECTIONS):
            if not uri.startswith("models:/"):
                return self._allowed(uri)
            uri = self._follow(uri, what)
        raise errors.SourceRefused(f"the artifacts of {what} are a chain of models:/ URIs: register the version again")

    def proxied_path(self, uri: str) -> str | None:
        """The path of an allowed URI within the server's artifact proxy; None for a URI of an object store."""
        if uri.startswith(self._uri + ARTIFACT_PROXY + "/"):
            return uri.removeprefix(self._uri + ARTIFACT_PROXY).strip("/")
        parsed = urllib.parse.urlsplit(uri)
        return parsed.path.strip("/") if parsed.scheme == "mlflow-artifacts" else None

    def get(self, path: str, /, *, pause_seconds: float = _READ_SECONDS, **query: str) -> requests.Response:
        """One request, whose body is not read yet. Raises `requests.RequestException`, for a bad status too."""
        url = self._uri + urllib.parse.quote(path)
        response = self._http.get(
            url, params=query, timeout=(_CONNECT_SECONDS, pause_seconds), stream=True, verify=self._verify
        )
        try:
            response.raise_for_status()
        except requests.HTTPError:
            response.close()
            raise
        return response

    def _download_uri(self, name: str, version: str, what: str) -> str:
        return self._ask("/model-versions/get-download-uri", what, ("artifact_uri",), name=name, version=version)

    def _follow(self, uri: str, what: str) -> str:
        target = uri.removeprefix("models:/").strip("/")
        if target.startswith("m-") and "/" not in target:
            return self._ask(f"/logged-models/{target}", what, ("model", "info", "artifact_uri"))
        name, _, version = target.rpartition("/")
        if not name or not version.isdecimal():
            raise errors.SourceRefused(f"{what} is stored at {shown(uri)}: register a version with its files")
        return self._download_uri(name, version, what)

    def _allowed(self, uri: str) -> str:
        parsed = urllib.parse.urlsplit(uri)
        own = urllib.parse.urlsplit(self._uri).netloc.rpartition("@")[2]
        climbs = ".." in urllib.parse.unquote(urllib.parse.unquote(parsed.path)).replace("\\", "/").split("/")
        foreign = parsed.scheme == "mlflow-artifacts" and parsed.netloc not in ("", own)
        known = parsed.scheme in OBJECT_STORES or self.proxied_path(uri) is not None
        if climbs or foreign or parsed.query or parsed.fragment or not known:
            raise errors.SourceRefused(
                f"the artifacts lie at {shown(uri)}, where a registry may not send a pod: "
                "use the server's artifact proxy (mlflow-artifacts:/) or s3, gs, abfss or wasbs"
            )
        return uri

    def _ask(self, path: str, what: str, keys: Sequence[str], **query: str) -> str:
        """The string that the answer has at these keys.

        A no is an answer; silence is asked again, with short pauses, until `ASKING_SECONDS` are over.
        """
        deadline = time.monotonic() + ASKING_SECONDS
        pause = 0.25
        while True:
            try:
                left = max(deadline - time.monotonic(), 0.1)
                return _at(keys, self.get(_MLFLOW_API + path, pause_seconds=left, **query).json())
            except requests.RequestException as error:
                fault = self._translated(error, what)
                if not isinstance(fault, errors.RegistryUnreachable) or time.monotonic() + pause > deadline:
                    raise fault from error
            time.sleep(pause)
            pause *= 2

    def _translated(self, error: requests.RequestException, what: str) -> errors.FetchError:
        status = status_of(error)
        if status in (401, 403):
            return errors.RegistryUnauthorized(
                f"the registry {shown(self._uri)} refuses the credentials ({status}): check the Secret that "
                "spec.model.registry.credentialsSecret names (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN)"
            )
        if status in _NO_SUCH:
            return errors.ModelVersionNotFound(
                f"the registry {shown(self._uri)} has no {what}: check the name and the version"
            )
        if isinstance(error, requests.exceptions.SSLError):
            return errors.RegistryUnreachable(
                f"the certificate of the registry at {shown(self._uri)} is not trusted: give its CA as the registry's caBundle"
            )
        if status >= 500 or is_silence(error):
            return errors.RegistryUnreachable(
                f"no answer from the registry at {shown(self._uri)}: check that it runs and that this pod may connect to it"
            )
        return errors.FetchFailed(f"the registry {shown(self._uri)} can't say where {what} is ({type(error).__name__})")


def status_of(error: requests.RequestException) -> int:
    """The code that a server answered with, or 0 where none did."""
    return 0 if error.response is None else error.response.status_code


def is_silence(error: BaseException) -> bool:
    """Nobody answered, or the answer broke off."""
    kinds = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, (*kinds, ConnectionError, TimeoutError))


def shown(uri: str) -> str:
    """The URI without what could be a secret in it."""
    parsed = urllib.parse.urlsplit(uri)
    host = parsed.netloc.rpartition("@")[2]
    return (f"{parsed.scheme}://{host}{parsed.path}" if host else uri.split("?", maxsplit=1)[0])[:300]


def _at(keys: Sequence[str], answer: Any) -> str:
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(answer, str) or not answer:
        raise requests.exceptions.InvalidJSONError("not an answer of an MLflow server")
    return answer


def _session(environment: Mapping[str, str]) -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    token, workspace = environment.get("MLFLOW_TRACKING_TOKEN"), environment.get("MLFLOW_WORKSPACE")
    if user and password:
        session.auth = requests.auth.HTTPBasicAuth(user.encode(), password.encode())
    elif token:
        session.auth = _Bearer(token)
    if workspace:
        session.headers["X-MLFLOW-WORKSPACE"] = workspace
    return session


def _verification(environment: Mapping[str, str], ca_bundle: str) -> bool | str:
    """What requests takes as `verify`; in each request, because one of the session gives way to REQUESTS_CA_BUNDLE."""
    if ca_bundle.strip():
        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
            file.write(ca_bundle)
        return file.name
    return environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")


class _Bearer(requests.auth.AuthBase):
    """As an authentication, not as a header of the session, which a .netrc would override."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
