"""What a person may tell a rollout, by the annotation `moorage.dev/command` of the ModelDeployment.

    promote@REVISION/STEP    go on from this pause
    promoteFull@REVISION     give it everything now, without any further step
    abort@REVISION           put it back to stable
    pause@REVISION           stay at this step
    resume@REVISION          go on after pause@, or after requests did not come as the weight says
    retry@REVISION           try a rejected revision again
    undo@REVISION            go back to a revision that is kept, until spec or alias change

A command names what it is meant for: one that was left over never touches the next rollout. It is acted on once and remembered in
the status; the annotation stays, because it may be somebody else's to remove. To say the same again, put `.2` behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from moorage_operator.core import judging, rollout, steps, strategy
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.state import Command, Result, State, Undo
from moorage_operator.core.waiting import World

_FORM = re.compile(r"(?P<verb>[A-Za-z]+)@(?P<revision>[a-z0-9-]{1,63})(/(?P<step>[0-9]{1,3}))?(\.[0-9]{1,20})?")
MAX_LENGTH = 256


class Refusal(Exception):
    """A command that means nothing now; says why."""


@dataclass(frozen=True)
class Order:
    """A command in its context: `wanted` is what spec and registry name, `kept` are all revisions that there are."""

    revision: str
    step: int | None
    wanted: str
    kept: Collection[str]


def obey(text: str, state: State, world: World, *, wanted: str, kept: Collection[str]) -> State:
    """The state after a new command; one that was heard before changes nothing."""
    if not text or (state.command and state.command.text == text[:MAX_LENGTH]):
        return state
    try:
        state = _obeyed(text, state, world, wanted, kept)
        refused = ""
    except Refusal as refusal:
        refused = str(refusal)
    return state.changed(command=Command(text[:MAX_LENGTH], world.now, refused))


def _obeyed(text: str, state: State, world: World, wanted: str, kept: Collection[str]) -> State:
    form = _FORM.fullmatch(text)
    verb = _VERBS.get(form["verb"]) if form else None
    if form is None or verb is None:
        raise Refusal(f"write one of {', '.join(f'{name}@REVISION' for name in _VERBS)}")
    step = int(form["step"]) if form["step"] else None
    return verb(Order(form["revision"], step, wanted, kept), _at_a_present_step(state, world), world)


def _at_a_present_step(state: State, world: World) -> State:
    """Steps that have just been changed begin anew before anything is said of them."""
    if state.canary is None or state.position.hash == strategy.hash_of(steps.of(world.spec, state)):
        return state
    return steps.begin(state, world)


def _promote(order: Order, state: State, world: World) -> State:
    state = _of_canary(order, state)
    index, all_steps = state.position.index, steps.of(world.spec, state)
    if order.step is not None and order.step != index:
        raise Refusal(f"{order.revision} is at step {index}, not at step {order.step}")
    waits = judging.alarm(state, world) or judging.obstacle(state, all_steps[index], all_steps[index + 1 :], world)
    if not (all_steps[index].pause or all_steps[index].analysis or waits):
        raise Refusal(f"{order.revision} is not at a pause: promoteFull@{order.revision} skips all steps")
    return steps.at(_without_alarm(state, world), index + 1, world)


def _promote_full(order: Order, state: State, world: World) -> State:
    state = _without_alarm(_of_canary(order, state), world)
    return steps.at(state, len(steps.of(world.spec, state)) - 1, world).moved(paused=False)


def _abort(order: Order, state: State, world: World) -> State:
    state = _of_canary(order, state)
    if state.stable is None:
        raise Refusal("there is no stable revision to go back to")
    return rollout.put_back(state, Problem(Reason.ABORTED, "somebody aborted it"), world, Result.ABORTED)


def _pause(order: Order, state: State, world: World) -> State:
    return _of_canary(order, state).moved(paused=True)


def _resume(order: Order, state: State, world: World) -> State:
    if not (_of_canary(order, state).position.paused or judging.alarm(state, world)):
        raise Refusal(f"{order.revision} is not paused by a command: promote@{order.revision} goes on from a step")
    return _without_alarm(state, world).moved(paused=False, started_at=world.now)


def _without_alarm(state: State, world: World) -> State:
    """Whoever lets it go on although the requests do not come as the weight says has found out why: they are counted anew."""
    return judging.with_new_ratio(state) if judging.alarm(state, world) else state


def _retry(order: Order, state: State, world: World) -> State:
    if not state.has_rejected(order.revision):
        raise Refusal(f"{order.revision} is not rejected")
    return state.changed(rejected=tuple(item for item in state.rejected if item.revision != order.revision))


def _undo(order: Order, state: State, world: World) -> State:
    if order.revision == order.wanted:
        return state.changed(undo=None)
    if order.revision not in order.kept:
        raise Refusal(f"{order.revision} is not kept; there are {', '.join(sorted(order.kept))}")
    if not order.wanted:
        raise Refusal("it is not known which revision is wanted: the registry has not answered")
    return state.changed(undo=Undo(order.revision, order.wanted))


def _of_canary(order: Order, state: State) -> State:
    if state.canary is None:
        raise Refusal("no rollout is under way")
    if state.canary.revision != order.revision:
        raise Refusal(f"the rollout is that of {state.canary.revision}, not of {order.revision}")
    return state


_VERBS: dict[str, Callable[[Order, State, World], State]] = {
    "promote": _promote,
    "promoteFull": _promote_full,
    "abort": _abort,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "undo": _undo,
}
