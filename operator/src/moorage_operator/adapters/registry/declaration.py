"""One registry as the chart declares it, and its credentials as they are on disk right now.

The chart mounts a registry's Secret as a directory. It is read for every question, so that a rotated credential is
used without a restart. Nothing here, and nothing in this package, reads a credential from the process environment:
MLflow would send such a one to every registry alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from moorage_operator import errors


@dataclass(frozen=True)
class Credentials:
    """What a request carries: a user name with a password, or a token, or nothing. Never shown."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


@dataclass(frozen=True)
class RegistryDeclaration:
    """Where one registry is and how to talk to it; `ValueError`, with a sentence for the chart's user, if that can't be."""

    name: str
    tracking_uri: str
    credentials_dir: Path | None = None
    """The mounted Secret, with the files `username` and `password`, or `token`."""
    ca_bundle: Path | None = None
    """A PEM file with the only authorities to trust; None means the system's."""

    def __post_init__(self) -> None:
        problem = _uri_problem(self.tracking_uri)
        if problem:
            raise ValueError(f"registry '{self.name}': trackingURI {problem}")

    def credentials(self) -> Credentials:
        """Read the Secret's files; `RegistryUnauthorized` if they don't make a complete credential."""
        if self.credentials_dir is None:
            return Credentials()
        snapshot = _snapshot(self.credentials_dir)
        read = Credentials(*(_read(snapshot / key) for key in ("username", "password", "token")))
        if read.token or (read.username and read.password):
            return read
        raise errors.RegistryUnauthorized(
            f"registry '{self.name}': its existingSecret needs the keys 'username' and 'password', or the key 'token',"
            " as printable text"
        )


def _uri_problem(uri: str) -> str:
    parts = urlsplit(uri)
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
