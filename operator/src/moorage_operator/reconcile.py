"""observe → decide → apply: the whole operator, once a pass. Read this file first.

`Reconciler.reconcile(key)` is the one function behind every watch event, every answer of a registry, every tick of the clock
and every resync. It may be called at any time, twice, after a crash between two writes, or for no reason at all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from moorage_operator import companions, errors, ports, router_rows
from moorage_operator.core import decide, events, leftovers, names, revisions, spec, status
from moorage_operator.core.actions import (
    Action,
    Apply,
    Decision,
    Delete,
    HandOverReplicas,
    Leave,
    RestoreTemplate,
    in_words,
)
from moorage_operator.core.kinds import CHILDREN, HTTP_ROUTE, MODEL_DEPLOYMENT, POD, Manifest, Ref, ref_of
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.core.observed import Answer, Observed
from moorage_operator.core.platform import Platform
from moorage_operator.core.reasons import Reason
from moorage_operator.core.registry import ModelRef
from moorage_operator.core.spec import Spec
from moorage_operator.index import Index
from moorage_operator.retakes import Retakes

log = logging.getLogger(__name__)

MAX_LOOKS = 5
"""How often a pass looks closer before its first write. Each look settles something; more means that the world is moving."""


ROUTERS_SECONDS = 1.0
"""How soon to look again whether the routers have been asked; they wake us, too."""


class Refused(Exception):
    """The API server does not take a child as the spec wants it."""

    def __init__(self, ref: Ref, cause: errors.ClusterError) -> None:
        super().__init__(f"{ref}: {cause}")
        self.ref = ref
        self.cause = cause


class NameTaken(Exception):
    """An object was to be made, and there is one of that name, which the index does not know."""


@dataclass
class Looked:
    """What one pass has asked the API server itself."""

    free: set[Ref] = field(default_factory=set)
    held: dict[Ref, str] = field(default_factory=dict)
    """Names that others hold, in words that follow "it exists and …"."""
    at_all: bool = False
    doubts_names: bool = False
    """A name that seemed free was not: look at the others before they are written."""


class Reconciler:
    """Carries one ModelDeployment at a time from what is to what ought to be."""

    def __init__(
        self,
        *,
        cluster: ports.Cluster,
        index: Index,
        answers: companions.Answers,
        routers: companions.Routers,
        meter: companions.Meter,
        errands: companions.Errands,
        retakes: Retakes,
        platform: Platform,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._answers = answers
        self._routers = routers
        self._meter = meter
        self._errands = errands
        self._retakes = retakes
        self._platform = platform
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns in how many seconds the clock alone wants another one, or None."""
        now = self._clock().replace(microsecond=0)
        manifest = self._index.model_deployment(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            self._routers.awaited(key, by=False)
            self._meter.measure(key, None, heeded=None)
            self._errands.want(key, ())
            self._retakes.forget(key)
            return None
        if not self._routers.has_asked(key.namespace):
            # What was said of the routers stands until they have been asked: a process that has just begun knows nothing of them.
            self._routers.awaited(key, by=True)
            return ROUTERS_SECONDS
        looked = Looked()
        for _ in range(MAX_LOOKS):
            try:
                return await self._pass(key, now, looked)
            except msgspec.ValidationError as error:
                observed = self._observe(key, manifest, None, {})
                await self._write_status(observed, status.make_invalid(observed, str(error), now))
                return None
            except NameTaken:
                looked.doubts_names = True
            except errors.NamespaceTerminating:
                # It goes with its children, in an order that nobody knows, and none of them can be made again. Forgotten, it
                # is not tried for each child that goes; the next resync finds it, should it stay after all.
                log.info("%s: its namespace is being deleted; left alone", key)
                self._index.remove(MODEL_DEPLOYMENT, manifest)
                return None
        raise errors.Conflict(f"{key} changes faster than it can be read")

    async def _pass(self, key: Key, now: datetime, looked: Looked) -> float | None:
        wanted, observed, decision = await self._settle(key, now, looked)
        try:
            await self._apply(observed, decision, looked, now)
        except Refused as refusal:
            observed = replace(observed, refused={refusal.ref: str(refusal.cause)})
            await self._tell(observed, decide.decide(wanted, observed, self._platform, now))
            raise refusal.cause from refusal
        await self._tell(observed, decision)
        self._routers.awaited(key, by=decision.awaits_routers)
        self._meter.measure(key, decision.measure, heeded=observed.sample)
        return (decision.look_again_at - now).total_seconds() if decision.look_again_at else None

    async def _settle(self, key: Key, now: datetime, looked: Looked) -> tuple[Spec, Observed, Decision]:
        """Decide, look closer at what the decision rests on, and decide again, until nothing new is found."""
        for _ in range(MAX_LOOKS):
            manifest = self._index.model_deployment(key)
            if manifest is None:
                break
            wanted = spec.parse(manifest)
            answer = self._answers.answer(wanted.model.registry.name, wanted.model.ref)
            observed = replace(
                self._observe(key, manifest, answer, looked.held),
                answers=self._answers_of_arms(wanted),
                contests=self._retakes.contests(key, now) | self._retakes.contests(RouterKey(key.namespace), now),
            )
            decision = decide.decide(wanted, observed, self._platform, now)
            unseen = {item.ref for item in decision.actions if isinstance(item, Apply) and not item.uid} - looked.free
            if decide.is_momentous(observed, decision) and not looked.at_all:
                await self._look_at_all(key)
                looked.at_all = True
            elif unseen and (looked.doubts_names or _has_name_conflict(observed)):
                await self._look_at(unseen, observed.owner, looked)
            elif not await self._retakes.look(key, decision.actions, now):
                return wanted, observed, decision
        raise errors.Conflict(f"{key} changes faster than it can be read")

    def _answers_of_arms(self, wanted: Spec) -> dict[ModelRef, Answer]:
        found = {ref: self._answers.answer(wanted.model.registry.name, ref) for ref in map(wanted.ref_of, wanted.arms)}
        return {ref: answer for ref, answer in found.items() if answer}

    def _observe(self, key: Key, manifest: Manifest, answer: Answer | None, held: dict[Ref, str]) -> Observed:
        """The world as the index has it. A child that another owner holds is a taken name, whatever its labels say."""
        metadata = manifest["metadata"]
        owner = revisions.Owner(key.namespace, key.name, metadata["uid"])
        known = self._index.children(key)
        taken = held | {ref: words for ref, child in known.items() if (words := owner.does_not_own(child))}
        now = self._clock()
        return Observed(
            owner=owner,
            generation=metadata["generation"],
            resource_version=metadata["resourceVersion"],
            status=manifest.get("status", {}),
            command=(metadata.get("annotations") or {}).get(names.COMMAND, ""),
            router=router_rows.checked(self._routers.view(key), manifest),
            answer=answer,
            sample=self._meter.sample(key),
            reports=self._errands.reports(key),
            children={ref: child for ref, child in known.items() if ref not in taken},
            pods=tuple(pod for pod in self._index.pods(key) if not leftovers.is_lost(pod, now)),
            taken=taken,
        )

    async def _look_at(self, refs: Iterable[Ref], owner: revisions.Owner, looked: Looked) -> None:
        """The index may lack what is there: ours is remembered in it, what others hold for this pass."""
        for ref in refs:
            live = await self._cluster.get(ref)
            words = owner.does_not_own(live) if live else ""
            if live is None:
                looked.free.add(ref)
            elif words:
                looked.held[ref] = words
            else:
                self._index.put(ref.kind, live)

    async def _look_at_all(self, key: Key) -> None:
        """Before traffic moves or anything ends: the live ModelDeployment, its children and its pods."""
        live = await self._cluster.get(Ref(MODEL_DEPLOYMENT, key.namespace, key.name))
        if live is None:
            return
        self._index.put(MODEL_DEPLOYMENT, live)
        labels = names.MANAGED | {names.DEPLOYMENT: key.name}
        for kind in (*CHILDREN, POD):
            found = self._cluster.list(kind, namespace=key.namespace, labels=labels)
            await self._index.replace(kind, found, before=self._index.refs(kind, key))
        route = Ref(HTTP_ROUTE, key.namespace, key.name)
        if self._index.child(key, route) or spec.parse(live).traffic.is_published:
            await self._look_at_route(route)

    async def _look_at_route(self, ref: Ref) -> None:
        """None, where the cluster has no Gateway API."""
        live = await self._cluster.get(ref)
        known = self._index.object(ref)
        if live:
            self._index.put(HTTP_ROUTE, live)
        elif known:
            self._index.remove(HTTP_ROUTE, known)

    async def _apply(self, observed: Observed, decision: Decision, looked: Looked, now: datetime) -> None:
        """The only code that changes children. An error leaves the rest to the next pass."""
        key = Key(observed.owner.namespace, observed.owner.name)
        for action in decision.actions:
            ref = action.deployment if isinstance(action, HandOverReplicas | RestoreTemplate) else action.ref
            try:
                await self._carry_out(action, looked)
            except (errors.Invalid, errors.Forbidden) as error:
                raise Refused(ref, error) from error
            self._retakes.done(key, action, now)
            if not isinstance(action, Leave):  # as often as somebody else writes it
                log.info("%s: %s", observed.owner, in_words(action))

    async def _carry_out(self, action: Action, looked: Looked) -> None:
        match action:
            case Apply(manifest, uid) if uid or action.ref in looked.free:
                metadata = manifest["metadata"] | ({"uid": uid} if uid else {})
                stored = await self._cluster.apply(manifest | {"metadata": metadata})
            case Apply(manifest):
                stored = await self._make(manifest)
            case HandOverReplicas(ref, replicas):
                partial = {
                    "apiVersion": ref.kind.api_version,
                    "kind": ref.kind.name,
                    "metadata": {"name": ref.name, "namespace": ref.namespace},
                    "spec": {"replicas": replicas},
                }
                stored = await self._cluster.apply(partial, manager=names.REPLICAS_MANAGER)
            case RestoreTemplate(seen, desired):
                # Not the resourceVersion: the replicas of the same Deployment may have been handed over just before.
                test = {"op": "test", "path": "/spec/template", "value": seen}
                replacement = test | {"op": "replace", "value": desired["spec"]["template"]}
                stored = await self._cluster.patch(action.deployment, [test, replacement])
            case Leave():
                return
            case Delete(ref, uid, resource_version):
                await self._cluster.delete(ref, uid=uid, resource_version=resource_version)
                self._index.remove(ref.kind, {"metadata": {"name": ref.name, "namespace": ref.namespace, "uid": uid}})
                return
        self._index.put(ref_of(stored).kind, stored)

    async def _make(self, manifest: Manifest) -> Manifest:
        """The server itself says whether the name is free, in the same breath: no index is believed, and no GET is needed."""
        new = manifest["metadata"] | {"resourceVersion": ports.NO_VERSION}
        try:
            return await self._cluster.apply(manifest | {"metadata": new})
        except errors.Conflict as error:
            raise NameTaken(str(ref_of(manifest))) from error

    async def _tell(self, observed: Observed, decision: Decision) -> None:
        """Events first: if the status can't be written after them, the next pass finds them told already."""
        for event in decision.events:
            log.log(
                logging.WARNING if event.warning else logging.INFO,
                "%s: %s: %s",
                observed.owner,
                event.reason,
                event.message,
            )
            with contextlib.suppress(errors.AlreadyExists):
                await self._cluster.create(events.make(observed, event, self._clock()))
        await self._write_status(observed, decision.status)
        # Only now: what is not written down would be forgotten by a crash, or be done twice.
        self._errands.want(Key(observed.owner.namespace, observed.owner.name), decision.errands)

    async def _write_status(self, observed: Observed, wanted: Manifest) -> None:
        if wanted == observed.status:
            return
        owner = observed.owner
        manifest = {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.name,
            "metadata": {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid},
            "status": wanted,
        }
        stored = await self._cluster.apply(manifest, subresource="status")
        self._index.put(MODEL_DEPLOYMENT, stored)


def _has_name_conflict(observed: Observed) -> bool:
    """Did the last pass find a name taken? Then this one looks before it writes, lest it tries in vain each time."""
    return any(item.get("reason") == Reason.NAME_CONFLICT for item in observed.status.get("conditions", []))
