"""A router pod that ends: what is answered until then, and by which table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from router_traffic import Caller, can_connect, refuses_connections, until
from router_world import Router, a_canary, a_model


@contextlib.asynccontextmanager
async def ending(router: Router) -> AsyncIterator[None]:
    """From when new connections are refused until HAProxy has ended, which is when the last kept one has."""
    stopping = asyncio.create_task(router.stop_haproxy())
    await refuses_connections(router.port)
    yield
    assert await stopping == 0


async def kept_callers(router: Router, count: int) -> list[Caller]:
    found = [router.caller() for _ in range(count)]
    for caller in found:
        assert (await caller.post()).headers.get("connection") is None
    return found


async def test_requests_on_kept_connections_go_where_the_table_says_by_then(router: Router) -> None:
    """As in a promotion whose old pods soon go: nobody may be sent to them."""
    before, promoted, split = await kept_callers(router, 3)
    async with ending(router):
        answers = [await before.post()]
        await router.add_pod("fraud-v9")
        await router.apply(fraud=a_model(router.port, stable="fraud-v9"))
        await router.up("fraud-v9", 1)
        answers.append(await promoted.post())
        await router.apply(fraud=a_model(router.port, stable="fraud-v9", canary=a_canary(10_000)))
        answers.append(await split.post())

    assert [answer.pod for answer in answers] == ["fraud-v1", "fraud-v9", "fraud-v2"]
    assert {answer.headers["connection"] for answer in answers} == {"close"}


async def test_pods_are_still_looked_after(router: Router) -> None:
    """Which HAProxy's own soft stop would not do: it would end the checks, and new servers would stay down."""
    (caller,) = await kept_callers(router, 1)
    pod = await router.add_pod("fraud-v9")
    await router.apply(fraud=a_model(router.port, stable="fraud-v9"))
    await router.up("fraud-v9", 1)
    async with ending(router):
        await pod.kill()
        await router.up("fraud-v9", 0)
        await pod.start()
        await router.up("fraud-v9", 1)

        assert (await caller.post()).pod == "fraud-v9"


async def test_a_new_structure_is_taken_and_no_connection_with_it(router: Router) -> None:
    (caller,), before = await kept_callers(router, 1), router.reloads
    async with ending(router):
        await router.apply(fraud=a_model(router.port, timeoutSeconds=9))
        await refuses_connections(router.port)

        assert (await caller.post()).status == 200

    assert router.reloads == before + 1


async def test_one_that_cannot_be_asked_ends_all_the_same(router: Router) -> None:
    router.settings.layout.admin_socket.unlink()

    assert await router.stop_haproxy() == 0


async def test_one_that_has_just_begun_ends_all_the_same(router: Router) -> None:
    """HAProxy's master starts itself anew as soon as its worker answers; a signal just then is lost."""
    for _ in range(5):
        await router.stop_haproxy()
        await router.start_haproxy()
        await until(lambda: can_connect(router.port), "HAProxy listens")

    assert await router.stop_haproxy() == 0
