"""From roles to writes: which children every revision should have now, and what has to be written for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moorage_operator.core import checks, compare, names, pods, resources, rollout
from moorage_operator.core.actions import Action, Apply, Delete, HandOverReplicas, RestoreTemplate
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CHILDREN,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    Kind,
    Manifest,
    ref_of,
)
from moorage_operator.core.observed import Observed
from moorage_operator.core.revisions import Revision
from moorage_operator.core.spec import Spec

_ONLY_WITH_TRAFFIC = (AUTOSCALER, DISRUPTION_BUDGET, SERVICE)
"""Children that a revision loses when it is scaled to 0, the autoscaler first: else it would scale up again."""


@dataclass(frozen=True)
class Plan:
    """Everything that the children depend on, for one pass."""

    spec: Spec
    observed: Observed
    roles: rollout.Roles
    revisions: dict[str, Revision]
    digests: dict[str, str]

    def actions(self) -> tuple[Action, ...]:
        """All writes, in order: build up, switch the address, and only then take down."""
        return (*self._build_up(), *self._switch(), *self._retire(), *self._forget())

    def _build_up(self) -> Iterator[Action]:
        for role in self.roles.all:
            if role.revision in self.revisions:
                yield from self._revision(role)

    def _revision(self, role: rollout.Role) -> Iterator[Action]:
        revision = self.revisions[role.revision]
        yield from self._write(resources.make_controller_revision(self.observed.owner, revision))
        if revision.name in self.digests:
            yield from self._write(resources.make_pin(self.observed.owner, revision, self.digests[revision.name]))
        if self._must_wait(role):
            return
        if self._ends_first(role):
            yield from self._scale_to_zero(revision)
            return
        yield from self._deployment(role, revision)
        yield from self._write(resources.make_revision_service(self.observed.owner, revision))
        yield from self._disruption_budget(role, revision)

    def _deployment(self, role: rollout.Role, revision: Revision) -> Iterator[Action]:
        """The Deployment and its autoscaler: `replicas` changes hands without ever falling to the default of 1."""
        if self.spec.autoscaling is None:
            yield from self._write(
                self._make_deployment(revision, replicas=self._fixed_count(role), track=self._track(role))
            )
            yield from self._delete(AUTOSCALER, revision.name)
            return
        needed = role.replicas or self.spec.autoscaling.min_replicas
        deployment = self._make_deployment(revision, replicas=None, track=self._track(role))
        live = self.observed.child(DEPLOYMENT, revision.name)
        count = max(needed, self.observed.replicas(revision.name))
        hand_over = HandOverReplicas(ref_of(deployment), count)
        if live is None:
            yield from self._write(deployment)
            yield hand_over
        elif self._nobody_scales(revision.name):
            if not compare.is_handed_over(live, count):
                yield hand_over
            yield from self._write(deployment)
        else:
            yield from self._write(deployment)
        minimum = max(self.spec.autoscaling.min_replicas, role.replicas)
        yield from self._write(
            resources.make_autoscaler(self.observed.owner, revision, self.spec.autoscaling, min_replicas=minimum)
        )

    def _make_deployment(self, revision: Revision, *, replicas: int | None, track: str) -> Manifest:
        deadline = self.spec.rollout.progress_deadline_seconds
        return resources.make_deployment(
            self.observed.owner, revision, replicas=replicas, track=track, deadline=deadline
        )

    def _nobody_scales(self, revision: str) -> bool:
        """Without an autoscaler yet, or at 0 where an autoscaler rests, the count must be set before it is let go."""
        return self.observed.child(AUTOSCALER, revision) is None or self.observed.replicas(revision) == 0

    def _fixed_count(self, role: rollout.Role) -> int:
        """A revision that has just handed over keeps what it has, whatever the spec says by now."""
        if role is self.roles.previous:
            return self.observed.replicas(role.revision)
        return self.spec.fixed_replicas

    def _track(self, role: rollout.Role) -> str:
        """A first revision has the address from the beginning: it is no canary to anything, and need not be written again later."""
        if role is self.roles.stable or (role is self.roles.canary and not self.roles.stable):
            return "stable"
        return "canary" if role is self.roles.canary else ""

    def _must_wait(self, role: rollout.Role) -> bool:
        stable = self.roles.stable
        if role is not self.roles.canary or not stable or not rollout.stable_must_end_first(self.roles, self.spec):
            return False
        return any(pod["metadata"]["labels"].get(names.REVISION) == stable.revision for pod in self.observed.pods)

    def _ends_first(self, role: rollout.Role) -> bool:
        return role is not self.roles.canary and rollout.stable_must_end_first(self.roles, self.spec)

    def _disruption_budget(self, role: rollout.Role, revision: Revision) -> Iterator[Action]:
        scaling = self.spec.autoscaling
        fewest = scaling.min_replicas if scaling else self._fixed_count(role)
        if fewest >= 2:
            yield from self._write(resources.make_disruption_budget(self.observed.owner, revision))
        else:
            yield from self._delete(DISRUPTION_BUDGET, revision.name)

    def _switch(self) -> Iterator[Action]:
        target = self.roles.stable or self.roles.canary
        if target:
            service = resources.make_stable_service(self.observed.owner, self.spec, target.revision)
            yield from self._write(service)

    def _retire(self) -> Iterator[Action]:
        for revision in self._retired()[: self.spec.revision_history_limit]:
            yield from self._scale_to_zero(revision)

    def _scale_to_zero(self, revision: Revision) -> Iterator[Action]:
        """Kept for going back to it: the Deployment at 0, its template and its digest."""
        yield from self._delete(AUTOSCALER, revision.name)
        if self.observed.child(DEPLOYMENT, revision.name):
            yield from self._write(self._make_deployment(revision, replicas=0, track=""))
        for kind in _ONLY_WITH_TRAFFIC[1:]:
            yield from self._delete(kind, revision.name)

    def _forget(self) -> Iterator[Action]:
        """Delete what belongs to no revision that is kept."""
        kept = self.roles.revisions | {
            revision.name for revision in self._retired()[: self.spec.revision_history_limit]
        }
        for kind in reversed(CHILDREN):
            for ref, child in self.observed.children.items():
                revision = child["metadata"]["labels"].get(names.REVISION)
                if ref.kind is kind and revision and revision not in kept:
                    yield _deletion(child)

    def _retired(self) -> list[Revision]:
        """Frozen revisions without a role, newest first."""
        active = self.roles.revisions
        retired = [item for name, item in self.observed.frozen_revisions().items() if name not in active]
        return sorted(retired, key=lambda revision: -revision.number)

    def _write(self, manifest: Manifest) -> Iterator[Action]:
        """What it takes to make the live object hold this manifest: nothing, if it does."""
        ref = ref_of(manifest)
        if ref in self.observed.taken:
            return
        desired = compare.with_hash(manifest)
        live = self.observed.children.get(ref)
        if live is None:
            yield Apply(desired)
            return
        if not compare.holds(desired, live):
            yield Apply(desired, uid=live["metadata"]["uid"])
        elif ref.kind is DEPLOYMENT and compare.has_foreign_template_fields(live):
            yield RestoreTemplate(ref, live["spec"]["template"], manifest["spec"]["template"])

    def _delete(self, kind: Kind, name: str) -> Iterator[Action]:
        live = self.observed.child(kind, name)
        if live and not live["metadata"].get("deletionTimestamp"):
            yield _deletion(live)


def pinned_digests(observed: Observed, roles: rollout.Roles) -> dict[str, str]:
    """Digest of each revision: as pinned before (in the ConfigMap, in status), else what its pods agree to report."""
    found = {}
    for role in roles.all:
        pin = observed.child(CONFIG_MAP, role.revision) or {}
        reported = checks.reported_digests(observed.pods_of(role.revision))
        agreed = next(iter(reported)) if len(reported) == 1 else ""
        found[role.revision] = pin.get("data", {}).get(pods.DIGEST_KEY, "") or role.digest or agreed
    return {revision: digest for revision, digest in found.items() if digest}


def _deletion(live: Manifest) -> Delete:
    metadata = live["metadata"]
    return Delete(ref_of(live), uid=metadata["uid"], resource_version=metadata["resourceVersion"])
