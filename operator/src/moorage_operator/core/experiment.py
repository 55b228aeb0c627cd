"""The arms of an experiment: when each gets its share of the requests, another version, or nothing any more. It waits for no rollout,
and no rollout waits for it.

    named ──► pods ready, routers know them ──► its weight ──► taken out: weight 0 ──► routers hold that ──► leaves
                                                   │  ▲
                        its alias moves: the next ─┘  └─ one's pods are ready and known; the one before leaves
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from moorage_operator.core import arm_routing, arms, checks, sizing
from moorage_operator.core.kinds import DEPLOYMENT
from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.state import Role, State
from moorage_operator.core.strategy import Match
from moorage_operator.core.trial import Arm, Experiment, Version
from moorage_operator.core.waiting import World


@dataclass(frozen=True)
class Resolved:
    """What an arm's model is, as the registry has said."""

    version: Version | None = None
    problem: Problem | None = None


@dataclass
class _Moves:
    """One arm's pass."""

    arm: Arm
    state: State
    world: World
    left: list[Version] = field(default_factory=list)
    """They have no pods for this arm any more."""

    def follow(self, asked: arms.Arm, resolved: Resolved | None) -> Arm:
        """Without an answer of the registry yet, what it said last goes on."""
        self._aim(resolved.version if resolved else None)
        self._size(asked)
        self._take_over()
        arm = self.arm
        if arm.revision and (arm.has_begun or self._is_ready(arm.revision)):
            match = asked.match if asked.match != Match() else None
            may_grow = asked.weight <= arm.weight or self._is_ready(arm.revision)
            weight = asked.weight if may_grow else arm.weight
            arm = arm.changed(has_begun=True, weight=weight, match=match)
        if resolved is None and not arm.revision:
            return arm
        problem = (resolved.problem if resolved else None) or self._problem()
        return arm.changed(problem=problem.message[: checks.MAX_MESSAGE] if problem else "")

    def _aim(self, target: Version | None) -> None:
        arm = self.arm
        if target is None:
            return
        if target.revision == arm.revision:
            self._change(next=None)
        elif arm.has_begun:
            self._change(next=target)
        else:
            self._change(revision=target.revision, model_version=target.model_version, next=None)

    def _take_over(self) -> None:
        following = self.arm.next
        if following and self._is_ready(following.revision):
            self._change(revision=following.revision, model_version=following.model_version, next=None)

    def _change(self, **changes: object) -> None:
        before, self.arm = self.arm, self.arm.changed(**changes)
        self.left += [version for version in before.versions if version not in tuple(self.arm.versions)]

    def _size(self, asked: arms.Arm) -> None:
        """No fewer than what the routers still send needs."""
        weight = max(asked.weight, self.arm.weight)
        pods = sizing.arm_pods(asked.replicas, weight, self.state, self.world)
        self.arm = self.arm.changed(replicas=pods if self.arm.revision else 0)

    def _is_ready(self, revision: str) -> bool:
        """One that others have as well has the pods that they need."""
        roles = (self.state.stable, self.state.canary, *self.state.leaving)
        is_shared = revision in [role.revision for role in roles if role]
        needed = 1 if is_shared else max(1, self.arm.replicas)
        observed = self.world.observed
        is_there = sizing.is_available(observed, revision, needed)
        return is_there and arm_routing.known_pods(observed, revision) >= needed

    def _problem(self) -> Problem | None:
        versions = list(self.arm.versions)
        return _problem_of(versions[-1].revision, self.world.observed) if versions else None


def advance(state: State, resolved: Mapping[str, Resolved], world: World) -> State:
    """`resolved` by arm. There is nothing to compare with before there is a stable revision."""
    if state.stable is None:
        return state
    asked = {arm.name: arm for arm in world.spec.arms}
    present = {arm.name: arm for arm in state.experiment.arms}
    after, left = [], []
    for arm in (*present.values(), *(Arm(name) for name in asked if name not in present)):
        if arm.name in asked:
            moves = _Moves(arm, state, world)
            after.append(moves.follow(asked[arm.name], resolved.get(arm.name)))
            left += [(version, arm.has_begun) for version in moves.left]
        elif not arm_routing.gets_nothing(world.observed, arm.name) or arm.weight:
            after.append(arm.changed(weight=0))
        else:
            left += [(version, arm.has_begun) for version in arm.versions]
    since = (state.experiment.since or world.now) if after else None
    at = state.experiment.at if after else None
    state = state.changed(experiment=Experiment(tuple(after), since, at, state.experiment.winner))
    return _with_leaving(state, left, world)


def _with_leaving(state: State, left: list[tuple[Version, bool]], world: World) -> State:
    """One that has answered keeps its pods for a while, as an old stable revision does."""
    used = state.experiment.versions.keys() | {role.revision for role in (state.stable, state.canary) if role}
    delay = timedelta(seconds=world.spec.rollout.scale_down_delay_seconds)
    found = {role.revision: role for role in state.leaving}
    for version, has_answered in left:
        if version.revision not in used:
            at = world.now + (delay if has_answered else timedelta())
            found.setdefault(version.revision, Role(version.revision, version.model_version, scale_down_at=at))
    return state.changed(leaving=tuple(found.values())) if len(found) > len(state.leaving) else state


def _problem_of(revision: str, observed: Observed) -> Problem | None:
    """What keeps the pods from answering."""
    for ref, words in (*observed.refused.items(), *observed.taken.items()):
        if ref.name == revision:
            return Problem(Reason.CHILD_REFUSED, f"{ref.kind.name} {revision}: {words}")
    return checks.problem_of(observed.child(DEPLOYMENT, revision), observed.pods_of(revision))
