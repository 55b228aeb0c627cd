"""Reading small documents from pods and Prometheus by HTTP: with limits of time and size, no redirects, proxies or cookies."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp

from moorage_operator.adapters import access

TIMEOUT_SECONDS = 2.0


MOST_OF_A_REFUSAL = 4096


class Failed(Exception):
    """No document; the message follows the name of who was asked. `refusal` is the beginning of what came with another `status`."""

    def __init__(self, message: str, status: int = 0, refusal: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.refusal = refusal


@contextlib.asynccontextmanager
async def connect() -> AsyncIterator[aiohttp.ClientSession]:
    """One connection pool, for the event loop that this runs in."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    jar = aiohttp.DummyCookieJar()  # a session that a server remembers would outlive a rotated credential
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=jar) as session:
        yield session


async def get(
    session: aiohttp.ClientSession,
    url: str,
    *,
    most_bytes: int,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | bool = True,
) -> bytes:
    """The body of an answer with status 200."""
    try:
        async with session.get(url, params=query, headers=headers, ssl=tls, allow_redirects=False) as answer:
            if answer.status != 200:
                refusal = await answer.content.read(MOST_OF_A_REFUSAL)
                raise Failed(f"answers with HTTP {answer.status}", answer.status, refusal)
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > most_bytes:
                    raise Failed(f"answers with more than {most_bytes} bytes")
            return bytes(body)
    except aiohttp.ClientConnectorCertificateError as error:
        raise Failed(access.NOT_TRUSTED) from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Failed(f"does not answer: {type(error).__name__}") from error


def host(address: str) -> str:
    """An IP address as a URL has it."""
    return f"[{address}]" if ":" in address else address
