"""Lists that can be followed: the requests, and what the API server's answers mean."""

from __future__ import annotations

import urllib.parse
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from moorage_operator import errors
from moorage_operator.adapters.cluster.transport import Call
from moorage_operator.core.kinds import Manifest
from moorage_operator.ports import Change, Selection, Snapshot


class _Event(msgspec.Struct):
    """One line of a watch. The object of an ERROR is a Status."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Manifest


_EVENT = msgspec.json.Decoder(_Event)


def listing(selection: Selection, path: str) -> Call:
    return Call("list", selection.kind, "", "GET", f"{path}?{urllib.parse.urlencode(_selectors(selection))}")


def snapshot(selection: Selection, answer: Any) -> Snapshot:
    """The items of a list come without their kind."""
    common = {"apiVersion": selection.kind.api_version, "kind": selection.kind.name}
    found = tuple(common | item for item in answer.get("items") or ())
    return Snapshot(found, answer["metadata"]["resourceVersion"])


def following(selection: Selection, path: str, since: str, *, seconds: float) -> Call:
    query = _selectors(selection) | {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": since,
        "timeoutSeconds": str(max(1, int(seconds))),
    }
    return Call("watch", selection.kind, "", "GET", f"{path}?{urllib.parse.urlencode(query)}")


def change(call: Call, line: bytes) -> Change:
    try:
        event = _EVENT.decode(line)
    except msgspec.MsgspecError as error:
        raise errors.Unreachable(f"{call.what}: the API server sent what is no event") from error
    if event.type == "ERROR":
        raise _failure(call, event.object)
    return Change(event.type, event.object)


def _failure(call: Call, status: Manifest) -> errors.ClusterError:
    code, message = status.get("code", 0), f"{call.what}: {status.get('message', 'ended with an error')}"
    if code == HTTPStatus.GONE:
        return errors.Expired(message, status=code)
    return errors.Unreachable(message, status=code)


def _selectors(selection: Selection) -> dict[str, str]:
    """By name as a field, because that is how RBAC lets a single object be listed and watched."""
    query = {}
    if selection.name:
        query["fieldSelector"] = f"metadata.name={selection.name}"
    if selection.labels:
        query["labelSelector"] = ",".join(f"{key}={value}" for key, value in selection.labels.items())
    return query
