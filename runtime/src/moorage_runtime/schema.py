"""A model's signature as its callers have to know it, small enough for a termination message: who decides whether another version
may follow reads nothing else. By `MLmodel`'s text alone, without numpy.

    {"inputs": [["amount", "double"], ["note", "string?"]], "outputs": [["score", "float32[-1,3]"]]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MAX_BYTES = 2800
"""With the other last words 3,072: the kubelet shares 12 KiB out to the pod's containers, and a service mesh adds two."""

Fields = list[tuple[str, str]]
"""Name and type of each, in their order; the type of what may be left out ends with `?`."""


def of(signature: Mapping[str, Any] | None) -> dict[str, Fields]:
    """Empty without a signature that can be read, and where it is too large."""
    if signature is None or not signature.get("inputs"):
        return {}
    try:
        found = {part: _fields(signature.get(part) or []) for part in ("inputs", "outputs")}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # `serve` says what is wrong with it
    return found if len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()) <= MAX_BYTES else {}


def _fields(raw: Sequence[Mapping[str, Any]]) -> Fields:
    """Without names of their own they go by their positions, an only one by none: as in `codecs.signature`."""
    return [
        (str(spec.get("name") or (position if len(raw) > 1 else "")), _type(spec)) for position, spec in enumerate(raw)
    ]


def _type(spec: Mapping[str, Any]) -> str:
    if spec["type"] == "tensor":
        tensor = spec["tensor-spec"]
        return f"{tensor['dtype']}[{','.join(str(int(size)) for size in tensor['shape'])}]"
    inner = {key: value for key, value in spec.items() if key not in ("name", "required")}
    kind = str(spec["type"]) if len(inner) == 1 else json.dumps(inner, sort_keys=True, separators=(",", ":"))
    return kind if spec.get("required", True) else f"{kind}?"
