"""What the routers' agents said last. Asked again and again: seldom when all is well, often while a router has something to take up.

It decides nothing, and it is memory alone: whoever takes over asks anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from moorage_operator import errors, ports
from moorage_operator.core import checks, routing
from moorage_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, Manifest, Ref
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.core.routing import AgentState, Held, RouterView
from moorage_operator.index import Index

ROUND_SECONDS = 0.2
CALM_SECONDS = 15.0
CONCURRENCY = 16
HURRY_SECONDS = 30.0
"""For so long a router that has something to take up is asked in every round; what takes longer is asked for every two seconds."""
PATIENT_SECONDS = 2.0
SILENT_SECONDS = 8.0
"""A router that does not answer for so long is unreachable: one lost answer on a busy node is no news."""


@dataclass
class _Router:
    """One namespace's."""

    answers: dict[str, _Answer] = field(default_factory=dict)
    """By pod uid."""
    asked_at: float = float("-inf")
    is_asked: bool = False
    awaited_by: set[Key] = field(default_factory=set)
    awaited_since: float = float("-inf")

    def is_due(self, now: float) -> bool:
        if self.is_asked:
            return False
        if self.awaited_by and now - self.awaited_since < HURRY_SECONDS:
            return True
        is_silent = any(answer.silent_since is not None for answer in self.answers.values())
        return now - self.asked_at >= (PATIENT_SECONDS if self.awaited_by or is_silent else CALM_SECONDS)


@dataclass(frozen=True)
class _Answer:
    """The last one of a router pod, if it ever gave one; and why there is none now, once it has been silent for long."""

    state: AgentState | None
    silent_since: float | None = None
    problem: str = ""


class Routers:
    """`view` what is known, `run` to know it. `wake` is called with each key whose view has changed."""

    def __init__(
        self,
        agents: ports.Agents,
        *,
        index: Index,
        wake: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agents = agents
        self._index = index
        self._wake = wake
        self._clock = clock
        self._routers: dict[str, _Router] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._ports: dict[str, tuple[tuple[str, str], routing.Ports]] = {}
        """By namespace, with the state of the ConfigMap that they were read from."""
        self.problems: dict[str, str] = {}
        """By namespace: why its router can't be made as it should, if it can't."""

    def view(self, key: Key) -> RouterView:
        router = self._routers.get(key.namespace, _Router())
        held: dict[str, Held | None] = {}
        unreachable = []
        for pod in self._ready_pods(key.namespace):
            answer = router.answers.get(pod["metadata"]["uid"])
            if answer and answer.problem:
                unreachable.append(f"the router {pod['metadata']['name']} {answer.problem}")
            else:
                held[pod["metadata"]["name"]] = (
                    routing.held(answer.state, key.name) if answer and answer.state else None
                )
        is_down = not held and not unreachable
        problem = self._problem(key.namespace) if is_down else ""
        return RouterView(self._port(key), held, tuple(unreachable), problem)

    def has_asked(self, namespace: str) -> bool:
        """Has every router pod that is ready been asked by this process? Before that nothing is known, and nothing follows from it."""
        known = self._routers.get(namespace, _Router()).answers
        return all(pod["metadata"]["uid"] in known for pod in self._ready_pods(namespace))

    def awaited(self, key: Key, *, by: bool) -> None:
        """Does this ModelDeployment wait for its routers? Then they are asked at once, and often."""
        router = self._routers.setdefault(key.namespace, _Router())
        if by:
            if key not in router.awaited_by:
                router.awaited_since = self._clock()
            router.awaited_by.add(key)
        else:
            router.awaited_by.discard(key)

    def look(self, namespace: str) -> None:
        """Something has happened to its pods: ask soon."""
        self._routers.setdefault(namespace, _Router()).asked_at = float("-inf")

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for namespace in self._due(self._clock()):
                    tasks.create_task(self._ask(namespace), name=f"asking the routers of {namespace}")
                await asyncio.sleep(ROUND_SECONDS)

    def _due(self, now: float) -> Iterator[str]:
        known = self._index.router_namespaces
        for namespace in known:
            router = self._routers.setdefault(namespace, _Router())
            if router.is_due(now):
                router.asked_at, router.is_asked = now, True
                yield namespace
        for namespace in self._routers.keys() - known:
            if not self._routers[namespace].is_asked:
                del self._routers[namespace]
                self._ports.pop(namespace, None)

    async def _ask(self, namespace: str) -> None:
        keys = [Key(namespace, name) for name in self._index.in_namespace(namespace)]
        before = {key: self.view(key) for key in keys}
        pods, router = self._ready_pods(namespace), self._routers[namespace]
        answers = await asyncio.gather(*(self._answer(pod, router) for pod in pods))
        router.is_asked = False
        asked = {pod["metadata"]["uid"]: answer for pod, answer in zip(pods, answers, strict=True)}
        is_news = asked.keys() != router.answers.keys()
        router.answers = asked
        for key in keys:
            if is_news or self.view(key) != before[key]:
                self._wake(key)

    async def _answer(self, pod: Manifest, router: _Router) -> _Answer:
        address = pod.get("status", {}).get("podIP", "")
        async with self._slots:
            try:
                return _Answer(await self._agents.state(address))
            except errors.AgentUnreachable as error:
                before, now = router.answers.get(pod["metadata"]["uid"], _Answer(None)), self._clock()
                since = now if before.silent_since is None else before.silent_since
                return _Answer(before.state, since, str(error) if now - since >= SILENT_SECONDS else "")

    def _ready_pods(self, namespace: str) -> list[Manifest]:
        return [pod for pod in self._index.pods(RouterKey(namespace)) if checks.is_ready(pod)]

    def _port(self, key: Key) -> int | None:
        """Read once for each state of the ConfigMap: every ModelDeployment of the namespace asks at every answer."""
        config_map = self._index.child(RouterKey(key.namespace), Ref(CONFIG_MAP, key.namespace, routing.NAME))
        if config_map is None:
            return None
        identity = (config_map["metadata"]["uid"], config_map["metadata"]["resourceVersion"])
        known = self._ports.get(key.namespace)
        if known is None or known[0] != identity:
            self._ports[key.namespace] = known = (identity, routing.read_ports(config_map, ()))
        return known[1].of.get(key.name)

    def _problem(self, namespace: str) -> str:
        if namespace in self.problems:
            return self.problems[namespace]
        key = RouterKey(namespace)
        deployment = self._index.child(key, Ref(DEPLOYMENT, namespace, routing.NAME))
        found = checks.problem_of(deployment, self._index.pods(key)) if deployment else None
        return f"the namespace's router: {found.message}" if found else ""
