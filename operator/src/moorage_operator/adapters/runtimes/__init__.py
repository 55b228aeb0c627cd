"""`ports.Runtimes`: the metrics of model pods, over HTTP. The only code that talks to them."""

from __future__ import annotations

import aiohttp

from moorage_operator import errors
from moorage_operator.adapters import web
from moorage_operator.core.pods import HEALTH_PORT

MOST_BYTES = 2**20

__all__ = ["HttpRuntimes"]


class HttpRuntimes:
    def __init__(self, session: aiohttp.ClientSession, port: int = HEALTH_PORT) -> None:
        self._session = session
        self._port = port

    async def metrics(self, address: str) -> str:
        url = f"http://{web.host(address)}:{self._port}/metrics"
        try:
            return (await web.get(self._session, url, most_bytes=MOST_BYTES)).decode(errors="replace")
        except web.Failed as error:
            raise errors.RuntimeUnreachable(str(error)) from error
