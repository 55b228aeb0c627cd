"""`ports.Agents`: the agents of the routers, over HTTP. The only code that talks to router pods."""

from __future__ import annotations

import aiohttp
import msgspec

from moorage_operator import errors
from moorage_operator.adapters import web
from moorage_operator.core.router_plan import AGENT_PORT
from moorage_operator.core.routing import AgentState

MOST_BYTES = 4 * 2**20

__all__ = ["HttpAgents"]


class HttpAgents:
    def __init__(self, session: aiohttp.ClientSession, port: int = AGENT_PORT) -> None:
        self._session = session
        self._port = port

    async def state(self, address: str) -> AgentState:
        url = f"http://{web.host(address)}:{self._port}/state"
        try:
            body = await web.get(self._session, url, most_bytes=MOST_BYTES)
            return msgspec.json.decode(body, type=AgentState)
        except web.Failed as error:
            raise errors.AgentUnreachable(str(error)) from error
        except msgspec.MsgspecError as error:
            raise errors.AgentUnreachable(f"answers with something else: {error}") from error
