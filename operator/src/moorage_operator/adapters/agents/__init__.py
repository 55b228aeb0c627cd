"""`ports.Agents`: the agents of the routers, over HTTP. The only code that talks to router pods."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from moorage_operator import errors
from moorage_operator.core.router_plan import AGENT_PORT
from moorage_operator.core.routing import AgentState

TIMEOUT_SECONDS = 2.0
MOST_BYTES = 4 * 2**20

__all__ = ["HttpAgents", "connect"]


@contextlib.asynccontextmanager
async def connect() -> AsyncIterator[HttpAgents]:
    """One connection pool, for the event loop that this runs in."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        yield HttpAgents(session)


class HttpAgents:
    def __init__(self, session: aiohttp.ClientSession, port: int = AGENT_PORT) -> None:
        self._session = session
        self._port = port

    async def state(self, address: str) -> AgentState:
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"http://{host}:{self._port}/state", allow_redirects=False) as answer:
                if answer.status != 200:
                    raise errors.AgentUnreachable(f"answers with HTTP {answer.status}")
                body = await answer.content.read(MOST_BYTES)
                return msgspec.json.decode(body, type=AgentState)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.AgentUnreachable(f"does not answer: {type(error).__name__}") from error
        except msgspec.MsgspecError as error:
            raise errors.AgentUnreachable(f"answers with something else: {error}") from error
