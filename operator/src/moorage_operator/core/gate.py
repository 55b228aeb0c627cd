"""The signature gate: a version that the callers of the stable one can't use is put back before anybody gets it.

Judged as soon as one pod of the canary has fetched the model, long before it is ready; nobody's traffic is needed for that.
"""

from __future__ import annotations

from moorage_operator.core import pins, signatures
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.spec import Spec
from moorage_operator.core.state import Rejected, State
from moorage_operator.core.waiting import World

COMPATIBLE = "compatible"
LET_THROUGH = "set rollout.signature: any to go on all the same"


def refusal(state: State, world: World) -> Problem | None:
    """Why the canary may get nothing."""
    found = _differences(state, world)
    if not found or world.spec.rollout.signature == "any":
        return None
    what = f"the signature is not compatible: {signatures.in_words(found)}; {LET_THROUGH}"
    return Problem(Reason.SIGNATURE_INCOMPATIBLE, what)


def told(state: State, world: World) -> str:
    """What is known of the canary's signature, in words; empty while nothing is, and where nobody is asked."""
    if not _is_asked(state) or not (state.canary and state.stable):
        return ""
    before, after = (pins.of(world.observed, role) for role in (state.stable, state.canary))
    if not after.digest:
        return ""
    for role, pin in ((state.stable, before), (state.canary, after)):
        if pin.signature is None:
            return f"not compared: the runtime of version {role.model_version} did not tell its signature"
    found = _differences(state, world)
    return f"not compatible: {signatures.in_words(found)}" if found else COMPATIBLE


def is_open_again(item: Rejected, spec: Spec) -> bool:
    """Was it put back by this gate, which the spec has opened since?"""
    return item.reason == Reason.SIGNATURE_INCOMPATIBLE and spec.rollout.signature == "any"


def _is_asked(state: State) -> bool:
    """Going back is never refused: not by a command, and not to what answered until just now."""
    canary = state.canary
    if canary is None or state.stable is None or canary.is_back:
        return False
    return state.undo is None or state.undo.revision != canary.revision


def _differences(state: State, world: World) -> tuple[str, ...]:
    """Nothing where one of the two is not known."""
    if not _is_asked(state) or not (state.canary and state.stable):
        return ()
    before, after = (pins.of(world.observed, role).signature for role in (state.stable, state.canary))
    return signatures.differences(before, after) if before and after else ()
