"""The base of all typed parts of a spec: frozen, with the CRD's camelCase names; and a typed value as the status stores it."""

from __future__ import annotations

from typing import Any

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Unknown fields belong to a newer CRD and are ignored."""


def plain(item: msgspec.Struct) -> dict[str, Any]:
    """With lists, as the API server gives it back: a tuple is unequal to one, and would be written for ever."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(item))
    return found
