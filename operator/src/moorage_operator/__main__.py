"""The only composition root: settings → adapters → controller → kopf. `python -m moorage_operator` is the whole program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp

from moorage_operator import election, errors, handlers, ports, settings, telemetry
from moorage_operator.adapters import access, web
from moorage_operator.adapters import cluster as cluster_adapter
from moorage_operator.adapters.agents import HttpAgents
from moorage_operator.adapters.prometheus import HttpPrometheus
from moorage_operator.adapters.registry import MlflowRegistry, RegistryDeclaration
from moorage_operator.adapters.runtimes import HttpRuntimes
from moorage_operator.controller import Controller
from moorage_operator.core import schema
from moorage_operator.core.kinds import CRD, LEASE, Ref
from moorage_operator.sight import Sight

log = logging.getLogger("moorage_operator")

LEASE_NAME = "moorage-operator"
CRD_NAME = "modeldeployments.moorage.dev"


def main() -> None:
    """Run until SIGTERM (exit code 0) or until something but the Lease is lost that only a new process can get back (1)."""
    chosen = settings.load()
    telemetry.set_up_logs(style=chosen.log_format, level=chosen.log_level)
    try:
        asyncio.run(_run(chosen))
    except* (errors.OperatorError, ValueError) as group:
        raise SystemExit("moorage-operator: " + "; ".join(str(error) for error in group.exceptions)) from group


async def _run(chosen: settings.Settings) -> None:
    metrics = telemetry.Metrics()
    stop = asyncio.Event()
    _stop_on_signals(stop)
    observe = _counter(metrics)
    vote = _election(chosen, observe)
    async with contextlib.AsyncExitStack() as stack:
        fence = vote.check if vote else _no_fence
        connected = await stack.enter_async_context(_connect(chosen, fence=fence, observe=observe))
        session = await stack.enter_async_context(web.connect())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registries = _registries(chosen, folder)
        for registry in registries.values():
            stack.callback(registry.close)
        controller = Controller(
            cluster=connected,
            registries=registries,
            agents=HttpAgents(session),
            runtimes=HttpRuntimes(session),
            prometheus=_prometheus(chosen.prometheus, session, folder),
            settings=chosen,
            metrics=metrics,
        )
        sight = Sight(connected, namespaces=chosen.namespaces, restored=controller.wake_all)
        state = _State(controller, sight)
        runner = await telemetry.serve(chosen.port, metrics, healthy=controller.problem, ready=state.not_ready)
        stack.push_async_callback(runner.cleanup)
        tasks = [
            asyncio.create_task(stop.wait(), name="signal"),
            asyncio.create_task(_work(connected, controller, chosen, vote, state, stop), name="work"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            try:
                await _end(tasks)
            finally:
                if vote:  # released whatever happened, so that the standby need not wait for it to run out
                    await vote.stop()


class _State:
    """Whether this process can do its work, for the readiness probe."""

    def __init__(self, controller: Controller, sight: Sight) -> None:
        self.sight = sight
        self._controller = controller
        self.obstacle = "starting"

    def not_ready(self) -> str:
        return self.obstacle or self.sight.problem or self._controller.problem()


async def _work(
    connected: ports.Cluster,
    controller: Controller,
    chosen: settings.Settings,
    vote: election.Election | None,
    state: _State,
    stop: asyncio.Event,
) -> None:
    """Watch in every replica, lead in one. kopf needs the CRD to be there: it would never watch a kind that comes later."""
    await _wait_for_crd(connected, state)
    state.obstacle = ""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(state.sight.run(), name="sight")
        tasks.create_task(_watch(controller, chosen, stop), name="watches")
        tasks.create_task(_lead(controller, vote), name="leading")


async def _watch(controller: Controller, chosen: settings.Settings, stop: asyncio.Event) -> None:
    """kopf installs its own signal handlers whenever it starts, and would end before the Lease is released: ours are put back."""
    await handlers.watch(
        controller.feed,
        settings=handlers.make_settings(),
        namespaces=chosen.namespaces,
        started=lambda: _stop_on_signals(stop),
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _lead(controller: Controller, vote: election.Election | None) -> None:
    if vote:
        vote.start()
        await vote.acquired()
    await controller.lead()


async def _wait_for_crd(connected: ports.Cluster, state: _State) -> None:
    """An older CRD would drop fields without a word: do nothing, not ready, until it is upgraded."""
    while True:
        try:
            crd = await connected.get(Ref(CRD, "", CRD_NAME))
            missing = schema.missing_fields(crd) if crd else ["all of it"]
            if not missing:
                return
            state.obstacle = (
                f"the CRD {CRD_NAME} is missing or older than this operator (it lacks {', '.join(missing[:3])}): "
                "helm upgrade with crds.install=true, or kubectl apply -f crds/"
            )
        except errors.ClusterError as error:
            state.obstacle = f"the API server does not answer: {error}"
        log.warning("%s", state.obstacle)
        await asyncio.sleep(5)


async def _end(tasks: Sequence[asyncio.Task[object]]) -> None:
    """Cancel what still runs, wait for it, and let the first real failure out."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _counter(metrics: telemetry.Metrics) -> cluster_adapter.Observe:
    return lambda verb, resource, code: metrics.api_requests.labels(verb, resource, code).inc()


