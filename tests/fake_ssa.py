"""Server-side apply of `FakeCluster`: field ownership per manager, in the API server's own FieldsV1 form.

A path is a tuple of FieldsV1 elements: `f:<field>`, `k:{<merge key>}` for an item of a list-map, `v:<value>` of a set.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

Json = TypeVar("Json")
Path = tuple[str, ...]

MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
SETS = {"finalizers"}
ATOMIC_MAPS = {
    "selector",
    "labelSelector",
    "nodeSelector",
    "configMapKeyRef",
    "secretKeyRef",
    "fieldRef",
    "resourceFieldRef",
}
SERVER_OWNED = {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}


def copied(manifest: Json) -> Json:
    """What an API server gives: nobody else's object. Copies are most of what a random history does; `copy.deepcopy` takes 15 times as
    long."""
    found: Json = msgspec.to_builtins(manifest)
    return found


@dataclass(frozen=True)
class Owner:
    """Who holds fields: one entry of `metadata.managedFields`."""

    manager: str
    operation: str
    subresource: str = ""


Ownership = dict[Owner, set[Path]]


def paths(value: Any, name: str = "") -> set[Path]:
    """Every leaf, and every list-map item itself."""
    found: set[Path] = set()
    for element, child_name, child in _children(value, name):
        below = set() if child == [] and _merge_keys(child_name, child) else paths(child, child_name)
        if element.startswith("k:"):
            below = below | {()}
        found |= {(element, *path) for path in below}
    return found or {()}


def user_fields(manifest: Mapping[str, Any], *, subresource: str, has_status: bool) -> dict[str, Any]:
    """What of a manifest a writer can own: of the status subresource only the status, else everything but it."""
    if subresource == "status":
        return {"status": copied(manifest.get("status", {}))}
    hidden = {"apiVersion", "kind", "metadata"} | ({"status"} if has_status else set())
    fields = {key: copied(value) for key, value in manifest.items() if key not in hidden}
    metadata = {key: value for key, value in manifest.get("metadata", {}).items() if key not in SERVER_OWNED}
    return fields | ({"metadata": copied(metadata)} if metadata else {})


def merge(live: Any, applied: Any, name: str = "") -> Any:
    """`applied` over `live`: maps and list-maps by key, all else replaced."""
    theirs = {element: (child_name, child) for element, child_name, child in _children(live, name)}
    ours = list(_children(applied, name))
    if not ours or type(live) is not type(applied):
        return live if applied in ({}, []) and type(live) is type(applied) and theirs else applied
    both = {element: child for element, (_, child) in theirs.items()}
    for element, child_name, child in ours:
        both[element] = merge(both[element], child, child_name) if element in both else child
    if isinstance(applied, list):
        return [both[element] for element in _merged_order(list(theirs), [element for element, _, _ in ours])]
    return {element[2:]: child for element, child in both.items()}


def apply(live: dict[str, Any], fields: dict[str, Any], owner: Owner, ownership: Ownership) -> dict[str, Any]:
    """The object after `owner` applied `fields` with force; changes `ownership`."""
    wanted = paths(fields) - {()}
    dropped = ownership.get(owner, set()) - wanted
    others = set().union(*(held for other, held in ownership.items() if other != owner))
    merged: dict[str, Any] = merge(copied(live), fields)
    for path in sorted(dropped, key=len, reverse=True):
        if not _is_merge_key(path) and not any(held[: len(path)] == path for held in others):
            _remove(merged, path)
    taken = wanted & others & _changed(values(live), values(merged))
    _take(ownership, owner, taken)
    ownership[owner] = wanted
    _forget_absent(ownership, merged)
    return merged


def update(live: dict[str, Any], changed: dict[str, Any], owner: Owner, ownership: Ownership) -> None:
    """`owner` wrote the whole object: it owns what differs from before."""
    same = {name for name in live if live[name] == changed.get(name)}
    live, changed = ({name: part[name] for name in part if name not in same} for part in (live, changed))
    taken = (paths(changed) - {()}) & _changed(values(live), values(changed))
    if taken:
        _take(ownership, owner, taken)
        ownership[owner] = ownership.get(owner, set()) | taken
    _forget_absent(ownership, changed, same)


def _forget_absent(ownership: Ownership, stored: dict[str, Any], untouched: Collection[str] = ()) -> None:
    """Fields that are no longer there have no owner; of those that are `untouched`, none is gone."""
    present, kept = values(stored).keys(), {f"f:{name}" for name in untouched}
    for owner, held in list(ownership.items()):
        ownership[owner] = {path for path in held if path[0] in kept or path in present}
        if not ownership[owner]:
            del ownership[owner]


def values(value: Any, name: str = "", above: Path = ()) -> dict[Path, Any]:
    """What is at each path below; for a list-map item only that it is there."""
    found: dict[Path, Any] = {}
    for element, child_name, child in _children(value, name):
        path = (*above, element)
        found[path] = True if element.startswith("k:") else child
        found.update(values(child, child_name, path))
    return found


def _changed(before: dict[Path, Any], after: dict[Path, Any]) -> set[Path]:
    """Paths whose value is another one, or new."""
    return {path for path, value in after.items() if path not in before or before[path] != value}


def read(managed_fields: Iterable[Mapping[str, Any]]) -> Ownership:
    return {
        Owner(entry["manager"], entry["operation"], entry.get("subresource", "")): set(_flat(entry["fieldsV1"]))
        for entry in managed_fields
    }


def write(ownership: Ownership, api_version: str, time: str) -> list[dict[str, Any]]:
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(held),
        }
        | ({"subresource": owner.subresource} if owner.subresource else {})
        for owner, held in ownership.items()
    ]


def _children(value: Any, name: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict) and name not in ATOMIC_MAPS:
        yield from ((f"f:{key}", key, child) for key, child in value.items())
    elif isinstance(value, list) and name in SETS:
        yield from ((f"v:{json.dumps(item)}", "", item) for item in value)
    elif isinstance(value, list) and (keys := _merge_keys(name, value)):
        yield from ((_item_key(item, keys), "", item) for item in value)


def _is_merge_key(path: Path) -> bool:
    """Such a field goes with its item, never alone."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def _merged_order(live: list[str], applied: list[str]) -> list[str]:
    """The order of list items after a merge, as structured-merge-diff has it (typed/merge.go, visitListItems)."""
    shared = [element for element in applied if element in live]
    out: list[str] = []
    left, right = 0, 0
    while left < len(live) or right < len(applied):
        theirs = live[left] if left < len(live) else None
        if theirs in applied and right < len(applied) and theirs != applied[right] and shared and shared[0] != theirs:
            left += 1  # shared, and not its turn
        elif theirs is not None and theirs not in applied:
            out.append(theirs)
            left += 1
        else:
            left += theirs in out or (right < len(applied) and theirs == applied[right])
            if right < len(applied):
                out.append(applied[right])
                shared = shared[1:] if shared[:1] == [applied[right]] else shared
                right += 1
    return out


