"""`experiment.winner: promote`: the version of an arm that is shown to be better becomes the wanted one, as if the spec named it.

It holds, as an undo does, as long as spec and registry name the revision that they named then. It goes through the rollout's steps,
which may put it back.
"""

from __future__ import annotations

import msgspec

from moorage_operator.core import revisions
from moorage_operator.core.platform import Platform
from moorage_operator.core.revisions import Revision
from moorage_operator.core.state import State
from moorage_operator.core.trial import Arm, Finding, Verdict, Winner
from moorage_operator.core.verdicts import ERRORS, WRONG
from moorage_operator.core.waiting import World


def chosen(state: State, named: str, world: World) -> State:
    """With a winner, if there is one; never while another version is on its way. `named` is what spec and registry name."""
    experiment, spec = state.experiment, world.spec.experiment
    is_at_rest = state.stable is not None and state.canary is None and state.stable.revision == named
    if spec is None or spec.winner != "promote" or experiment.winner or not is_at_rest:
        return state
    asked = {arm.name for arm in world.spec.arms}
    better = [(found, arm) for arm in experiment.arms if arm.name in asked and (found := _estimate(arm)) is not None]
    if not better:
        return state
    _, arm = min(better, key=lambda item: item[0])
    winner = Winner(arm.name, arm.revision, arm.model_version, instead_of=named)
    return state.changed(experiment=msgspec.structs.replace(experiment, winner=winner))


def wanted(
    state: State, named: Revision | None, world: World, *, known: dict[str, Revision], platform: Platform
) -> tuple[State, Revision | None]:
    """The revision that is wanted instead of the named one: the winner's version, made as spec says now."""
    won = state.experiment.winner
    if won is None or named is None:
        return state, named
    if won.instead_of != named.name or won.revision not in known:
        return state.changed(experiment=msgspec.structs.replace(state.experiment, winner=None)), named
    model = known[won.revision].model
    return state, revisions.chosen(world.observed.owner, world.spec, model, known=known, platform=platform)


def _estimate(arm: Arm) -> float | None:
    """Of one that is better by what callers told, or by errors where they told nothing, and worse in nothing."""
    by_metric = {item.metric: item for item in arm.verdicts}
    if not by_metric or any(item.verdict is Finding.WORSE for item in arm.verdicts):
        return None
    told, errors = by_metric[WRONG], by_metric[ERRORS]
    decisive: Verdict = told if told.requests else errors
    return decisive.estimate if decisive.verdict is Finding.BETTER else None
