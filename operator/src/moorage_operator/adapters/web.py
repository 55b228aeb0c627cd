"""Reading small documents from pods by HTTP: with a time limit, a limit of size, no redirects and no proxies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp

TIMEOUT_SECONDS = 2.0


MOST_OF_A_REFUSAL = 4096


class Failed(Exception):
    """No document; the message follows the name of who was asked. `refusal` is the beginning of what came with another status."""

    def __init__(self, message: str, refusal: bytes = b"") -> None:
        super().__init__(message)
        self.refusal = refusal


@contextlib.asynccontextmanager
async def connect() -> AsyncIterator[aiohttp.ClientSession]:
    """One connection pool, for the event loop that this runs in."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        yield session


async def get(
    session: aiohttp.ClientSession, url: str, *, most_bytes: int, query: Mapping[str, str] | None = None
) -> bytes:
    """The body of an answer with status 200."""
    try:
        async with session.get(url, params=query, allow_redirects=False) as answer:
            if answer.status != 200:
                raise Failed(f"answers with HTTP {answer.status}", await answer.content.read(MOST_OF_A_REFUSAL))
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > most_bytes:
                    raise Failed(f"answers with more than {most_bytes} bytes")
            return bytes(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Failed(f"does not answer: {type(error).__name__}") from error


def host(address: str) -> str:
    """An IP address as a URL has it."""
    return f"[{address}]" if ":" in address else address
