"""From roles to writes: which children every revision should have now, and what has to be written for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moorage_operator.core import address, compare, ends_first, names, no_capacity, publishing, resources, writes
from moorage_operator.core.actions import Action, HandOverReplicas
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CHILDREN,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    Manifest,
    ref_of,
)
from moorage_operator.core.observed import Observed
from moorage_operator.core.pins import Pin
from moorage_operator.core.revisions import Revision
from moorage_operator.core.spec import Autoscaling, Spec
from moorage_operator.core.state import Role, State

_ONLY_WITH_TRAFFIC = (AUTOSCALER, DISRUPTION_BUDGET, SERVICE)
"""Children that a revision loses when it is scaled to 0, the autoscaler first: else it would scale up again."""


@dataclass(frozen=True)
class Plan:
    """Everything that the children depend on, for one pass."""

    spec: Spec
    observed: Observed
    state: State
    revisions: dict[str, Revision]
    pins: dict[str, Pin]

    def actions(self) -> tuple[Action, ...]:
        """All writes, in order: switch the address, because what takes over is ready by then; build up; take down. Arms of an experiment
        come last, and a route that divides nothing: nothing else waits for what the API server has against one of them."""
        has_address = self.observed.child(SERVICE, self.observed.owner.name) is not None
        route = tuple(publishing.actions(self.spec, self.observed, self.state))
        first, last = (route, ()) if self.spec.traffic.by_gateway else ((), route)
        switch = (*first, *address.actions(self.spec, self.observed, self.state))
        up = (*switch, *self._build_up()) if has_address else (*self._build_up(), *switch)
        return (*up, *self._retire(), *self._forget(), *self._build_arms(), *last)

    def _build_up(self) -> Iterator[Action]:
        for role in self.state.roles:
            if role.revision in self.revisions and not self._is_arm(role):
                yield from self._revision(role)

    def _build_arms(self) -> Iterator[Action]:
        for role in self.state.roles:
            if role.revision in self.revisions and self._is_arm(role):
                yield from self._revision(role)

    def _is_arm(self, role: Role) -> bool:
        return role not in (self.state.stable, self.state.canary, *self.state.leaving)

    def _revision(self, role: Role) -> Iterator[Action]:
        revision = self.revisions[role.revision]
        yield from writes.hold(self.observed, resources.make_controller_revision(self.observed.owner, revision))
        if revision.name in self.pins:
            data = self.pins[revision.name].data()
            yield from writes.hold(self.observed, resources.make_pin(self.observed.owner, revision, data))
        if self._must_wait(role):
            return
        if self._ends_first(role):
            yield from self._scale_to_zero(revision)
            return
        yield from self._deployment(role, revision)
        yield from writes.hold(self.observed, resources.make_revision_service(self.observed.owner, revision))
        yield from self._disruption_budget(role, revision)

    def _deployment(self, role: Role, revision: Revision) -> Iterator[Action]:
        """The Deployment and its autoscaler: `replicas` changes hands without ever falling to the default of 1."""
        if self.spec.autoscaling is None or self._has_fixed_count(role):
            yield from writes.hold(
                self.observed,
                self._make_deployment(revision, replicas=self._fixed_count(role), track=self._track(role)),
            )
            yield from writes.delete(self.observed, AUTOSCALER, revision.name)
            return
        needed = role.replicas or self.spec.autoscaling.min_replicas
        deployment = self._make_deployment(revision, replicas=None, track=self._track(role))
        live = self.observed.child(DEPLOYMENT, revision.name)
        count = max(needed, self.observed.replicas(revision.name))
        hand_over = HandOverReplicas(ref_of(deployment), count)
        if live is None:
            yield from writes.hold(self.observed, deployment)
            yield hand_over
        elif self._nobody_scales(revision.name):
            if not compare.is_handed_over(live, count):
                yield hand_over
            yield from writes.hold(self.observed, deployment)
        else:
            yield from writes.hold(self.observed, deployment)
        yield from writes.hold(self.observed, self._make_autoscaler(self.spec.autoscaling, role, revision))

    def _has_fixed_count(self, role: Role) -> bool:
        """Beside an autoscaler: that of an arm, of what was one until just now, and of a canary that is held back."""
        was_arm = role in self.state.leaving and self.observed.child(AUTOSCALER, role.revision) is None
        return self._is_arm(role) or was_arm or role.is_held_back

    def _make_autoscaler(self, scaling: Autoscaling, role: Role, revision: Revision) -> Manifest:
        minimum = max(scaling.min_replicas, role.replicas)
        may_shrink = not (self.state.leaving or (self.state.stable and self.state.canary))
        gives_up = role is self.state.stable and no_capacity.autoscaler_may_shrink(self.state, self.spec)
        shrinks: resources.Shrinks = "one by one" if gives_up else "freely" if may_shrink else "never"
        return resources.make_autoscaler(self.observed.owner, revision, scaling, min_replicas=minimum, shrinks=shrinks)

    def _make_deployment(self, revision: Revision, *, replicas: int | None, track: str) -> Manifest:
        deadline = self.spec.rollout.progress_deadline_seconds
        return resources.make_deployment(
            self.observed.owner, revision, replicas=replicas, track=track, deadline=deadline
        )

    def _nobody_scales(self, revision: str) -> bool:
        """Without an autoscaler yet, or at 0 where an autoscaler rests, the count must be set before it is let go."""
        return self.observed.child(AUTOSCALER, revision) is None or self.observed.replicas(revision) == 0

    def _fixed_count(self, role: Role) -> int:
        """A revision that has just handed over keeps what it has, whatever the spec says by now."""
        if role in self.state.leaving:
            return self.observed.replicas(role.revision)
        if role is self.state.canary:
            return role.replicas + self.state.experiment.pods(role.revision)
        return role.replicas if self._is_arm(role) else no_capacity.stable_pods(self.state, self.spec)

    def _track(self, role: Role) -> str:
        """A first revision has the address from the beginning: it is no canary to anything, and need not be written again later."""
        if role is self.state.stable or (role is self.state.canary and not self.state.stable):
            return "stable"
        if self._is_arm(role):
            return self.state.experiment.of(role.revision)[0].name
        return "canary" if role is self.state.canary else ""

    def _must_wait(self, role: Role) -> bool:
        stable = self.state.stable
        if role is not self.state.canary or not stable or not ends_first.is_asked(self.state, self.spec):
            return False
        is_there = any(pod["metadata"]["labels"].get(names.REVISION) == stable.revision for pod in self.observed.pods)
        return is_there or not ends_first.is_due(self.state, self.spec, self.observed)

    def _ends_first(self, role: Role) -> bool:
        if role is self.state.canary or self._is_arm(role):
            return False
        return ends_first.is_due(self.state, self.spec, self.observed)

    def _disruption_budget(self, role: Role, revision: Revision) -> Iterator[Action]:
        scaling = self.spec.autoscaling
        fewest = scaling.min_replicas if scaling and not self._has_fixed_count(role) else self._fixed_count(role)
        if fewest >= 2:
            yield from writes.hold(self.observed, resources.make_disruption_budget(self.observed.owner, revision))
        else:
            yield from writes.delete(self.observed, DISRUPTION_BUDGET, revision.name)

    def _retire(self) -> Iterator[Action]:
        for revision in self._retired()[: self.spec.revision_history_limit]:
            yield from self._scale_to_zero(revision)

    def _scale_to_zero(self, revision: Revision) -> Iterator[Action]:
        """Kept for going back to it: the Deployment at 0, its template and its digest."""
        yield from writes.delete(self.observed, AUTOSCALER, revision.name)
        if self.observed.child(DEPLOYMENT, revision.name):
            yield from writes.hold(self.observed, self._make_deployment(revision, replicas=0, track=""))
        for kind in _ONLY_WITH_TRAFFIC[1:]:
            yield from writes.delete(self.observed, kind, revision.name)

    def _forget(self) -> Iterator[Action]:
        """Delete what belongs to no revision that is kept."""
        kept = self.state.revisions | {
            revision.name for revision in self._retired()[: self.spec.revision_history_limit]
        }
        for kind in reversed(CHILDREN):
            for ref, child in self.observed.children.items():
                # By its name, too: a label may be somebody's mistake, and is put back.
                revision = (child["metadata"].get("labels") or {}).get(names.REVISION)
                if ref.kind is kind and revision and not {revision, ref.name} & kept:
                    yield writes.deletion(child)

    def _retired(self) -> list[Revision]:
        """Frozen revisions without a role, newest first."""
        active = self.state.revisions
        retired = [item for name, item in self.observed.frozen_revisions().items() if name not in active]
        return sorted(retired, key=lambda revision: -revision.number)
