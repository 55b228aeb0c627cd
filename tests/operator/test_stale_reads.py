"""A new operator whose watches begin with what was half a minute ago: it does nothing that the newest state does not ask for.

Kubernetes answers a LIST out of a cache, which may lag, where a client allows it. Ours does not: its LIST before the first pass, and
the reads before anything that ends pods or moves requests, ask for the newest. So the watches are stale here, and those reads are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import world
from world import World

STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
Happening = Callable[[World], Awaitable[None]]


async def nothing(served: World) -> None:
    """It is as it was."""


async def begin(served: World) -> None:
    served.move_alias("4")
    await served.settle()


async def go_on(served: World) -> None:
    served.command(f"promote@{served.revision('4')}/1")
    await served.settle()


async def promote(served: World) -> None:
    served.command(f"promoteFull@{served.revision('4')}")
    await served.settle()
    await served.pass_time(31)


async def abort(served: World) -> None:
    served.command(f"abort@{served.revision('4')}")
    await served.settle()
    await served.pass_time(31)


async def lose_the_canary(served: World) -> None:
    served.fates["4"] = world.loading
    served.run_controllers()
    await served.settle()
    await served.pass_time(31)


async def begin_and_promote(served: World) -> None:
    await begin(served)
    await promote(served)


async def begin_and_abort(served: World) -> None:
    await begin(served)
    await abort(served)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("before", "since"),
    [
        (nothing, begin),
        (nothing, begin_and_promote),
        (nothing, begin_and_abort),
        (begin, go_on),
        (begin, promote),
        (begin, abort),
        (begin, lose_the_canary),
    ],
)
async def test_a_new_operator_that_hears_of_the_past_undoes_nothing(
    before: Happening, since: Happening, late: bool
) -> None:
    served = World()
    served.move_alias("3")
    served.apply(replicas=4, rollout={"steps": STEPS})
    await served.settle()
    await before(served)
    past = served.snapshot()
    await since(served)
    before_it, counts, shares = roles(served), served.counts(), served.agents.shares()
    served.cluster.writes.clear()
    served.deaf = True
    served.restart(told=past, late=late)
    for _ in range(8):
        served.now += timedelta(seconds=5)
        await served.reconcile()
        served.agents.look()
    assert (served.counts(), served.agents.shares()) == (counts, shares)
    assert served.cluster.writes.keys() <= {("apply", "ModelDeployment")}, "its status tells what is being judged"
    assert roles(served) == before_it
    served.deaf = False
    served.resync()
    await served.settle()
    assert (served.counts(), served.agents.shares()) == (counts, shares)
    assert roles(served) == before_it


def roles(served: World) -> list[Any]:
    """Who has which part in the status, and how each rollout ended."""
    return [served.status.get(name) for name in ("stable", "canary", "leaving", "weights", "history", "rejected")]