def _merge_keys(name: str, items: list[Any]) -> tuple[str, ...]:
    if name != "ports":
        return MERGE_KEYS.get(name, ())
    if all(isinstance(item, dict) and "containerPort" in item for item in items):
        return ("containerPort", "protocol")
    return ("port", "protocol") if all(isinstance(item, dict) and "port" in item for item in items) else ()


def _item_key(item: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    key = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps(key, sort_keys=True, separators=(",", ":"))


def _remove(value: Any, path: Path, name: str = "") -> None:
    """Drop what the path names, and what it leaves empty above."""
    for element, child_name, child in list(_children(value, name)):
        if element != path[0]:
            continue
        if len(path) > 1:
            _remove(child, path[1:], child_name)
        if len(path) == 1 or child in ({}, []):
            _drop(value, element, child)


def _drop(container: Any, element: str, child: Any) -> None:
    if isinstance(container, dict):
        del container[element[2:]]
    else:
        container.remove(child)


def _take(ownership: Ownership, owner: Owner, taken: set[Path]) -> None:
    for other in list(ownership):
        if other != owner:
            ownership[other] -= taken
            if not ownership[other]:
                del ownership[other]


def _nested(held: set[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(held, key=lambda path: (len(path), path)):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return root


def _flat(node: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    if above and (not node or "." in node):
        yield above
    for element, below in node.items():
        if element != ".":
            yield from _flat(below, (*above, element))
