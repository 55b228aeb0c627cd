"""The base of all typed parts of a spec: frozen, with the CRD's camelCase names."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Unknown fields belong to a newer CRD and are ignored."""
