"""The model's life without any web framework: loading, failing, wedged, draining; and what the health port says of it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from moorage_runtime import drain, errors, service
from moorage_runtime.routes import health
from runtime_builders import Adder, Stuck, a_service, an_adder


def checks(served: service.ModelService, *, drain_seconds: float = 0) -> httpx.AsyncClient:
    app = health.Health(served, drain.Drainer(served, drain_seconds))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://health")


def refuse() -> service.Model:
    raise errors.PickleNotAllowed("set allowPickle")


async def test_a_model_is_loading_then_ready() -> None:
    served = a_service()
    async with checks(served) as client:
        before = await client.get("/readyz")
        await served.load(an_adder)
        after = await client.get("/readyz")
    assert (before.status_code, before.json()["reason"]) == (503, "loading the model")
    assert after.status_code == 200


async def test_a_model_that_can_not_be_loaded_is_failed_with_the_reason() -> None:
    served = a_service()
    await served.load(refuse)
    assert isinstance(served.state, service.Failed)
    assert served.not_ready_because() == "PickleNotAllowed: set allowPickle"
    with pytest.raises(errors.NotReady, match="set allowPickle"):
        _ = served.model


async def test_a_slow_model_does_not_hold_up_the_event_loop() -> None:
    served, engine = a_service(), Stuck()
    await served.load(lambda: an_adder(engine))
    prediction = asyncio.create_task(served.predict(served.model.example))
    async with checks(served) as client:
        assert await asyncio.to_thread(engine.started.wait, 10)
        assert (await client.get("/healthz")).status_code == 200
    engine.let_go.set()
    assert (await prediction).outputs[""].tolist() == [0.0]


async def test_a_prediction_that_never_ends_makes_the_process_unhealthy() -> None:
    served, engine = a_service(), Stuck()
    await served.load(lambda: an_adder(engine))
    prediction = asyncio.create_task(served.predict(served.model.example))
    assert await asyncio.to_thread(engine.started.wait, 10)
    late = time.monotonic() + service.WEDGED_SECONDS + 1
    assert "has been running for 12" in served.unhealthy_because(late)
    engine.let_go.set()
    await prediction
    assert served.unhealthy_because(late) == ""


async def test_draining_is_not_ready_and_ends_for_all_who_wait_at_the_same_time() -> None:
    served = a_service()
    await served.load(an_adder)
    async with checks(served, drain_seconds=0.2) as client:
        started = time.monotonic()
        first = asyncio.create_task(client.get("/drain"))
        while not served.draining:
            await asyncio.sleep(0)
        assert "draining" in (await client.get("/readyz")).json()["reason"]
        assert (await client.get("/drain")).status_code == (await first).status_code == 200
    assert 0.2 <= time.monotonic() - started < 2


async def test_the_health_port_has_metrics_and_nothing_else() -> None:
    async with checks(a_service()) as client:
        assert b"moorage_in_flight_requests" in (await client.get("/metrics")).content
        assert (await client.get("/predict")).status_code == 404


async def test_more_requests_than_may_wait_are_refused_and_the_others_answered() -> None:
    served, engine = a_service(max_concurrency=2), Stuck()
    await served.load(lambda: an_adder(engine))
    admitted = [asyncio.create_task(served.predict(served.model.example)) for _ in range(2)]
    assert await asyncio.to_thread(engine.started.wait, 10)
    with pytest.raises(errors.Overloaded, match="2 requests are being answered"):
        await served.predict(served.model.example)
    engine.let_go.set()
    assert [each.outputs[""].tolist() for each in await asyncio.gather(*admitted)] == [[0.0], [0.0]]
    assert (await served.predict(served.model.example)).outputs[""].tolist() == [0.0]


@pytest.mark.parametrize(
    ("limit", "seconds"), [(0.01, None), (3600, 0.01), (0.01, 3600)], ids=["limit", "caller", "both"]
)
async def test_a_prediction_that_takes_too_long_is_given_up(limit: float, seconds: float | None) -> None:
    served, engine = a_service(request_timeout_seconds=limit), Stuck()
    await served.load(lambda: an_adder(engine))
    with pytest.raises(errors.DeadlineExceeded):
        await served.predict(served.model.example, seconds=seconds)
    engine.let_go.set()


async def test_a_timeout_of_the_model_itself_is_the_models_fault() -> None:
    served = a_service()
    await served.load(lambda: an_adder(Adder(fault=TimeoutError())))
    with pytest.raises(errors.ModelFault):
        await served.predict(served.model.example)
