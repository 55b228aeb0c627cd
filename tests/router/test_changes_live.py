"""What happens to callers while the router changes, or something around it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time

import pytest

from moorage_operator import errors
from router_traffic import Load, answered, can_connect, load, until
from router_world import Router, a_canary, a_model


async def test_a_weight_changes_under_load_without_a_failure_or_a_reload(router: Router) -> None:
    async with load(router.port) as found:
        for weight in range(0, 10_001, 1000):
            await router.apply(fraud=a_model(router.port, canary=a_canary(weight)))
            await answered(found, 100)

    assert found.failed() == []
    assert found.pods["fraud-v2"] > 0
    assert router.reloads == 0


async def alternate(router: Router, times: int) -> Load:
    """Models come and go, headers change: each time a reload."""
    iris = a_model(router.second_port, stable="iris-v1")
    before = router.reloads
    async with load(router.port, callers=20) as found:
        for round_ in range(times):
            extra = {"iris": iris} if round_ % 2 == 0 else {}
            await router.apply(fraud=a_model(router.port, canary=a_canary(3000)), **extra)
            await answered(found, 200)
    assert router.reloads - before == times
    return found


async def test_a_reload_under_kept_alive_posts_fails_none(router: Router) -> None:
    found = await alternate(router, 4)

    assert found.failed() == []


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_many_reloads_under_kept_alive_posts_fail_none(router: Router) -> None:
    found = await alternate(router, 40)
    print(f"{found.total} requests, 40 reloads")  # noqa: T201 - the measurement

    assert found.failed() == []


async def test_counters_go_on_over_a_reload(router: Router) -> None:
    await router.ask(["a", "b", "c"])
    before = await router.counters()
    await router.apply(fraud=a_model(router.port, canary=a_canary(0), timeoutSeconds=7))
    await router.ask(["a", "b"])
    after = await router.counters()

    assert (before["stable"]["requests"], after["stable"]["requests"]) == (3, 5)


async def test_a_promotion_moves_nobody_back_and_needs_no_reload(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000)))
    before = router.reloads
    async with load(router.port) as found:
        await answered(found, 100)
        await router.apply(fraud=a_model(router.port, stable="fraud-v2"))
        await answered(found, 100)

    assert found.failed() == []
    assert set(found.pods) == {"fraud-v2"}
    assert router.reloads == before


async def test_pods_come_and_go_under_load_without_a_failure(router: Router) -> None:
    async with load(router.port) as found:
        for _ in range(3):
            pod = await router.add_pod("fraud-v1")
            await router.up("fraud-v1", 3)
            await pod.asked(1)
            router.unlist_pod(pod)
            await router.up("fraud-v1", 2)

    assert found.failed() == []


async def test_a_pod_that_leaves_ends_what_it_has_begun_and_is_forgotten_then(router: Router) -> None:
    hold = asyncio.Event()
    pod, asked = await router.hold_an_answer(hold)
    router.unlist_pod(pod)
    await router.up("fraud-v5", 0)
    await router.apply(fraud=a_model(router.port, stable="fraud-v5", canary=a_canary(1)))  # other changes go on
    hold.set()
    answer = await asked

    async def forgotten() -> bool:
        return not (await router.haproxy.sample()).pools["fraud:stable:http"].servers

    assert answer.status == 200
    await until(forgotten, "HAProxy has forgotten the server")


async def test_a_connection_that_was_idle_over_a_reload_still_has_one_answer(router: Router) -> None:
    caller = router.caller()
    await caller.post()
    await router.apply(fraud=a_model(router.port, canary=a_canary(0), timeoutSeconds=7))
    await router.apply(fraud=a_model(router.port, canary=a_canary(0), timeoutSeconds=8))
    answer = await caller.post()

    assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_killed_pod_costs_only_what_it_was_answering_and_nothing_after_that(router: Router) -> None:
    victim = await router.add_pod("fraud-v1")
    await router.up("fraud-v1", 3)
    async with load(router.port) as found:
        await answered(found, 200)
        await victim.kill()  # and stays listed
        killed_at = time.monotonic()
        await answered(found, 200)
        at_once = len(found.failed())
        await until(lambda: time.monotonic() - killed_at > 2, "two seconds later")
        before = found.failed()
        await answered(found, 500)

    assert at_once <= 8  # the callers
    assert found.failed() == before
    await router.counted("stable", bad=len(before))


async def test_only_who_finds_out_that_all_pods_of_a_canary_refuse_gets_an_error(router: Router) -> None:
    pods = [await router.add_pod("fraud-v5") for _ in range(2)]
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000, "fraud-v5")))
    await router.up("fraud-v5", 2)
    for pod in pods:
        await pod.kill()  # and stays listed
    first = await router.caller().post()
    later = [await router.caller().post() for _ in range(20)]

    assert first.status == 200 or (first.status, first.headers["retry-after"]) == (503, "1")  # a check may be sooner
    assert {answer.pod for answer in later} == {"fraud-v1"}


async def test_a_pod_that_dies_under_a_used_connection_is_counted_though_nothing_can_be_said(router: Router) -> None:
    await router.lose_an_answer()

    await router.counted("stable", requests=2, bad=1, canceled=0)


async def test_a_request_whose_pod_dies_gets_one_clear_502_and_is_not_sent_twice(router: Router) -> None:
    pods = [await router.add_pod("fraud-v5") for _ in range(2)]
    for pod in pods:
        pod.hold = asyncio.Event()
    await router.apply(fraud=a_model(router.port, stable="fraud-v5"))
    await router.up("fraud-v5", 2)
    asked = asyncio.create_task(router.caller().post())
    await until(lambda: sum(pod.requests for pod in pods) == 1, "a pod has the request")
    await next(pod for pod in pods if pod.requests).kill()
    answer = await asked

    assert (answer.status, answer.headers["content-type"]) == (502, "application/json")
    assert json.loads(answer.body) == {"error": "the pod of the model went away before it had answered"}
    assert sum(pod.requests for pod in pods) == 1
    await router.counted("stable", requests=1, bad=1, canceled=0)


async def test_what_the_caller_saw_is_counted_each_request_once(router: Router) -> None:
    pod = await router.add_pod("fraud-v5")
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000, revision="fraud-v5"), timeoutSeconds=1))
    await router.up("fraud-v5", 1)
    await router.ask(["fine"])
    pod.status = 500
    await router.ask(["model's fault"])
    pod.status, pod.hold = 200, asyncio.Event()
    (late,) = (await router.ask(["too late"])).values()
    impatient = router.caller()
    task = asyncio.create_task(impatient.post())
    await pod.asked(4)
    await impatient.close()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await task

    assert late.status == 504
    await router.counted("canary", requests=4, bad=3, canceled=1, responseErrors=1)


@pytest.mark.parametrize("used", [False, True], ids=["first", "later"])
async def test_a_caller_that_gives_up_is_counted_once_however_often_it_asked_before(router: Router, used: bool) -> None:
    pod = await router.add_pod("fraud-v5")
    await router.apply(fraud=a_model(router.port, stable="fraud-v5"))
    await router.up("fraud-v5", 1)
    caller = router.caller()
    if used:
        await caller.post()
    pod.hold = asyncio.Event()
    asked = asyncio.create_task(caller.post())
    await pod.asked(1 + used)
    await caller.close()
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await asked

    for _ in range(3):  # looks, and it stays so
        await router.counted("stable", requests=1 + used, bad=1, canceled=1)


async def test_an_answer_that_is_cut_short_is_a_bad_request(router: Router) -> None:
    pod = await router.add_pod("fraud-v5")
    await router.apply(fraud=a_model(router.port, stable="fraud-v5"))
    await router.up("fraud-v5", 1)
    pod.promised = 10_000
    with pytest.raises(asyncio.IncompleteReadError):
        await router.caller().post()

    await router.counted("stable", requests=1, bad=1, canceled=0)


async def test_a_pod_whose_packets_vanish_stops_hurting_within_two_seconds(router: Router) -> None:
    """A listener with a full backlog answers no SYN, as a dead node does not."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole, contextlib.ExitStack() as stack:
        address = hole.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        router.list_pod("fraud-v1", http=address[1])
        async with load(router.port) as found:
            began = time.monotonic()
            await until(lambda: time.monotonic() - began > 2, "two seconds later")
            state = await router.state()
            hurt, found.slowest = found.slowest, 0.0
            await answered(found, 500)
            slowest = found.slowest

    assert state["models"]["fraud"]["endpoints"]["fraud-v1"] == 2
    assert found.failed() == []
    assert slowest < 0.5 < hurt < 2.5


