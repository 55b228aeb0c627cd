"""The signature gate: a version that the callers of the stable one can't use is put back before anybody gets it.

Judged before it has any pod, where the registry tells the signature; else as soon as one pod of the canary has fetched the model, long
before it is ready, and before there is a second one: what is refused then costs one download, and one GPU. What the pods tell is judged
in any case. Nobody's traffic is needed for all that.
"""

from __future__ import annotations

import msgspec

from moorage_operator.core import checks, pins, signatures
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.signatures import Signature
from moorage_operator.core.state import State
from moorage_operator.core.waiting import World

COMPATIBLE = "compatible"
LET_THROUGH = "set rollout.signature: any to go on all the same"


def refusal(state: State, world: World, registered: Signature | None = None) -> Problem | None:
    """Why the canary may get nothing. `registered` is its signature as the registry tells it, for as long as no pod has."""
    found = _differences(state, world, registered)
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


def held_back(state: State, world: World, registered: Signature | None) -> State:
    """A canary that begins: with its first pod only, where that has something to tell which decides."""
    canary = state.canary
    if canary is None or registered or not _awaits_first_pod(state, world):
        return state
    return state.changed(canary=msgspec.structs.replace(canary, is_held_back=True))


def let_go(state: State, world: World) -> State:
    """With all of its pods from now on, and all of the time for them, as soon as the first has fetched the model."""
    canary = state.canary
    if canary is None or not canary.is_held_back or _awaits_first_pod(state, world):
        return state
    return state.changed(canary=msgspec.structs.replace(canary, is_held_back=False)).moved(started_at=world.now)


def _is_asked(state: State) -> bool:
    """Going back is never refused: not by a command, and not to what answered until just now."""
    canary = state.canary
    if canary is None or state.stable is None or canary.is_back:
        return False
    return state.undo is None or state.undo.revision != canary.revision


def _awaits_first_pod(state: State, world: World) -> bool:
    """Not where stable ends first, which leaves nobody to compare with; nor for a runtime that is ready and did not tell anything."""
    rollout, stable, canary = world.spec.rollout, state.stable, state.canary
    if rollout.signature == "any" or rollout.strategy == "recreate" or state.position.capacity.stable_ended:
        return False
    if stable is None or canary is None or not _is_asked(state) or pins.of(world.observed, stable).signature is None:
        return False
    pods = world.observed.pods_of(canary.revision)
    has_told = pins.of(world.observed, canary).digest or [*checks.fetched(pods)] or any(map(checks.is_ready, pods))
    return not has_told


def _differences(state: State, world: World, registered: Signature | None = None) -> tuple[str, ...]:
    """Nothing where one of the two is not known."""
    if not _is_asked(state) or not (state.canary and state.stable):
        return ()
    before, after = (pins.of(world.observed, role).signature for role in (state.stable, state.canary))
    after = after or registered
    return signatures.differences(before, after) if before and after else ()
