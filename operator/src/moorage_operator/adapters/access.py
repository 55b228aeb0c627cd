"""How a server that the chart declares is asked: a registry, or Prometheus. Its credentials are those that are on disk right now.

The chart mounts a server's Secret as a directory. It is read for every question, so that a rotated credential is
used without a restart. Nothing here reads a credential from the process environment: it would go to every server alike.
"""

from __future__ import annotations

import base64
import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

NOT_TRUSTED = "has a TLS certificate that is not trusted: set its caBundle to the authority that signed it"
NO_BUNDLE = "can't be asked: is its caBundle there, and a PEM file?"


class IncompleteSecret(Exception):
    """The message follows the name of the server, and holds nothing of the Secret."""


@dataclass(frozen=True)
class Credentials:
    """What a request carries: a user name with a password, or a token, or nothing. Never shown."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"

    def headers(self) -> dict[str, str]:
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.username:
            pair = f"{self.username}:{self.password}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


@dataclass(frozen=True)
class Access:
    """What a server wants of who asks it, and how it shows itself."""

    credentials_dir: Path | None = None
    """The mounted Secret, with the files `username` and `password`, or `token`, which is used if both are there."""
    ca_bundle: Path | None = None
    """A PEM file with the only authorities to trust; None means the system's."""

    def credentials(self) -> Credentials:
        """Read the Secret's files; `IncompleteSecret` if they don't make a complete credential."""
        if self.credentials_dir is None:
            return Credentials()
        snapshot = _snapshot(self.credentials_dir)
        username, password, token = (_read(snapshot / key) for key in ("username", "password", "token"))
        if token:
            return Credentials(token=token)
        if username and password:
            return Credentials(username, password)
        raise IncompleteSecret(
            "its existingSecret needs the keys 'username' and 'password', or the key 'token', as printable text"
        )

    @functools.cached_property
    def tls(self) -> ssl.SSLContext | bool:
        """As aiohttp takes it; `OSError` if the bundle is none. One for all questions, so that connections are kept."""
        return ssl.create_default_context(cafile=self.ca_bundle) if self.ca_bundle else True


OPEN = Access()
"""It asks nobody who they are."""


def address_problem(url: str) -> str:
    """Why nobody can be asked there, after the address's name; empty if somebody can."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http:// or https:// address"
    if "@" in parts.netloc:
        return "must not hold a user name or password: put them into a Secret and name it in existingSecret"
    if parts.query or parts.fragment:
        return "must not have a query or a fragment"
    return ""


def _snapshot(directory: Path) -> Path:
    """The kubelet swaps the link `..data` when a Secret changes: resolved once, the files belong together."""
    data = directory / "..data"
    return (data if data.exists() else directory).resolve()


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() else ""  # a control character would end the header
