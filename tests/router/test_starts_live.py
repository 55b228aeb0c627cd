"""A router pod that is new, or whose HAProxy or agent is: with what it begins, and what its end costs."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from moorage_operator import errors
from router_traffic import DEADLINE, Caller, answered, can_connect, load, refuses_connections, until
from router_world import Router, a_canary, a_model, with_pods


async def answers_from_the_start(router: Router, *, enough: int = 20) -> list[str]:
    """By which pods requests on new connections are answered, from when nobody listens until the agent has been ready for a while."""
    pods: list[str] = []
    since_ready = 0
    while since_ready < enough:
        is_ready, caller = not router.agent.not_ready(), Caller(router.port)
        try:
            pods.append((await caller.post()).pod)
        except ConnectionRefusedError:
            assert not is_ready
            await asyncio.sleep(0.005)
        await caller.close()
        since_ready += is_ready
    return pods


@pytest.mark.parametrize("first", ["agent", "haproxy"])
async def test_a_new_router_pod_has_the_last_weights_before_it_is_ready_each_time(tmp_path: Path, first: str) -> None:
    for number in range(3):
        async with with_pods(tmp_path / str(number), canary=10_000) as router, asyncio.timeout(DEADLINE):
            router.settings.layout.folder.mkdir()
            asking = asyncio.create_task(answers_from_the_start(router))
            if first == "agent":
                router.start_agent()
                await until(router.settings.layout.config_file.exists, "the agent has written what it was told")
            await router.start_haproxy()
            if first == "haproxy":
                router.start_agent()

            assert set(await asking) == {"fraud-v2"}


async def test_a_haproxy_that_dies_comes_back_with_the_last_weights_and_pods_each_time(router: Router) -> None:
    """Its agent is gone, too: it begins with the files, and they say what was only told at run time."""
    pod = await router.add_pod("fraud-v3")
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000)))
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000, revision="fraud-v3")))
    await router.up("fraud-v3", 1)
    await router.ask(["a"])
    assert (await router.counters())["canary"]["requests"] == 1
    before = router.reloads
    await router.stop_agent()
    for _ in range(3):
        await router.kill_worker_and_wait()
        await router.start_haproxy()
        await until(lambda: can_connect(router.port), "HAProxy listens again")
        assert {answer.pod for answer in (await router.ask(["a", "b", "c"])).values()} == {"fraud-v3"}

    router.start_agent()
    await router.up("fraud-v3", 1)

    assert pod.requests == 1 + 3 * 3
    assert router.reloads == before
    assert (await router.counters())["canary"]["requests"] == 1 + 3  # nobody looked at the lives in between


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "new"])
async def test_a_killed_haproxy_costs_only_what_was_in_flight_and_nothing_two_seconds_later(
    router: Router, keep_alive: bool
) -> None:
    """The kubelet starts the container anew when its process has ended; until then connections are refused, none is lost."""
    async with load(router.port, callers=8, keep_alive=keep_alive) as found:
        await answered(found, 200)
        killed_at = time.monotonic()
        await router.kill_worker_and_wait()
        await router.start_haproxy()
        await until(lambda: time.monotonic() - killed_at > 2, "two seconds later")
        await answered(found, 500)

    cut = [error for error in found.failures if "ConnectionRefused" not in error]
    assert len(cut) <= 8  # the callers
    assert len(found.failed()) == len(found.failures), "no bad answer"
    assert found.failed_at
    assert max(found.failed_at) - killed_at < 2


async def test_a_stopped_haproxy_ends_what_it_has_begun(router: Router) -> None:
    pod = await router.add_pod("fraud-v5")
    pod.hold = asyncio.Event()
    await router.apply(fraud=a_model(router.port, stable="fraud-v5"))
    await router.up("fraud-v5", 1)
    asked = asyncio.create_task(router.caller().post())
    await pod.asked(1)
    stopping = asyncio.create_task(router.stop_haproxy(signal.SIGTERM))
    await refuses_connections(router.port)
    pod.hold.set()

    assert (await asked).status == 200
    assert await stopping == 0


async def test_a_new_agent_is_ready_only_when_it_has_seen_haproxy_hold_what_it_was_told(router: Router) -> None:
    assert router.agent.not_ready() == ""
    await router.stop_agent()
    router.cluster.watches.set_down(errors.Unreachable("nobody there"))
    await router.restart_agent()
    await until(lambda: router.agent.not_ready() == "nobody there", "the agent says why it is not ready")
    answer = await router.caller().post()
    router.cluster.watches.set_down(None)
    await until(lambda: not router.agent.not_ready(), "the agent is ready")

    assert answer.status == 200


async def first_state_of_a_new_agent(router: Router) -> dict[str, Any]:
    """The first with models, as the operator takes no other for a reading."""
    await router.restart_agent()
    state: dict[str, Any] = {}

    async def told() -> bool:
        state.update(await router.state())
        return bool(state["models"])

    await until(told, "the new agent says what HAProxy has")
    return state


async def test_a_new_agent_begins_with_all_that_haproxy_has_counted(router: Router) -> None:
    """And at once with the requests that were lost: if they came later, they would look like new ones."""
    await router.lose_an_answer()
    await router.counted("stable", requests=2, bad=1)
    before = await router.state()
    after = await first_state_of_a_new_agent(router)

    assert after["startedAt"] > before["startedAt"]
    assert after["models"]["fraud"]["counters"] == before["models"]["fraud"]["counters"]


async def test_a_new_agent_does_not_know_what_a_worker_before_had_counted(router: Router) -> None:
    """So its counters may be lower than the last agent's: `startedAt` says that they can't be compared."""
    await router.ask(["a", "b", "c"])
    await router.apply(fraud=a_model(router.port, timeoutSeconds=7))
    await router.ask(["a", "b"])
    before = await router.counters()
    after = (await first_state_of_a_new_agent(router))["models"]["fraud"]["counters"]

    assert (before["stable"]["requests"], after["stable"]["requests"]) == (5, 2)
