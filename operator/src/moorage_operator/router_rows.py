"""One ModelDeployment's row of the router's table, and what the router's own parser says of it. Pure.

A table is taken or refused as a whole: a row that nobody has tried before could stop every model of its namespace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from moorage_operator import errors
from moorage_operator.core import routing, spec, state
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.routing import RouterView
from moorage_operator.router import table


@dataclass(frozen=True)
class Row:
    """`content` is None while there is no revision, and where `refusal` says why there can't be one."""

    content: Manifest | None = None
    refusal: str = ""


def make(manifest: Manifest, port: int) -> Row:
    """What a ModelDeployment wants of the router now."""
    try:
        content = routing.row(spec.parse(manifest), state.read(manifest.get("status", {})), port)
    except msgspec.ValidationError as error:
        return Row(refusal=str(error))
    refusal = _refusal(manifest["metadata"]["name"], content) if content else ""
    return Row(refusal=refusal) if refusal else Row(content)


def kept(name: str, before: Manifest | None, port: int) -> Manifest | None:
    """The row from before, in place of one that is refused."""
    content = before | {"port": port} if before else None
    return None if content and _refusal(name, content) else content


def checked(view: RouterView, manifest: Manifest) -> RouterView:
    """The router as a ModelDeployment sees it, and whether the router would take what it wants."""
    return view if view.port is None else replace(view, refused=make(manifest, view.port).refusal)


def _refusal(name: str, content: Manifest) -> str:
    document = routing.data(routing.Ports(), {name: content})[routing.TABLE]
    try:
        table.parse(document)
    except errors.TableRefused as error:
        return str(error)
    return ""
