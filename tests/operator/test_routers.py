"""When the routers' agents are asked, what one lost answer means, and whom an answer wakes."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_operator import errors
from moorage_operator.core import names
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, POD
from moorage_operator.core.names import Key
from moorage_operator.core.routing import AgentState
from moorage_operator.index import Index
from moorage_operator.routers import CALM_SECONDS, HURRY_SECONDS, PATIENT_SECONDS, SILENT_SECONDS, Routers

FRAUD, SPAM = Key("payments", "fraud"), Key("payments", "spam")


class Agents:
    """They answer, but for those that are silent."""

    def __init__(self) -> None:
        self.silent: set[str] = set()

    async def state(self, address: str) -> AgentState:
        if address in self.silent:
            raise errors.AgentUnreachable("does not answer")
        return AgentState()


class Namespace:
    """One with two ModelDeployments and two router pods, whose clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now, self.versions = 1000.0, 0
        self.index, self.agents = Index(), Agents()
        self.woken: list[Key] = []
        self.routers = Routers(self.agents, index=self.index, wake=self.woken.append, clock=lambda: self.now)
        for key in (FRAUD, SPAM):
            self.index.put(MODEL_DEPLOYMENT, self.manifest(key.name))
        for name in ("a", "b"):
            self.router(name)

    def manifest(self, name: str, **more: Any) -> dict[str, Any]:
        self.versions += 1
        metadata = {"name": name, "namespace": "payments", "uid": name, "resourceVersion": str(self.versions)}
        return {"metadata": metadata | more}

    def router(self, name: str, *, ready: bool = True) -> None:
        labels = {names.MANAGED_BY: names.OPERATOR, names.APP_COMPONENT: names.ROUTER}
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        status = {"podIP": name, "conditions": [condition]}
        self.index.put(POD, self.manifest(name, labels=labels) | {"status": status})
        self.routers.look("payments")

    async def ask(self) -> bool:
        """A round, as often as it is due; tells whether it was."""
        due = list(self.routers._due(self.now))
        for namespace in due:
            await self.routers._ask(namespace)
        return bool(due)


@pytest.fixture
async def payments() -> Namespace:
    made = Namespace()
    await made.ask()
    made.woken.clear()
    return made


async def test_a_lost_answer_is_no_news_and_silence_is(payments: Namespace) -> None:
    payments.agents.silent.add("b")
    payments.now += CALM_SECONDS
    assert await payments.ask()
    assert not payments.routers.view(FRAUD).unreachable
    assert payments.woken == []
    payments.now += PATIENT_SECONDS
    assert await payments.ask(), "a silent one is asked again soon"
    payments.now += SILENT_SECONDS
    await payments.ask()
    assert payments.routers.view(FRAUD).unreachable == ("the router b does not answer",)
    assert set(payments.woken) == {FRAUD, SPAM}
    payments.agents.silent.clear()
    payments.now += PATIENT_SECONDS
    await payments.ask()
    assert not payments.routers.view(FRAUD).unreachable


async def test_a_router_that_is_not_ready_any_more_is_news_for_all(payments: Namespace) -> None:
    payments.router("b", ready=False)
    await payments.ask()
    assert set(payments.woken) == {FRAUD, SPAM}
    assert set(payments.routers.view(FRAUD).held) == {"a"}


async def test_a_new_process_has_asked_nobody_yet() -> None:
    made = Namespace()
    assert not made.routers.has_asked("payments")
    await made.ask()
    assert made.routers.has_asked("payments")


async def test_they_are_asked_often_only_while_somebody_waits_and_not_for_ever(payments: Namespace) -> None:
    assert not await payments.ask()
    payments.routers.awaited(FRAUD, by=True)
    assert await payments.ask()
    assert await payments.ask()
    payments.now += HURRY_SECONDS
    assert await payments.ask()
    assert not await payments.ask(), "after half a minute every two seconds will do"
    payments.now += PATIENT_SECONDS
    assert await payments.ask()
    payments.routers.awaited(FRAUD, by=False)
    payments.now += PATIENT_SECONDS
    assert not await payments.ask()
