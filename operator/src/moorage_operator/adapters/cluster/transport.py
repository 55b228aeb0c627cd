"""One call to the API server: its credentials, its deadlines, its failure as one of our errors.

No message holds a header, a request body or a credential: only what was asked for and the server's own sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import ConfigException

from moorage_operator import errors, trust
from moorage_operator.adapters.cluster import configuration
from moorage_operator.core.kinds import Kind

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"

_NAMESPACE_TERMINATING = "NamespaceTerminating"  # the cause of the admission plugin NamespaceLifecycle
_MESSAGE_LIMIT = 1000
_NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ConfigException)


Observe = Callable[[str, str, str], None]
"""Called after each request with its verb, the plural of its kind, and the HTTP code of the answer (empty without one)."""


@dataclass(frozen=True)
class Call:
    """One request; `verb` is Kubernetes' own word for it, `name` the object's, empty for a list."""

    verb: str
    kind: Kind
    name: str
    method: str
    path: str
    content_type: str = JSON
    body: Any = None
    writes: bool = False

    @property
    def what(self) -> str:
        """It in an error: a verb and an object."""
        return f"{self.verb} {self.name or self.kind.plural}"


class Transport:
    """One connection pool to one API server."""

    def __init__(
        self, access: configuration.Access, *, timeout_seconds: float, connect_seconds: float, observe: Observe
    ) -> None:
        self._access = access
        self._observe = observe
        self._rest = _client(access.configuration)
        # `connect` also bounds the wait for a free connection: a write may not linger between its fence and the wire.
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, connect=connect_seconds, sock_connect=connect_seconds
        )

    async def send(self, call: Call) -> Any:
        """The decoded answer; a `ClusterError` for anything but a 2xx."""
        code = ""
        try:
            response = await self._request(call, self._timeout)
            code = str(response.status)
            data = await response.read()
        except TimeoutError as error:
            raise errors.Unreachable(f"{call.what}: the API server did not answer in time") from error
        except _NETWORK_ERRORS as error:
            raise errors.Unreachable(f"{call.what}: {_cut(str(error)) or type(error).__name__}") from error
        finally:
            self._observe(call.verb, call.kind.plural, code)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _error(call, response, data)
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise errors.Unreachable(f"{call.what}: the answer is not JSON", status=response.status) from error

    async def stream(self, call: Call, *, timeout_seconds: float) -> AsyncGenerator[bytes]:
        """The lines of an answer that takes its time, as they come; its end is the end, its failure a `ClusterError`."""
        timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, connect=self._timeout.connect, sock_connect=self._timeout.sock_connect
        )
        try:
            async with self._opened(call, timeout) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise _error(call, response, await response.read())
                async for line in response.response.content:
                    yield line
        except TimeoutError as error:
            raise errors.Unreachable(f"{call.what}: the API server fell silent") from error
        except (*_NETWORK_ERRORS, ValueError) as error:  # ValueError: a line that is longer than any object
            raise errors.Unreachable(f"{call.what}: {_cut(str(error)) or type(error).__name__}") from error

    @contextlib.asynccontextmanager
    async def _opened(self, call: Call, limits: aiohttp.ClientTimeout) -> AsyncIterator[RESTResponse]:
        response = await self._request(call, limits)
        try:
            yield response
        finally:
            # At once: a polite end of TLS waits for the server's, which can be longer than this event loop lives.
            connection = response.response.connection
            if connection and connection.transport:
                connection.transport.abort()
            response.response.close()

    async def refresh_credentials(self) -> None:
        await self._access.refresh()

    async def close(self) -> None:
        await self._rest.close()

    async def _request(self, call: Call, limits: aiohttp.ClientTimeout) -> RESTResponse:
        settings = self._access.configuration
        headers = {"Content-Type": call.content_type, "Accept": JSON, "User-Agent": "moorage-operator"}
        token = await settings.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token.strip()
        async with asyncio.timeout(limits.total):
            return await self._rest.request(
                call.method,
                settings.host + call.path,
                headers=headers,
                body=call.body,
                _request_timeout=limits,
            )


class _Cause(msgspec.Struct):
    field: str = ""
    reason: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] | None = None
    name: str = ""
    kind: str = ""


class _Status(msgspec.Struct):
    """The part of the server's answer to a refused call that we use."""

    message: str = ""
    details: _Details | None = None


def _client(settings: Configuration) -> RESTClientObject:
    client = RESTClientObject(settings)
    files = [file for file in (settings.ssl_ca_cert, settings.cert_file, settings.key_file) if file]
    if files:
        client.ssl_context = trust.FollowingContext(lambda: RESTClientObject(settings).ssl_context, *files)
    return client


def _error(call: Call, response: RESTResponse, data: bytes) -> errors.ClusterError:
    status: int = response.status
    refusal = _refusal(data)
    details = refusal.details or _Details()
    message = f"{call.what}: {_cut(refusal.message) or response.reason or status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return errors.Throttled(message, status=status, retry_after=_seconds(response.headers.get("Retry-After")))
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and _is_stale(call, details):
        return errors.Conflict(f"{call.what}: the live object is no longer the one that was meant", status=status)
    is_gone = status == HTTPStatus.NOT_FOUND and details.kind == "namespaces"
    if is_gone or any(cause.reason == _NAMESPACE_TERMINATING for cause in details.causes or ()):
        return errors.NamespaceTerminating(message, status=status)
    return _class(call, status)(message, status=status)


def _class(call: Call, status: int) -> type[errors.ClusterError]:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return errors.Unreachable
    if status == HTTPStatus.GONE and call.verb == "watch":
        return errors.Expired
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return errors.Forbidden
    if status == HTTPStatus.CONFLICT:
        return errors.AlreadyExists if call.verb == "create" else errors.Conflict
    return errors.Invalid


def _is_stale(call: Call, details: _Details) -> bool:
    """Two conflicts that Kubernetes answers with 422.

    A JSON patch that does not fit (a `test` failed, a path is gone) has no details at all, a refused object always has;
    an apply with another object's uid is told that `metadata.uid` is immutable.
    """
    if call.content_type == JSON_PATCH:
        return not details.name and not details.causes
    return any(cause.field == "metadata.uid" for cause in details.causes or ())


def _refusal(data: bytes) -> _Status:
    """Empty for a body that is no Status: a proxy's error page is not shown to users."""
    try:
        return msgspec.json.decode(data, type=_Status)
    except msgspec.MsgspecError:
        return _Status()


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdecimal() else 1.0