def _election(chosen: settings.Settings, observe: cluster_adapter.Observe) -> election.Election | None:
    if not chosen.leader_election:
        return None
    lease = Ref(LEASE, settings.pod_namespace(), LEASE_NAME)
    # Who begins anew has its pod's name: with a part of its own it is never taken for its predecessor.
    identity = f"{settings.pod_name()}_{uuid.uuid4().hex[:8]}"
    candidate = election.Candidate(lease, identity, timing=election.Timing())
    return election.Election(candidate, lambda: _connect(chosen, fence=_no_fence, observe=observe), on_lost=_begin_anew)


def _connect(
    chosen: settings.Settings, *, fence: Callable[[], None], observe: cluster_adapter.Observe
) -> AbstractAsyncContextManager[ports.Cluster]:
    rate = chosen.writes_per_second
    return cluster_adapter.connect(fence=fence, observe=observe, writes_per_second=rate, write_burst=int(2 * rate))


def _registries(chosen: settings.Settings, folder: Path) -> dict[str, MlflowRegistry]:
    """One client a declared registry."""
    found = {}
    for declared in chosen.registries:
        how = _access(declared, folder / f"registry-{declared.name}.pem")
        found[declared.name] = MlflowRegistry(RegistryDeclaration(declared.name, declared.tracking_uri, how))
    return found


def _prometheus(declared: settings.PrometheusSettings, session: aiohttp.ClientSession, folder: Path) -> HttpPrometheus:
    return HttpPrometheus(session, declared.url, _access(declared, folder / "prometheus.pem"))


def _access(declared: settings.AccessSettings, bundle: Path) -> access.Access:
    """A CA bundle has to be a file for MLflow's client: it is put there."""
    if declared.ca_bundle:
        bundle.write_text(declared.ca_bundle)
    credentials = Path(declared.credentials_directory) if declared.credentials_directory else None
    return access.Access(credentials, bundle if declared.ca_bundle else None)


def _no_fence() -> None:
    """A single process, by the user's choice: every write passes."""


def _begin_anew() -> None:
    """Leadership is lost: no write may follow, and no clean-up is worth the risk of one. Called from any thread.

    A new program takes this process's place instead of a new container: docs/adr/0020.
    """
    logging.shutdown()
    try:
        os.execv(sys.executable, [sys.executable, "-P", "-m", __package__])  # noqa: S606 -- no shell is wanted
    finally:  # there is no place for it
        os._exit(1)


if __name__ == "__main__":
    main()
