"""The two seams to the outside. `adapters` implement them for real, `tests/fake_cluster.py` and `tests/fake_registry.py` in
memory; one contract test suite (`tests/contract`) holds both to the same behaviour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from moorage_operator.core import names
from moorage_operator.core.kinds import Kind, Manifest, Ref
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.core.routing import AgentState

NO_VERSION = "1"
"""A resource version that no object has: an apply that names it makes a new object, or is a `Conflict`."""


@dataclass(frozen=True)
class Selection:
    """Objects to follow: of one kind and namespace (empty: of all), all or those with these labels, or the one with this name."""

    kind: Kind
    namespace: str
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """All objects of a selection as they were at one moment, which `follow` can go on from."""

    objects: tuple[Manifest, ...]
    resource_version: str


@dataclass(frozen=True)
class Change:
    """What has happened to one object. A BOOKMARK tells nothing but how far the API server is; its manifest has no name."""

    happening: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    manifest: Manifest

    @property
    def resource_version(self) -> str:
        return str(self.manifest["metadata"]["resourceVersion"])


class Cluster(Protocol):
    """All Kubernetes I/O. Every method raises `errors.ClusterError` (or a subclass) and nothing else."""

    async def get(self, ref: Ref) -> Manifest | None:
        """The live object, or None where there is none."""

    def list(
        self, kind: Kind, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Manifest]:
        """All live objects with these labels, of one namespace or (empty) of all; never more than a page in memory.

        One may come twice: the API server forgets the snapshot behind the pages after some minutes.
        """

    async def snapshot(self, selection: Selection) -> Snapshot:
        """The live objects of a selection; an empty one is no error."""

    def follow(self, selection: Selection, *, since: str) -> AsyncIterator[Change]:
        """What happens to a selection after `since`, as it happens; ends when the API server ends it, go on from the last change.

        `Expired` when the API server no longer knows what happened since; `Unreachable` when it falls silent.
        """

    async def apply(self, manifest: Manifest, *, manager: str = names.FIELD_MANAGER, subresource: str = "") -> Manifest:
        """Server-side apply with force: the full intent of `manager`; fields it had set and now leaves out are dropped.

        `metadata.uid` and `metadata.resourceVersion`, if given, must be the live object's, else `Conflict`; the latter does not
        matter where there is no object yet. Returns the stored object.
        """

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; `AlreadyExists` if the name is taken."""

    async def patch(self, ref: Ref, operations: Sequence[Mapping[str, Any]]) -> Manifest:
        """JSON patch (RFC 6902), all or nothing; a failed `test` is `Conflict`."""

    async def delete(self, ref: Ref, *, uid: str, resource_version: str) -> None:
        """Delete in the background, if the live object is still that one, else `Conflict`; without a version it may have changed.
        Already gone is success.
        """


class Agents(Protocol):
    """The agents beside HAProxy in the router pods. Read only."""

    async def state(self, address: str) -> AgentState:
        """What the router at that IP address holds now; `errors.AgentUnreachable` if it can't be told."""


class Runtimes(Protocol):
    """The model pods. Read only."""

    async def metrics(self, address: str) -> str:
        """What the pod at that IP address has counted, in the text format of Prometheus; else `errors.RuntimeUnreachable`."""


class Prometheus(Protocol):
    """A Prometheus of the platform, for guards that ask one."""

    async def value(self, query: str) -> float:
        """The one number that the query gives now; `errors.QueryFailed` if there is none."""


class Registry(Protocol):
    """All I/O with one MLflow registry. Raises `errors.RegistryError` (a subclass) and nothing else."""

    async def resolve(self, model: ModelRef) -> ModelVersion:
        """The version that the reference names now; only a version in state READY is an answer."""

    async def set_tags(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Make these tags of a version so, in this order; None removes one. What is so already is not written."""

    async def move_alias(self, model: str, alias: str, *, away_from: str, to: str) -> bool:
        """Let the alias name version `to` if it names `away_from` now; whether it names `to` then.

        Whoever moves it between the reading and the setting, some milliseconds, is overwritten: MLflow has no way to ask for both.
        """
