"""The signature in an `MLmodel` file, as the version's pods will tell it once they have fetched it.

Whoever may log a model writes this file. Only the loader that knows nothing but texts, lists and maps reads it: YAML's merge keys make
gigabytes out of a few hundred bytes, and libyaml's own loader (`CBaseLoader`) ends the process at 60,000 brackets.
`moorage_runtime` says the same with its `mlmodel` and `schema`: a contract test holds them to each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from moorage_operator.core import signatures
from moorage_operator.core.signatures import Signature

FILE = "MLmodel"

MAX_BYTES = 64 * 2**10
"""The worst that was found to fit keeps a thread busy for 0.7 s."""

MAX_TOLD = 2800
"""Bytes of a signature that a pod tells; of a larger one it tells only the hash."""


def signature(body: bytes) -> Signature | None:
    """None of a model without a signature, and of a file that can't be read."""
    try:
        described = yaml.load(body, Loader=yaml.BaseLoader)  # noqa: S506 - it makes no objects
        raw = described["signature"]
        parts = {part: json.loads(raw[part]) if raw.get(part) else None for part in ("inputs", "outputs", "params")}
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if parts["inputs"] is None:
        return None
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    hashed = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    return signatures.reported({"signature": hashed, "schema": _told(parts)})


def _told(parts: Mapping[str, Any]) -> dict[str, Any]:
    if not parts["inputs"]:
        return {}
    try:
        found = {part: _fields(parts[part] or []) for part in ("inputs", "outputs")}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return found if len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()) <= MAX_TOLD else {}


def _fields(raw: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
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
