"""Which revision each arm of an experiment should have: the same questions to the registry as for the model itself, one for each arm."""

from __future__ import annotations

from moorage_operator.core import experiment, revisions, verdicts, winner
from moorage_operator.core.experiment import Resolved
from moorage_operator.core.platform import Platform
from moorage_operator.core.revisions import Revision
from moorage_operator.core.state import State
from moorage_operator.core.trial import Version
from moorage_operator.core.waiting import World


def advance(state: State, named: str, known: dict[str, Revision], platform: Platform, world: World) -> State:
    """The experiment, one pass on. New revisions are added to the `known` ones; `named` is what the spec itself names."""
    resolved = {}
    for arm in world.spec.arms:
        answer = world.observed.answers.get(world.spec.ref_of(arm))
        if answer is None:
            continue
        version = None
        if answer.version:
            wanted = world.spec.of_arm(arm)
            found = revisions.chosen(world.observed.owner, wanted, answer.version, known=known, platform=platform)
            known.setdefault(found.name, found)
            version = Version(found.name, found.model.version)
        resolved[arm.name] = Resolved(version, answer.problem)
    state = winner.chosen(verdicts.heeded(state, world), named, world)
    return experiment.advance(state, resolved, world)
