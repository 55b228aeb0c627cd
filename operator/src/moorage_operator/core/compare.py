"""Does a live object already hold what we would apply? Then it is not written: a no-op apply costs the API server real work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from moorage_operator.core import names, quantities
from moorage_operator.core.kinds import Manifest

_MERGED_BY_KEY = frozenset(
    {"containers", "initContainers", "env", "ports", "volumes", "volumeMounts", "ownerReferences", "imagePullSecrets"}
)
"""Lists in which others may have elements of their own; every other list is one value."""

_ATOMIC_MAPS = frozenset({"selector", "nodeSelector"})
"""Maps that are one value: a key that somebody added to a Service's selector takes all its pods away."""

_HOLDS_QUANTITIES = frozenset({"resources", "metrics", "behavior"})


def with_hash(desired: Manifest) -> Manifest:
    """The manifest with a hash of itself as an annotation: it tells what we applied last, so that a field we dropped is seen."""
    digest = hashlib.sha256(msgspec.json.encode(desired, order="sorted")).hexdigest()[:16]
    metadata = desired["metadata"]
    annotations = metadata.get("annotations", {}) | {names.APPLIED_HASH: digest}
    return desired | {"metadata": metadata | {"annotations": annotations}}


def was_applied(desired: Manifest, live: Manifest) -> bool:
    """Is this very intent what was applied last? Then a difference is somebody else's doing."""
    return applied_hash(desired) == applied_hash(live)


def applied_hash(manifest: Manifest) -> str:
    """Of the intent that was applied last; empty, if none was."""
    return str(manifest["metadata"].get("annotations", {}).get(names.APPLIED_HASH, ""))


def holds(desired: Any, live: Any, *, key: str = "", quantity: bool = False) -> bool:
    """Does `live` have all that `desired` says? Defaults and fields of others may be there as well."""
    if isinstance(desired, dict):
        return _holds_map(desired, live, key=key, quantity=quantity)
    if isinstance(desired, list):
        return _holds_list(desired, live, key=key, quantity=quantity)
    if desired == live:
        return True
    if quantity and live is not None:
        value = quantities.parse(desired)
        return value is not None and value == quantities.parse(live)
    # The API server does not store zero values of optional fields.
    return live is None and not desired


def _holds_map(desired: dict[str, Any], live: Any, *, key: str, quantity: bool) -> bool:
    if not desired and live is None:
        return True
    if not isinstance(live, dict) or (key in _ATOMIC_MAPS and not live.keys() <= desired.keys()):
        return False
    return all(
        holds(value, live.get(name), key=name, quantity=quantity or name in _HOLDS_QUANTITIES)
        for name, value in desired.items()
    )


def _holds_list(desired: list[Any], live: Any, *, key: str, quantity: bool) -> bool:
    if not desired and live is None:
        return True
    if not isinstance(live, list):
        return False
    if key in _MERGED_BY_KEY:
        return all(any(holds(item, other, quantity=quantity) for other in live) for item in desired)
    return len(desired) == len(live) and all(
        holds(item, other, quantity=quantity) for item, other in zip(desired, live, strict=True)
    )


def needs_managed_fields(deployment: Manifest) -> bool:
    """Do its managedFields say anything that a pass asks for? They are long, and mostly they don't."""
    return has_foreign_template_fields(deployment) or _is_handed_over(deployment)


def is_handed_over(deployment: Manifest, replicas: int) -> bool:
    """Is the count set to `replicas` by the manager who holds it until an autoscaler takes it?"""
    return bool(deployment["spec"].get("replicas") == replicas) and _is_handed_over(deployment)


def _is_handed_over(deployment: Manifest) -> bool:
    return any(
        entry["manager"] == names.REPLICAS_MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", [])
    )


def has_foreign_template_fields(deployment: Manifest) -> bool:
    """Did somebody add to the pod template fields that we do not set?

    Reads `metadata.managedFields` (FieldsV1); https://kubernetes.io/docs/reference/using-api/server-side-apply/
    """
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for entry in deployment["metadata"].get("managedFields", []):
        fields = entry.get("fieldsV1", {}).get("f:spec", {}).get("f:template")
        if fields and not entry.get("subresource"):
            (ours if entry["manager"] == names.FIELD_MANAGER else theirs).append(fields)
    if not theirs:  # nearly always, and this is asked at each event
        return False
    known = {leaf for fields in ours for leaf in _leaves(fields)}
    return any(leaf not in known for fields in theirs for leaf in _leaves(fields))


def _leaves(fields: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in fields.items():
        if name == ".":
            continue
        here = f"{path}/{name}"
        if any(key != "." for key in inner):
            yield from _leaves(inner, here)
        else:
            yield here


def describe_difference(desired: Manifest, live: Manifest) -> str:
    """Where they differ first, as a path, for a person: `spec.template.spec.containers`."""
    path: list[str] = []
    here, there = desired, live
    while isinstance(here, dict) and isinstance(there, dict):
        differing = [name for name, value in here.items() if not holds(value, there.get(name), key=name, quantity=True)]
        if not differing:
            break
        path.append(differing[0])
        here, there = here[differing[0]], there.get(differing[0], {})
    return ".".join(path) or json.dumps(live["metadata"].get("name"))
