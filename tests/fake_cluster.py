"""`FakeCluster`: `ports.Cluster` in memory, held to the real API server's behaviour by `contract/test_cluster.py`.

It has no controllers: a test plays them with `edit()` and `remove()`, and runs the garbage collector with
`collect_garbage()`. `watch()` tells every change, as a watch does.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import fake_defaults
import fake_ssa
import fake_watch
from moorage_operator import errors
from moorage_operator.core import kinds, names
from moorage_operator.core.kinds import Kind, Manifest, Ref
from moorage_operator.ports import Change, Selection, Snapshot

Watcher = Callable[[str, Manifest], None]
WriteHook = Callable[[str, Ref], None]

WITH_STATUS = {
    kinds.MODEL_DEPLOYMENT,
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.POD,
    kinds.AUTOSCALER,
    kinds.DISRUPTION_BUDGET,
}
WITH_GENERATION = {kinds.MODEL_DEPLOYMENT, kinds.DEPLOYMENT, kinds.DISRUPTION_BUDGET, kinds.HTTP_ROUTE}
REQUIRED = {
    kinds.DEPLOYMENT: ("selector", "template"),
    kinds.SERVICE: ("ports",),
    kinds.AUTOSCALER: ("scaleTargetRef", "maxReplicas"),
}


class FakeCluster:
    """`before_write` and `after_write` see each write by verb and object; what they raise, the writer gets.

    `writes` counts requests, those without effect too.
    """

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.before_write: WriteHook | None = None
        self.after_write: WriteHook | None = None
        self.writes: Counter[tuple[str, str]] = Counter()
        self.watches = fake_watch.FakeWatches()
        self._now = now
        self._objects: dict[Ref, Manifest] = {}
        self._ending: set[str] = set()
        self._watchers: list[Watcher] = []
        self._revision = 1  # of an empty store, as with etcd: no object ever has it
        self._lock = threading.RLock()  # the election writes from its own thread

    # The port.

    async def get(self, ref: Ref) -> Manifest | None:
        with self._lock:
            return fake_ssa.copied(self._objects.get(ref))

    async def list(
        self, kind: Kind, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Manifest]:
        self.watches.check()
        with self._lock:
            found = [
                fake_ssa.copied(manifest)
                for ref, manifest in sorted(self._objects.items(), key=lambda item: (item[0].namespace, item[0].name))
                if ref.kind == kind
                and (not namespace or ref.namespace == namespace)
                and (labels or {}).items() <= manifest["metadata"].get("labels", {}).items()
            ]
        for manifest in found:
            yield manifest

    async def snapshot(self, selection: Selection) -> Snapshot:
        self.watches.check()
        with self._lock:
            found = [item for item in self._objects.values() if fake_watch.selects(selection, item)]
            return Snapshot(tuple(fake_ssa.copied(found)), str(self._revision))

    def follow(self, selection: Selection, *, since: str) -> AsyncIterator[Change]:
        return self.watches.follow(selection, since)

    async def apply(self, manifest: Manifest, *, manager: str = names.FIELD_MANAGER, subresource: str = "") -> Manifest:
        ref, manifest = kinds.ref_of(manifest), _as_sent(manifest)
        return self._write("apply", ref, lambda: self._apply(ref, manifest, manager, subresource))

    async def create(self, manifest: Manifest) -> Manifest:
        ref, manifest = kinds.ref_of(manifest), _as_sent(manifest)
        return self._write("create", ref, lambda: self._create(ref, manifest, names.FIELD_MANAGER))

    async def patch(self, ref: Ref, operations: Sequence[Mapping[str, Any]]) -> Manifest:
        def change(manifest: Manifest) -> None:
            for operation in operations:
                _json_patch(ref, manifest, operation)

        return self._write("patch", ref, lambda: self._edit(ref, change, names.FIELD_MANAGER, ""))

    async def delete(self, ref: Ref, *, uid: str, resource_version: str) -> None:
        def delete() -> Manifest:
            live = self._objects.get(ref)
            if live is None:
                return {}
            metadata = live["metadata"]
            if metadata["uid"] != uid or resource_version not in ("", metadata["resourceVersion"]):
                raise errors.Conflict(f"delete {ref}: a precondition does not hold", status=409)
            return self._forget(ref)

        self._write("delete", ref, delete)

    # What tests do to it.

    def add(self, manifest: Manifest, *, manager: str = "user") -> Manifest:
        """Someone else creates an object."""
        with self._lock:
            return self._create(kinds.ref_of(manifest), manifest, manager)

    def edit(
        self, ref: Ref, change: Callable[[Manifest], None], *, manager: str = "user", subresource: str = ""
    ) -> Manifest:
        """Someone else changes an object, or a controller its status."""
        with self._lock:
            return self._edit(ref, change, manager, subresource)

    def remove(self, ref: Ref) -> None:
        """Someone else deletes an object."""
        with self._lock:
            self._forget(ref)

    def end_namespace(self, name: str) -> None:
        """Someone else deletes a namespace: what is in it goes later, nothing new comes."""
        self._ending.add(name)

    def collect_garbage(self) -> int:
        """Delete what has owners of which none lives any more; says how many objects went."""
        gone = 0
        with self._lock:
            while orphans := list(self._orphans()):
                gone += len([self._forget(ref) for ref in orphans])
        return gone

    def watch(self, callback: Watcher) -> None:
        """Tell `ADDED` for all there is, then each change as it happens."""
        with self._lock:
            self._watchers.append(callback)
            for manifest in list(self._objects.values()):
                callback("ADDED", fake_ssa.copied(manifest))

    # How it works.

    def _write(self, verb: str, ref: Ref, action: Callable[[], Manifest]) -> Manifest:
        self.writes[verb, ref.kind.name] += 1
        if self.before_write:
            self.before_write(verb, ref)
        with self._lock:
            stored = fake_ssa.copied(action())
        if self.after_write:
            self.after_write(verb, ref)
        return stored

    def _apply(self, ref: Ref, manifest: Manifest, manager: str, subresource: str) -> Manifest:
        live = self._objects.get(ref)
        uid = manifest["metadata"].get("uid", "")
        if uid and (live is None or live["metadata"]["uid"] != uid):
            raise errors.Conflict(f"apply {ref}: the live object is no longer the one that was meant", status=409)
        version = manifest["metadata"].get("resourceVersion", "")
        if live and version not in {"", live["metadata"]["resourceVersion"]}:
            raise errors.Conflict(f"apply {ref}: the object has been modified", status=409)
        if live is None and subresource:
            raise errors.Invalid(f"apply {ref}: not found", status=404)
        fields = fake_ssa.user_fields(manifest, subresource=subresource, has_status=ref.kind in WITH_STATUS)
        base = live or {"metadata": {}}
        ownership = fake_ssa.read(base["metadata"].get("managedFields", ()))
        changed = fake_ssa.apply(base, fields, fake_ssa.Owner(manager, "Apply", subresource), ownership)
        return self._store(ref, live, changed, ownership)

    def _create(self, ref: Ref, manifest: Manifest, manager: str) -> Manifest:
        if ref in self._objects:
            raise errors.AlreadyExists(f"create {ref}: already exists", status=409)
        fields = fake_ssa.user_fields(manifest, subresource="", has_status=ref.kind in WITH_STATUS)
        fields.setdefault("metadata", {})
        ownership: fake_ssa.Ownership = {}
        fake_ssa.update({}, fields, fake_ssa.Owner(manager, "Update"), ownership)
        return self._store(ref, None, fields, ownership)

    def _edit(self, ref: Ref, change: Callable[[Manifest], None], manager: str, subresource: str) -> Manifest:
        live = self._objects.get(ref)
        if live is None:
            raise errors.Invalid(f"patch {ref}: not found", status=404)
        wanted = fake_ssa.copied(live)
        change(wanted)
        if wanted["metadata"].get("resourceVersion") != live["metadata"]["resourceVersion"]:
            raise errors.Conflict(f"patch {ref}: the object has been modified", status=409)
        if subresource == "status":
            wanted = {**live, "status": wanted.get("status", {})}
        elif ref.kind in WITH_STATUS:
            wanted = {key: value for key, value in wanted.items() if key != "status"}
            wanted |= {"status": live["status"]} if "status" in live else {}
        before, after = (_without_server_owned(manifest) for manifest in (live, wanted))
        if before == after:
            return live
        ownership = fake_ssa.read(live["metadata"].get("managedFields", ()))
        fake_ssa.update(before, after, fake_ssa.Owner(manager, "Update", subresource), ownership)
        return self._store(ref, live, wanted, ownership)

    def _store(self, ref: Ref, live: Manifest | None, changed: Manifest, ownership: fake_ssa.Ownership) -> Manifest:
        stored = {"apiVersion": ref.kind.api_version, "kind": ref.kind.name, **_without_server_owned(changed)}
        if live is None and ref.namespace in self._ending:
            raise errors.NamespaceTerminating(f"create {ref}: the namespace is being terminated", status=403)
        _validate(ref, live, stored)
        fake_defaults.stored_form(ref.kind, stored)
        before = live["metadata"] if live else self._identity(ref)
        same = live is not None and stored == _without_server_owned(live)
        if same and ownership == fake_ssa.read(before.get("managedFields", ())):
            return self._objects[ref]
        self._revision += 1
        stored["metadata"] |= {key: value for key, value in before.items() if key in fake_ssa.SERVER_OWNED}
        stored["metadata"]["resourceVersion"] = str(self._revision)
        stored["metadata"]["managedFields"] = fake_ssa.write(ownership, ref.kind.api_version, _stamp(self._now()))
        if live and ref.kind in WITH_GENERATION and stored.get("spec") != live.get("spec"):
            stored["metadata"]["generation"] += 1
        self._objects[ref] = stored
        self._tell("MODIFIED" if live else "ADDED", stored)
        return stored

    def _identity(self, ref: Ref) -> dict[str, Any]:
        uid = f"00000000-0000-4000-8000-{self._revision + 1:012}"
        identity = {"name": ref.name, "uid": uid, "creationTimestamp": _stamp(self._now())}
        namespace = {"namespace": ref.namespace} if ref.namespace else {}
        return identity | namespace | ({"generation": 1} if ref.kind in WITH_GENERATION else {})

    def _forget(self, ref: Ref) -> Manifest:
        gone = self._objects.pop(ref)
        self._revision += 1
        self._tell("DELETED", gone)
        return gone

    def _orphans(self) -> Iterable[Ref]:
        living = {manifest["metadata"]["uid"] for manifest in self._objects.values()}
        for ref, manifest in list(self._objects.items()):
            owners = {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", ())}
            if owners and not owners & living:
                yield ref

    def _tell(self, happening: Literal["ADDED", "MODIFIED", "DELETED"], manifest: Manifest) -> None:
        self.watches.record(happening, manifest, self._revision)
        for callback in self._watchers:
            callback(happening, fake_ssa.copied(manifest))


def _without_server_owned(manifest: Manifest) -> Manifest:
    kept = {key: value for key, value in manifest["metadata"].items() if key not in fake_ssa.SERVER_OWNED}
    return fake_ssa.copied({**manifest, "metadata": kept})


def _validate(ref: Ref, live: Manifest | None, changed: Manifest) -> None:
    spec = changed.get("spec", {})
    if missing := [field for field in REQUIRED.get(ref.kind, ()) if field not in spec]:
        raise errors.Invalid(f"apply {ref}: spec.{missing[0]}: Required value", status=422)
    if ref.kind == kinds.DEPLOYMENT and live and spec["selector"] != live["spec"]["selector"]:
        raise errors.Invalid(f"apply {ref}: spec.selector: field is immutable", status=422)
    if ref.kind == kinds.CONTROLLER_REVISION and live and changed.get("data") != live.get("data"):
        raise errors.Invalid(f"apply {ref}: data: field is immutable", status=422)


def _json_patch(ref: Ref, manifest: Manifest, operation: Mapping[str, Any]) -> None:
    *above, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    stale = errors.Conflict(f"patch {ref}: the live object is no longer the one that was meant", status=422)
    try:
        parent: Any = manifest
        for part in above:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        key = int(last) if isinstance(parent, list) and last != "-" else last
        _operate(parent, key, operation, stale)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise stale from error


def _operate(parent: Any, key: Any, operation: Mapping[str, Any], stale: errors.Conflict) -> None:
    match operation["op"]:
        case "add" if isinstance(parent, list):
            parent.insert(len(parent) if key == "-" else key, operation["value"])
        case "add":
            parent[key] = operation["value"]
        case "remove":
            del parent[key]
        case "replace":
            parent[key] = operation["value"]  # Kubernetes does not mind if a map has no such key yet
        case "test" if parent[key] != operation["value"]:
            raise stale


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_sent(manifest: Manifest) -> Manifest:
    """What arrives is JSON: a tuple is stored, and comes back, as a list."""
    return dict(json.loads(json.dumps(manifest)))
