"""Other pods of the same deployment: by the headless Service of their revision, and by nothing that a caller said.

Blocking calls, for threads. Names are checked by `revisions` before they come here.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from moorage_runtime import prediction_ids

MAX_ANSWER_BYTES = 16 * 1024 * 1024

Resolve: TypeAlias = Callable[[str], list[str]]
"""A revision's name to the addresses of its pods."""


@dataclass(frozen=True)
class Answer:
    """Of another pod."""

    status: int
    body: bytes
    asks_to_wait: bool = False
    """Does it have a `Retry-After`?"""


def by_dns(revision: str) -> list[str]:
    """The Service has the revision's name, in this pod's own namespace."""
    try:
        found = socket.getaddrinfo(revision, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(address[0]) for *_, address in found]


def owner(pod: str, addresses: list[str]) -> str:
    """The address of the pod that an id names; empty if it is not among these."""
    return next((address for address in addresses if prediction_ids.pod_name(address) == pod), "")


def post(
    address: tuple[str, int],
    path: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    seconds: float,
    at_most: int = MAX_ANSWER_BYTES,
) -> Answer:
    """Raises `OSError` or `http.client.HTTPException`; follows no redirect, heeds no proxy."""
    connection = http.client.HTTPConnection(*address, timeout=seconds)
    try:
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        answer = response.read(at_most + 1)
    finally:
        connection.close()
    if len(answer) > at_most:
        raise http.client.HTTPException("the answer is too large")
    return Answer(response.status, answer, asks_to_wait=response.getheader("retry-after") is not None)
