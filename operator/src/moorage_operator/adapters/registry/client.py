"""One request to one registry: MLflow's own REST store, with the edges that a hostile or sick server needs.

MLflow's defaults retry for minutes, follow redirects, read an answer of any size, take a `.netrc` and send one
registry's cookies to another on the same host. Here a request goes to the declared host only, has a
deadline, and is sent once more only after a lost connection. No text of the server leaves this module: only its
status and MLflow's error code do.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import requests
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds, http_request
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

from moorage_operator import errors
from moorage_operator.adapters import access
from moorage_operator.adapters.registry.declaration import RegistryDeclaration

MAX_BODY = 4 * 2**20
CHUNK = 2**16

NOT_THERE_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"})
"""MLflow answers a missing alias and an impossible name with the last one."""

CHANGE = "change this model: grant it EDIT in MLflow, or declare the registry with readOnly: true"


class NotThere(Exception):
    """MLflow has nothing by the name that was asked for."""


class RegistryClient(RestStore):  # type: ignore[misc]  # mlflow ships no types
    """MLflow's calls for the time of one question. Raises `RegistryError` and `NotThere`, nothing else."""

    def __init__(self, declaration: RegistryDeclaration, *, deadline: float) -> None:
        credentials, bundle = declaration.credentials(), declaration.how.ca_bundle
        host = MlflowHostCreds(
            declaration.tracking_uri,
            username=credentials.username,
            password=credentials.password,
            token=credentials.token,
            server_cert_path=str(bundle) if bundle else None,
        )
        super().__init__(lambda: host)
        self._registry = f"registry '{declaration.name}'"
        self._deadline = deadline

    def _call_endpoint(self, api: Any, json_body: str | None, *_: Any, **__: Any) -> Any:
        """Every method of `RestStore` comes through here."""
        endpoint, method = self._get_endpoint_from_method(api)
        with self._in_own_words():
            status, body = self._exchange(endpoint, method, json.loads(json_body or "{}"), most=MAX_BODY)
            if status == requests.codes.ok:
                answer = self._get_response_from_method(api)
                parse_dict(json.loads(body), answer)
                return answer
        raise self._refusal(status, body, is_read=method == "GET")

    def file(self, endpoint: str, *, most: int) -> bytes:
        """What the server has there, if it is no more than so many bytes."""
        with self._in_own_words():
            status, body = self._exchange(endpoint, "GET", {}, most=most)
        if status == requests.codes.ok:
            return body
        raise self._refusal(status, body, is_read=True)

    @contextlib.contextmanager
    def _in_own_words(self) -> Iterator[None]:
        try:
            yield
        except errors.RegistryError:
            raise
        except MlflowException as error:
            raise self._unreachable(_why(error.__context__)) from error
        except (requests.RequestException, OSError) as error:
            raise self._unreachable(_why(error)) from error
        except Exception as error:
            raise self._unreachable("does not answer like MLflow: check its trackingURI") from error

    def _exchange(self, endpoint: str, method: str, arguments: dict[str, Any], *, most: int) -> tuple[int, bytes]:
        response = http_request(
            self.get_host_creds(),
            endpoint,
            method,
            max_retries=1,  # for a kept connection that the server has just closed
            retry_codes=frozenset(),
            respect_retry_after_header=False,
            timeout=self._time_left(),
            raise_on_status=False,
            allow_redirects=False,
            stream=True,
            auth=_forget_cookies,
            **{"params" if method == "GET" else "json": arguments},
        )
        with response:
            return response.status_code, self._read(response, most)

    def _read(self, response: requests.Response, most: int) -> bytes:
        body = b""
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            self._time_left()
            body += chunk
            if len(body) > most:
                raise self._unreachable(f"sent more than {most >> 10} KiB for one answer")
        return body

    def _time_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._unreachable("did not answer in time")
        return left

    def _refusal(self, status: int, body: bytes, *, is_read: bool) -> Exception:
        if status == requests.codes.unauthorized:
            return errors.RegistryUnauthorized(
                f"{self._registry} does not accept the operator's credentials: check the keys of its existingSecret"
            )
        if status == requests.codes.forbidden and body.startswith(b"Invalid Host header"):
            return self._unreachable(
                "refuses the host name of its trackingURI: start MLflow with --allowed-hosts and that name in it"
            )
        if status == requests.codes.forbidden:
            what = "read this model: grant it READ in MLflow" if is_read else CHANGE
            return errors.RegistryUnauthorized(f"{self._registry} forbids the operator's user to {what}")
        if _error_code(body) in NOT_THERE_CODES:
            return NotThere()
        return self._unreachable(_status_text(status))

    def _unreachable(self, why: str) -> errors.RegistryUnreachable:
        return errors.RegistryUnreachable(f"{self._registry} {why}")


def _forget_cookies(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """As `auth` of a request it also keeps `requests` from looking into a `.netrc`."""
    request.headers.pop("Cookie", None)
    return request


def _error_code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error_code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _status_text(status: int) -> str:
    if status in range(300, 400):
        return f"redirects to another address (HTTP {status}): set its trackingURI to the final one"
    if status == requests.codes.too_many:
        return "asks to slow down (HTTP 429)"
    if status in range(500, 600):
        return f"has an error of its own (HTTP {status}): see the log of the MLflow server"
    return f"does not answer like MLflow (HTTP {status}): check its trackingURI"


def _why(cause: BaseException | None) -> str:
    if isinstance(cause, requests.exceptions.SSLError):
        return access.NOT_TRUSTED
    reason = getattr(cause.args[0], "reason", None) if cause and cause.args else None
    if isinstance(reason, NameResolutionError):
        return "has a trackingURI whose host name can't be resolved"
    if isinstance(reason, ConnectTimeoutError | ReadTimeoutError) and not isinstance(reason, NewConnectionError):
        return "did not answer in time"
    if isinstance(cause, requests.ConnectionError):
        return "can't be reached: is MLflow running, and does a NetworkPolicy let the operator through?"
    if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
        return access.NO_BUNDLE
    return "broke off its answer"
