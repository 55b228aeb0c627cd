"""The router of one namespace, from what is to what ought to be; its queue key is the namespace.

What a ModelDeployment wants of the router is in its status (roles, weight, salt). This pass alone writes the ConfigMap that the
agents follow, and makes the Deployment in which they run. A row that the agents would refuse is not written, lest it hold up the others:
the one from before stays, and the ModelDeployment's own pass tells why.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from moorage_operator import errors, ports, router_rows
from moorage_operator.core import checks, names, revisions, routing, spec
from moorage_operator.core.actions import Action, Apply, Delete
from moorage_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, SERVICE, Manifest, Ref, ref_of
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.core.observed import Observed
from moorage_operator.core.platform import RouterSettings
from moorage_operator.core.router_plan import RouterPlan, unwatched
from moorage_operator.index import Index
from moorage_operator.retakes import Retakes

log = logging.getLogger(__name__)

ROLL_AGAIN_SECONDS = 10.0
"""How soon to look whether another namespace's router has been renewed."""


class RouterReconciler:
    """`wake` is called with each ModelDeployment that has got a port."""

    def __init__(
        self,
        *,
        cluster: ports.Cluster,
        index: Index,
        settings: RouterSettings,
        retakes: Retakes,
        wake: Callable[[Key], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._settings = settings
        self._retakes = retakes
        self._wake = wake
        self._clock = clock
        self._rows: dict[Key, tuple[str, int, Manifest | None]] = {}
        self._on_turn = ""
        """The namespace whose router is being told to have new pods."""
        self._unwatched: dict[Ref, Manifest] = {}
        """ServiceAccount, RoleBinding, and what has lost its labels, as last seen: no watch shows them, and a resync forgets them."""

    def forget(self) -> None:
        """Look again at what no watch shows."""
        self._unwatched.clear()

    async def reconcile(self, key: RouterKey) -> float | None:
        """One pass. Returns in how many seconds another one is wanted, or None."""
        wanted = self._wanted(key.namespace)
        if not wanted and not self._is_left_over(key):
            self._retakes.forget(key)
            return None
        try:
            return await self._pass(key, wanted)
        except errors.NamespaceTerminating:
            log.info("%s: its namespace is being deleted; left alone", key)
            return None

    def _is_left_over(self, key: RouterKey) -> bool:
        """Is there a router that nobody asks for? Where there is no ModelDeployment at all, the garbage collector removes it."""
        return key.namespace in self._index.router_namespaces and bool(self._index.in_namespace(key.namespace))

    async def _pass(self, key: RouterKey, wanted: dict[str, Manifest]) -> float | None:
        now = self._clock()
        observed = replace(await self._observe(key), contests=self._retakes.contests(key, now))
        config_map = observed.children.get(Ref(CONFIG_MAP, key.namespace, routing.NAME))
        before = routing.read_ports(config_map, self._addresses(key.namespace))
        after = routing.allocated(before, wanted)
        data = routing.data(after, self._rows_of(key.namespace, wanted, after, config_map))
        owners = [_owner(wanted[name]) for name in sorted(wanted)]
        plan = RouterPlan(key.namespace, owners, self._settings, observed)
        with self._turn(key.namespace, wanted=plan.rolls()) as may_roll:
            actions = tuple(plan.actions(data, may_roll=may_roll))
            for action in actions:
                await self._carry_out(action, key)
                self._retakes.done(key, action, now)
        new = after.of.keys() - (before.of.keys() if config_map else set())
        for name in wanted if await self._retakes.look(key, actions, now) else new:
            self._wake(Key(key.namespace, name))
        return self._again_in(key, now) if may_roll else ROLL_AGAIN_SECONDS

    def _again_in(self, key: RouterKey, now: datetime) -> float | None:
        """When something that is fought over may be put back."""
        moments = [moment for contest in self._retakes.contests(key, now).values() for moment in contest.moments]
        return min(((moment - now).total_seconds() for moment in moments if moment > now), default=None)

    def _wanted(self, namespace: str) -> dict[str, Manifest]:
        """ModelDeployments that are to be behind the router, or still are."""
        return {
            name: manifest
            for name, manifest in self._index.in_namespace(namespace).items()
            if not manifest["metadata"].get("deletionTimestamp")
            and (_asks_for_router(manifest) or routing.port_of(self._address(namespace, name)) is not None)
        }

    def _address(self, namespace: str, name: str) -> Manifest | None:
        """The Service of a ModelDeployment."""
        return self._index.child(Key(namespace, name), Ref(SERVICE, namespace, name))

    def _addresses(self, namespace: str) -> list[Manifest]:
        found = [self._address(namespace, name) for name in self._index.in_namespace(namespace)]
        return [service for service in found if service]

    async def _observe(self, key: RouterKey) -> Observed:
        children = dict(self._index.children(key))
        for ref in unwatched(key.namespace, self._settings):
            if ref not in self._unwatched and (live := await self._cluster.get(ref)):
                self._unwatched[ref] = live
        children |= {ref: live for ref, live in self._unwatched.items() if ref.namespace == key.namespace}
        owner = revisions.Owner(key.namespace, routing.NAME, "")
        return Observed(owner=owner, generation=0, children=children)

    def _rows_of(
        self, namespace: str, wanted: dict[str, Manifest], ports_: routing.Ports, config_map: Manifest | None
    ) -> dict[str, Manifest]:
        """Made anew only for what has changed: a namespace may have a thousand."""
        rows = {}
        is_new = any(Key(namespace, name) not in self._rows for name in wanted)
        stored = routing.read_rows(config_map) if is_new else {}
        for name, manifest in wanted.items():
            key, version, port = Key(namespace, name), manifest["metadata"]["resourceVersion"], ports_.of[name]
            known = self._rows.get(key)
            if known is None or known[:2] != (version, port):
                row = router_rows.make(manifest, port)
                before = known[2] if known else stored.get(name) if row.refusal else None
                self._rows[key] = known = (version, port, row.content or router_rows.kept(name, before, port))
            if known[2] is not None:
                rows[name] = known[2]
        for key in [key for key in self._rows if key.namespace == namespace and key.name not in wanted]:
            del self._rows[key]
        return rows

    @contextlib.contextmanager
    def _turn(self, namespace: str, *, wanted: bool) -> Iterator[bool]:
        """May this router be renewed? Asked and taken at once: the index knows of it only when the answer to the write is here."""
        if not wanted or self._someone_rolls(namespace):
            yield not wanted
            return
        self._on_turn = namespace
        try:
            yield True
        finally:
            self._on_turn = ""

    def _someone_rolls(self, but: str) -> bool:
        """Is another namespace's router being renewed? One that can't be is not waited for: its old pods go on."""
        if self._on_turn not in ("", but):
            return True
        for namespace in self._index.router_namespaces - {but}:
            deployment = self._index.child(RouterKey(namespace), Ref(DEPLOYMENT, namespace, routing.NAME))
            if deployment and _is_rolling(deployment):
                return True
        return False

    async def _carry_out(self, action: Action, key: RouterKey) -> None:
        match action:
            case Apply(manifest, uid):
                identity = {"uid": uid} if uid else {"resourceVersion": ports.NO_VERSION}
                wanted = manifest | {"metadata": manifest["metadata"] | identity}
                if uid and "resourceVersion" in manifest["metadata"]:
                    wanted["metadata"]["resourceVersion"] = manifest["metadata"]["resourceVersion"]
                try:
                    self._remember(await self._cluster.apply(wanted))
                except errors.Conflict:
                    await self._find(action.ref)
                    raise
            case Delete(ref, uid, resource_version):
                await self._cluster.delete(ref, uid=uid, resource_version=resource_version)
                self._index.remove(ref.kind, {"metadata": {"name": ref.name, "namespace": ref.namespace, "uid": uid}})
                self._unwatched.pop(ref, None)
            case _:
                # What somebody added to the router's pods, by `kubectl rollout restart` for example, stays.
                return
        log.info("%s: wrote %s", key, type(action).__name__)

    async def _find(self, ref: Ref) -> None:
        """It is not as we thought: take up what is there, or that nothing is, or say that the name is taken."""
        live = await self._cluster.get(ref)
        if live is None:
            self._unwatched.pop(ref, None)
            return
        labels, annotations = (live["metadata"].get(item) or {} for item in ("labels", "annotations"))
        if labels.get(names.MANAGED_BY) != names.OPERATOR and names.APPLIED_HASH not in annotations:
            raise errors.Invalid(
                f"the {ref} exists and was not made by Moorage: remove it, or use router replicas here"
            )
        self._remember(live)

    def _remember(self, live: Manifest) -> None:
        """Of what somebody has taken a label from, no watch tells us any more."""
        ref = ref_of(live)
        self._unwatched.pop(ref, None)
        is_watched = ref not in unwatched(ref.namespace, self._settings)
        if not is_watched or self._index.put(ref.kind, live) != RouterKey(ref.namespace):
            self._unwatched[ref] = live


def _asks_for_router(manifest: Manifest) -> bool:
    return manifest["spec"].get("traffic", {}).get("router", "auto") in spec.BY_HAPROXY


def _is_rolling(deployment: Manifest) -> bool:
    progress = checks.condition_of(deployment, "Progressing").get("reason")
    gave_up = progress == "ProgressDeadlineExceeded" and checks.status_is_current(deployment)
    return not gave_up and not checks.has_available(deployment, deployment["spec"].get("replicas", 1))


def _owner(manifest: Manifest) -> revisions.Owner:
    metadata = manifest["metadata"]
    return revisions.Owner(metadata["namespace"], metadata["name"], metadata["uid"])