async def test_without_any_pod_there_is_one_clear_503(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, stable="fraud-v9"))

    answer = await router.caller().post()

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body) == {"error": "no pod of this model can be reached"}


async def test_a_dead_api_server_takes_nothing_away(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(5000)))
    version = (await router.state())["resourceVersion"]
    router.cluster.watches.set_down(errors.Unreachable("nobody there"))

    async def told() -> bool:
        return bool((await router.state())["problem"] == "nobody there")

    await until(told, "the agent says that the API server is gone")
    async with load(router.port) as found:
        await answered(found, 200)
    state = await router.state()

    assert found.failed() == []
    assert (state["resourceVersion"], state["models"]["fraud"]["canary"]["weight"]) == (version, 5000)
    assert router.agent.not_ready() == ""
    router.cluster.watches.set_down(None)
    await router.apply(fraud=a_model(router.port, canary=a_canary(0)))


async def test_a_table_that_is_wrong_changes_nothing_and_pods_are_still_followed(router: Router) -> None:
    version = (await router.state())["resourceVersion"]
    router.write_text('{"models": {"fraud": {}}}')

    async def told() -> bool:
        return "router.json" in (await router.state())["problem"]

    await until(told, "the agent says what is wrong")
    await router.add_pod("fraud-v1")
    await router.up("fraud-v1", 3)

    assert (await router.state())["resourceVersion"] == version
    assert router.agent.not_ready() == ""


