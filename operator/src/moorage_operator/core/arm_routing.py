"""What all routers say of the arms of an experiment. None of it is known while one of them can't be asked."""

from __future__ import annotations

from collections.abc import Mapping

from moorage_operator.core import routing
from moorage_operator.core.kinds import SERVICE
from moorage_operator.core.observed import Observed
from moorage_operator.core.routing import HeldArm, Match
from moorage_operator.core.state import State
from moorage_operator.core.strategy import Match as Condition
from moorage_operator.core.trial import NEXT, Arm


def applied(observed: Observed, arm: str) -> int | None:
    """Percent; 0 for an arm that no router has, None where they do not agree."""
    weights = {_weight(held.arms, arm) for held in observed.router.told or ()}
    return weights.pop() if len(weights) == 1 else None


def is_held(observed: Observed, arm: Arm) -> bool:
    """Do all routers send this arm what they ought to?"""
    matches = frozenset([_as_held(arm.match, arm.revision)]) if arm.match else frozenset()
    wanted = HeldArm(arm.revision, arm.weight * routing.BUCKETS, matches)
    found = observed.router.told
    return found is not None and all(held.arms.get(arm.name) == wanted for held in found)


def is_programmed(observed: Observed, state: State) -> bool:
    """Are all arms held, and no others?"""
    arms = [arm for arm in state.experiment.arms if arm.revision]
    wanted = {name for arm in arms for name in ([arm.name, f"{arm.name}{NEXT}"] if arm.next else [arm.name])}
    found = observed.router.told or ()
    return all(is_held(observed, arm) for arm in arms) and all(held.arms.keys() == wanted for held in found)


def known_pods(observed: Observed, revision: str) -> int:
    """That every router can reach."""
    return min((held.endpoints.get(revision, 0) for held in observed.router.told or ()), default=0)


def still_sent_to(observed: Observed, revision: str) -> bool:
    """May some router still send requests to it, as to an arm?"""
    service = observed.child(SERVICE, observed.owner.name)
    if routing.port_of(service) is None:
        return False
    found = observed.router.told
    return found is None or any(
        arm.revision == revision and (arm.weight or arm.matches) for held in found for arm in held.arms.values()
    )


def gets_nothing(observed: Observed, arm: str) -> bool:
    """By weight. A match goes with the arm itself."""
    service = observed.child(SERVICE, observed.owner.name)
    return routing.port_of(service) is None or applied(observed, arm) == 0


def _weight(arms: Mapping[str, HeldArm], name: str) -> int:
    return arms[name].weight // routing.BUCKETS if name in arms else 0


def _as_held(match: Condition, revision: str) -> Match:
    return Match(revision, match.value, match.header, match.cookie)
