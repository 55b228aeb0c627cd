"""Our own view of the cluster, fed by watch events, by the answers to our writes and by the resync; read by every pass.

A plain dictionary a ModelDeployment. It does no I/O, and it is never the proof that something does not exist.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any

from moorage_operator.core import compare, leftovers, names, revisions
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, Kind, Manifest, Ref
from moorage_operator.core.names import Key, RouterKey

AnyKey = Key | RouterKey


class Index:
    """ModelDeployments, their children and their pods, by key."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Ref, Manifest]] = defaultdict(dict)
        self._of_key: dict[AnyKey, dict[Ref, Manifest]] = defaultdict(dict)
        self.router_namespaces: set[str] = set()
        """Namespaces in which there is something of a router."""
        self._in_namespace: dict[str, dict[Ref, Manifest]] = defaultdict(dict)

    def put(self, kind: Kind, manifest: Manifest) -> AnyKey | None:
        """Remember this state, unless it or a newer one is known. Returns whose it is; None if it belongs to nobody here."""
        ref, key = _ref(kind, manifest), key_of(kind, manifest)
        if key is None:
            return self.remove(kind, manifest)
        known = self._objects[kind].get(ref)
        if known and _is_as_new(known, manifest):
            return key
        slim = _slim(kind, manifest)
        self._objects[kind][ref] = slim
        self._of_key[key][ref] = slim
        if kind is MODEL_DEPLOYMENT:
            self._in_namespace[ref.namespace][ref] = slim
        if isinstance(key, RouterKey):
            self.router_namespaces.add(key.namespace)
        return key

    def remove(self, kind: Kind, manifest: Manifest) -> AnyKey | None:
        """Forget an object, unless another one has taken its name since."""
        ref = _ref(kind, manifest)
        known = self._objects[kind].get(ref)
        if known is None or known["metadata"]["uid"] != manifest["metadata"]["uid"]:
            return key_of(kind, manifest)
        del self._objects[kind][ref]
        self._in_namespace[ref.namespace].pop(ref, None)
        key = key_of(kind, known)
        if key:
            self._of_key[key].pop(ref, None)
            if not self._of_key[key]:
                del self._of_key[key]
                if isinstance(key, RouterKey):
                    self.router_namespaces.discard(key.namespace)
        return key

    async def replace(self, kind: Kind, live: AsyncIterable[Manifest], *, before: set[Ref]) -> int:
        """Take over a whole LIST; `before` is what was known when it was sent. Returns how many ghosts were dropped."""
        unseen = set(before)
        async for manifest in live:
            self.put(kind, manifest)
            unseen.discard(_ref(kind, manifest))
        return self.forget(unseen)

    def forget(self, refs: Iterable[Ref]) -> int:
        """Those that were known before a LIST and are not in it. Returns how many there still were: ghosts."""
        ghosts = [(ref.kind, self._objects[ref.kind][ref]) for ref in refs if ref in self._objects[ref.kind]]
        for kind, ghost in ghosts:
            self.remove(kind, ghost)
        return len(ghosts)

    def refs(self, kind: Kind, key: AnyKey | None = None) -> set[Ref]:
        """All known objects of a kind, or those of one key."""
        if key is None:
            return set(self._objects[kind])
        return {ref for ref in self._of_key.get(key, {}) if ref.kind is kind}

    def model_deployment(self, key: Key) -> Manifest | None:
        return self._objects[MODEL_DEPLOYMENT].get(Ref(MODEL_DEPLOYMENT, key.namespace, key.name))

    def model_deployments(self) -> Iterator[tuple[Key, Manifest]]:
        for ref, manifest in self._objects[MODEL_DEPLOYMENT].items():
            yield Key(ref.namespace, ref.name), manifest

    def in_namespace(self, namespace: str) -> dict[str, Manifest]:
        """The ModelDeployments of one namespace, by name."""
        return {ref.name: manifest for ref, manifest in self._in_namespace.get(namespace, {}).items()}

    def object(self, ref: Ref) -> Manifest | None:
        """One object, whosever it is."""
        return self._objects[ref.kind].get(ref)

    def child(self, key: AnyKey, ref: Ref) -> Manifest | None:
        """One object that belongs to the key."""
        return self._of_key.get(key, {}).get(ref)

    def children(self, key: AnyKey) -> dict[Ref, Manifest]:
        """What a ModelDeployment has, but for itself and its pods."""
        found = self._of_key.get(key, {})
        return {ref: manifest for ref, manifest in found.items() if ref.kind not in (MODEL_DEPLOYMENT, POD)}

    def pods(self, key: AnyKey) -> tuple[Manifest, ...]:
        """Without what has ended, in the order of their names, so that equal worlds look equal."""
        found = [(ref.name, manifest) for ref, manifest in self._of_key.get(key, {}).items() if ref.kind is POD]
        return tuple(pod for _, pod in sorted(found, key=lambda item: item[0]) if not leftovers.has_ended(pod))

    def __len__(self) -> int:
        return sum(len(objects) for objects in self._objects.values())


def key_of(kind: Kind, manifest: Manifest) -> AnyKey | None:
    """The ModelDeployment that an object is, that controls it, or the one or the router that it is labelled to belong to."""
    metadata = manifest["metadata"]
    if kind is MODEL_DEPLOYMENT:
        return Key(metadata["namespace"], metadata["name"])
    owner = revisions.controller_of(manifest)
    if owner.get("kind") == MODEL_DEPLOYMENT.name:
        # Whatever somebody has made of its labels: else it would be lost, and nobody would put them back.
        return Key(metadata["namespace"], owner["name"])
    labels = metadata.get("labels") or {}
    if labels.get(names.MANAGED_BY) != names.OPERATOR:
        return None
    if labels.get(names.APP_COMPONENT) == names.ROUTER:
        return RouterKey(metadata["namespace"])
    name = labels.get(names.DEPLOYMENT)
    if not name:
        return None
    return Key(metadata["namespace"], name)


def _ref(kind: Kind, manifest: Manifest) -> Ref:
    return Ref(kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _is_as_new(known: Manifest, manifest: Manifest) -> bool:
    """Resource versions of one object are numbers that grow (Kubernetes 1.35 promises it, etcd always did it)."""
    if known["metadata"]["uid"] != manifest["metadata"]["uid"]:
        return False
    versions = known["metadata"]["resourceVersion"], manifest["metadata"]["resourceVersion"]
    return all(version.isdigit() for version in versions) and int(versions[0]) >= int(versions[1])


def _slim(kind: Kind, manifest: Manifest) -> Manifest:
    """Without what no pass reads: a thousand ModelDeployments have to fit into little memory."""
    metadata = dict(manifest["metadata"])
    if kind is not DEPLOYMENT or not compare.needs_managed_fields(manifest):
        metadata.pop("managedFields", None)
    slim = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    for name, value in manifest.items():
        if name == "status" or (kind is not POD and name not in slim):
            slim[name] = value
    shared: Manifest = _shared(slim)
    return shared


def _shared(value: Any) -> Any:
    """An equal value, with each string once in the process: objects of Kubernetes are made of the same words. Half the memory."""
    if isinstance(value, dict):
        return {sys.intern(name): _shared(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shared(item) for item in value]
    return sys.intern(value) if isinstance(value, str) else value
