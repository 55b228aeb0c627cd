"""Does the cluster's CRD know every field that this operator reads? An older one would drop them without a word."""

from __future__ import annotations

from typing import Any

import msgspec

from moorage_operator.core import spec
from moorage_operator.core.kinds import Manifest


def missing_fields(crd: Manifest) -> list[str]:
    """Paths of fields, like `spec.rollout.strategy`, that the CRD lacks."""
    version: Manifest = next((item for item in crd["spec"]["versions"] if item["name"] == "v1alpha1"), {})
    schema = version.get("schema", {}).get("openAPIV3Schema", {}).get("properties", {}).get("spec", {})
    return list(_missing(spec.Spec, schema, "spec"))


def _missing(kind: type[msgspec.Struct], schema: dict[str, Any], path: str) -> list[str]:
    found = []
    properties = schema.get("properties", {})
    for field in msgspec.structs.fields(kind):
        here = f"{path}.{field.encode_name}"
        if field.encode_name not in properties:
            found.append(here)
            continue
        for inner in _structs_in(field.type):
            below = properties[field.encode_name]
            found += _missing(inner, below.get("items", below), here)
    return found


def _structs_in(annotation: Any) -> list[type[msgspec.Struct]]:
    """The struct of a field, of its items, or of its optional value."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _structs_in(argument)]
