"""Keeps HAProxy as the ConfigMap and the EndpointSlices want it. The file to read first: look, compare, command, look again.

Level-triggered: a change, a timer and a start all lead to the same pass, which asks HAProxy what it has. So an HAProxy that was started
anew, a reload that another pass had begun or a command that failed needs no case of its own. The files are always written before HAProxy
is told: one that starts in between starts with the new state. Nothing here decides a weight; when the operator or the API server is
gone, the last table stays, and pods that can't be reached are left out by HAProxy's own checks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime

from moorage_operator import errors, ports
from moorage_operator.core import kinds, names
from moorage_operator.mirror import Mirror
from moorage_operator.router import endpoints, files, plan, report, table, target
from moorage_operator.router.haproxy import Haproxy
from moorage_operator.router.metrics import Metrics
from moorage_operator.router.report import State
from moorage_operator.router.settings import Settings
from moorage_operator.router.stats import Ledger, Sample
from moorage_operator.router.target import Source, Target

log = logging.getLogger(__name__)

CONFIG_MAP = "moorage-router"
KEY = "router.json"

LOOK_SECONDS = 1.0
"""Between two looks at HAProxy when nothing happens: what it counts between the last one and its end is lost."""
RETRY_SECONDS = 0.3


class Agent:
    """One router pod's. `state()` and `not_ready()` may be asked at any time."""

    def __init__(
        self, cluster: ports.Cluster, haproxy: Haproxy, settings: Settings, metrics: Metrics, *, started_at: datetime
    ) -> None:
        self._haproxy = haproxy
        self._settings = settings
        self._metrics = metrics
        self._started_at = started_at.isoformat(timespec="milliseconds")
        self._woken = asyncio.Event()
        here = settings.namespace
        by_name = ports.Selection(kinds.CONFIG_MAP, here, name=CONFIG_MAP)
        # The EndpointSlices of our Services: their controller copies the Service's labels.
        by_label = ports.Selection(kinds.ENDPOINT_SLICE, here, labels=names.MANAGED)
        self._tables = Mirror(cluster, by_name, self._woken.set)
        self._slices = Mirror(cluster, by_label, self._woken.set)
        self._source: Source | None = None
        self._refused = ""
        self._seen_version = ""
        self._checked = ""
        self._written: files.Files | None = None
        self._applied: Target | None = None
        self._problem = ""
        self._ledger = Ledger()
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Never ends by itself."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tables.run(), name="tables")
            tasks.create_task(self._slices.run(), name="slices")
            tasks.create_task(self._work(), name="work")

    def not_ready(self) -> str:
        """Ready once HAProxy was seen to hold what this very process was told: an earlier one's files prove nothing."""
        if self._applied:
            return ""
        if not (self._tables.listed and self._slices.listed):
            return self._tables.problem or self._slices.problem or "the API server has not answered yet"
        return self.problem() or "HAProxy does not hold the configuration yet"

    def problem(self) -> str:
        if self._tables.listed and not self._source and not self._refused:
            return f"there is no ConfigMap {CONFIG_MAP}"
        return self._refused or self._problem or self._tables.problem or self._slices.problem

    async def state(self) -> State:
        """Read back now; without models while HAProxy does not answer, or holds what this process did not give it."""
        applied = self._applied
        try:
            sample, splits = await self._look()
            if applied is None or not report.holds(applied, sample, splits):
                return State(started_at=self._started_at, problem=self.problem() or "HAProxy is being changed")
            models = report.make(applied, sample, splits, self._ledger)
        except errors.HaproxySilent as error:
            return State(started_at=self._started_at, problem=str(error))
        version = applied.source.resource_version
        return State(resource_version=version, models=models, started_at=self._started_at, problem=self.problem())

    async def _work(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._pass()
                self._note("")
            except errors.RouterError as error:
                self._note(str(error))
            self._metrics.problem.set(bool(self.problem()))
            await self._rest(RETRY_SECONDS if self._problem else LOOK_SECONDS)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _pass(self) -> None:
        self._read_table()
        if self._source is None or not self._slices.listed:
            return
        found = endpoints.collect(self._slices.objects.values())
        wanted = target.make(self._source, found, self._settings.layout)
        if not await self._usable(wanted):
            return
        self._write(wanted.files)
        sample, splits = await self._look()
        if sample.worker.structure != wanted.structure:
            sample, splits = await self._reload(wanted)
        told = await self._command(wanted, sample, splits)
        if told or self._applied is None:
            sample, splits = await self._look()
        if report.holds(wanted, sample, splits):
            self._applied = wanted

    def _read_table(self) -> None:
        """A ConfigMap that is gone or wrong changes nothing."""
        manifest = self._tables.objects.get(CONFIG_MAP)
        version = manifest["metadata"]["resourceVersion"] if manifest else ""
        if manifest is None or version == self._seen_version:
            return
        self._seen_version, self._refused = version, ""
        try:
            parsed = table.parse(manifest.get("data", {}).get(KEY, ""), taken_ports=self._settings.own_ports)
        except errors.TableRefused as error:
            self._refuse(str(error))
            return
        self._source = Source(parsed, version)

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        log.error("resource version %s is refused, the last good one stays: %s", self._seen_version, reason)

    async def _usable(self, wanted: Target) -> bool:
        """Asked before a file is replaced: HAProxy has to be able to start with it at any time."""
        if wanted.structure == self._checked:
            return True
        beside, trial = target.trial(wanted, self._settings.layout)
        files.write(beside, trial)
        try:
            await self._haproxy.check(beside.config_file)
        except errors.ConfigRefused as error:
            self._refuse(str(error))
            self._source = self._applied.source if self._applied else None
            return False
        self._checked = wanted.structure
        return True

    def _write(self, wanted: files.Files) -> None:
        if wanted != self._written:
            files.write(self._settings.layout, wanted)
            self._written = wanted

    async def _look(self) -> tuple[Sample, Mapping[str, str]]:
        async with self._looking:  # else two looks could reach the ledger in the wrong order
            sample = await self._haproxy.sample()
            self._ledger.take(sample)
        return sample, await self._haproxy.splits()

    async def _reload(self, wanted: Target) -> tuple[Sample, Mapping[str, str]]:
        try:
            await self._haproxy.reload(wanted.structure)
        except (errors.ConfigRefused, errors.HaproxySilent):
            self._metrics.reloads.labels("failed").inc()
            if self._applied:  # HAProxy could start with those
                self._write(self._applied.files)
            raise
        self._metrics.reloads.labels("ok").inc()
        log.info("HAProxy has a new configuration, for resource version %s", wanted.source.resource_version)
        return await self._look()

    async def _command(self, wanted: Target, sample: Sample, splits: Mapping[str, str]) -> bool:
        """Whether there was anything to say."""
        map_file = str(self._settings.layout.map_file)
        commands = plan.commands(wanted.pools, wanted.splits, sample.pools, splits, map_file)
        for command in commands:
            await self._haproxy.do(command)
            self._metrics.commands.inc()
            log.debug("%s", command.text)
        return bool(commands)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s", problem or "HAProxy is as it should be again")
        self._problem = problem
