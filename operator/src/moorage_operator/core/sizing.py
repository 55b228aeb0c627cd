"""How many pods a revision needs for what it has to carry."""

from __future__ import annotations

import math
from fractions import Fraction

from moorage_operator.core import checks
from moorage_operator.core.kinds import DEPLOYMENT
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State
from moorage_operator.core.waiting import World


def canary_pods(state: State, spec: Spec, observed: Observed, weight: int) -> int:
    """Pods of the canary for so many percent of the requests. With an autoscaler the number only grows."""
    if weight < 100 and state.position.scale is not None:
        return state.position.scale
    if spec.autoscaling is None:
        shows = spec.traffic.shows_weights_by_pods and 0 < weight < 100
        return (_ratio_to if shows else _share_of)(spec.fixed_replicas, weight)
    before = state.canary.replicas if state.canary else 0
    needed = max(spec.autoscaling.min_replicas, math.ceil(_carrying(state, observed) * weight / 100), before)
    return min(needed, spec.autoscaling.max_replicas)


def arm_pods(wanted: int | None, weight: int, state: State, world: World) -> int:
    """Of an arm of an experiment, which has no autoscaler: it follows the pods of stable."""
    if wanted is not None:
        return wanted
    scaling = world.spec.autoscaling
    if scaling is None:
        return _share_of(world.spec.fixed_replicas, weight)
    present = world.observed.replicas(state.stable.revision) if state.stable else 0
    return min(_share_of(max(present, scaling.min_replicas), weight), scaling.max_replicas)


def is_available(observed: Observed, revision: str, count: int) -> bool:
    """Has the revision `count` pods that run the frozen template and have been ready for minReadySeconds?"""
    deployment = observed.child(DEPLOYMENT, revision)
    return deployment is not None and checks.has_available(deployment, count)


def _ratio_to(replicas: int, weight: int) -> int:
    """Beside so many pods of stable; the CRD lets only weights through that come out even."""
    return -(-replicas * weight // (100 - weight))


def _share_of(replicas: int, weight: int) -> int:
    """One pod is never enough where the user wants two: it could fail and look like the model."""
    share = -(-replicas * weight // 100)
    return max(share, min(replicas, 2))


def _carrying(state: State, observed: Observed) -> Fraction:
    """How many pods all of the requests need, at most, where autoscalers keep both versions from being overloaded (docs/adr/0006).

    No autoscaler shrinks stable meanwhile. Of the canary's pods only those count that were there before the present step: while it
    gets more, each would else ask for another one.
    """
    weight, canary = state.position.weight, state.position.canary_pods
    stable = Fraction(observed.replicas(state.stable.revision) if state.stable else 0)
    if not weight:
        return stable
    by_canary = max(stable, Fraction(100 * canary, weight))
    return by_canary if weight == 100 else min(by_canary, 100 * stable / (100 - weight))