async def test_a_port_that_cannot_be_had_is_a_problem_and_the_old_configuration_stays(router: Router) -> None:
    squatter = await asyncio.start_server(lambda *_: None, "127.0.0.1", router.second_port)
    version = (await router.state())["resourceVersion"]
    async with squatter, load(router.port) as found:
        router.write(fraud=a_model(router.port), iris=a_model(router.second_port, stable="iris-v1"))

        async def told() -> bool:
            return "did not take its new configuration: Binding [" in (await router.state())["problem"]

        await until(told, "the agent says that HAProxy did not take it", seconds=40)
        await answered(found, 100)
        state = await router.state()
        squatter.close()
        await squatter.wait_closed()
        await until(lambda: can_connect(router.second_port), "the port is taken later", seconds=40)
        await answered(found, 100)

    assert found.failed() == []
    assert state["resourceVersion"] == version


async def test_what_somebody_else_changed_in_haproxy_is_put_back(router: Router) -> None:
    haproxy = router.haproxy
    map_file = router.settings.layout.map_file
    await haproxy._ask(f"set map {map_file} fraud -:x:10000:0:-:fraud-v1:-")

    async def back() -> bool:
        return bool((await router.state())["models"])

    await until(back, "the split is as it was")
    assert (await router.caller().post()).pod == "fraud-v1"


async def test_a_haproxy_that_hangs_is_a_problem_and_no_hanging_answer(router: Router) -> None:
    pid = (await router.haproxy.sample()).worker.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        state = await asyncio.wait_for(router.state(), 15)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert "HAProxy does not answer" in state["problem"]
    assert state["models"] == {}
