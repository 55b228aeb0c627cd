"""`ports.Prometheus`: one number for one query, by Prometheus' HTTP API (/api/v1/query)."""

from __future__ import annotations

import math
from http import HTTPStatus

import aiohttp
import msgspec

from moorage_operator import errors
from moorage_operator.adapters import access, web

MOST_BYTES = 2**20
MOST_WORDS = 300
UNAUTHORIZED = "it wants other credentials (prometheus.existingSecret in the operator's chart)"

__all__ = ["HttpPrometheus"]


class _Sample(msgspec.Struct, frozen=True):
    value: tuple[float, str]


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    data: _Result


class _Refusal(msgspec.Struct, frozen=True):
    """Prometheus' own words: what is wrong with the query."""

    error: str


class HttpPrometheus:
    """Without a URL every query fails with the words for that; `ValueError` for one that nobody can be asked at."""

    def __init__(self, session: aiohttp.ClientSession, url: str, how: access.Access = access.OPEN) -> None:
        problem = access.address_problem(url) if url else ""
        if problem:
            raise ValueError(f"prometheus.url {problem}")
        self._session = session
        self._url = url.rstrip("/")
        self._how = how

    async def value(self, query: str) -> float:
        if not self._url:
            raise errors.QueryFailed("no Prometheus is declared in the operator's chart (prometheus.url)")
        try:
            return _number(msgspec.json.decode(await self._ask(query), type=_Answer).data)
        except web.Failed as error:
            raise errors.QueryFailed(f"Prometheus {error}{_reason(error)}") from error
        except access.IncompleteSecret as error:
            raise errors.QueryFailed(f"Prometheus: {error}") from error
        except OSError as error:
            raise errors.QueryFailed(f"Prometheus {access.NO_BUNDLE}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise errors.QueryFailed(f"Prometheus answers with something else: {error}") from error

    async def _ask(self, query: str) -> bytes:
        return await web.get(
            self._session,
            f"{self._url}/api/v1/query",
            most_bytes=MOST_BYTES,
            query={"query": query},
            headers=self._how.credentials().headers(),
            tls=self._how.tls,
        )


def _reason(failed: web.Failed) -> str:
    """What stands between is no Prometheus, and has pages instead. Of credentials only we speak: nobody repeats them."""
    if failed.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f": {UNAUTHORIZED}"
    try:
        words = msgspec.json.decode(failed.refusal, type=_Refusal).error
    except (msgspec.MsgspecError, ValueError):
        return ""
    return f": {words[:MOST_WORDS]}"


def _number(data: _Result) -> float:
    match data.result_type:
        case "scalar":
            found = [_Sample(msgspec.json.decode(data.result, type=tuple[float, str]))]
        case "vector":
            found = msgspec.json.decode(data.result, type=list[_Sample])
        case other:
            raise errors.QueryFailed(f"the query gives a {other}, and not one number")
    if len(found) != 1:
        raise errors.QueryFailed(f"the query gives {len(found)} series, and not one")
    value = float(found[0].value[1])
    if not math.isfinite(value):
        raise errors.QueryFailed(f"the query gives {found[0].value[1]}")
    return value
