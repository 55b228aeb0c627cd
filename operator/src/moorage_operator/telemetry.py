"""What the operator tells about itself: metrics, health and logs. It watches; nothing here changes what the operator does."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Check = Callable[[], str]
"""Empty when all is well, else a sentence about what is wrong."""


class Metrics:
    """All metrics of the operator; docs/operations.md lists them, a test compares."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "moorage_reconcile",
            "Passes over a ModelDeployment, by result (ok or the error's class).",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "moorage_reconcile_seconds",
            "How long a pass took.",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.registry_seconds = Histogram(
            "moorage_registry_request_seconds",
            "How long a registry took to answer one question.",
            ["registry", "outcome"],
            registry=self.registry,
        )
        self.resync_repairs = Counter(
            "moorage_resync_ghosts",
            "Objects that had gone without an event, found by a resync.",
            registry=self.registry,
        )
        self.api_requests = Counter(
            "moorage_api_requests",
            "Requests to the Kubernetes API, without the watches; verbs other than get and list are writes. No code: no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("moorage_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self.queue_oldest = Gauge(
            "moorage_queue_oldest_seconds", "How long the first in line has been waiting.", registry=self.registry
        )
        self.objects = Gauge("moorage_index_objects", "Objects in the index.", registry=self.registry)
        self.leader = Gauge("moorage_leader", "1 in the replica that writes.", registry=self.registry)
        self.revisions = Gauge(
            "moorage_revision_info",
            "1 for each revision that has a role.",
            ["namespace", "deployment", "revision", "model_version", "track"],
            registry=self.registry,
        )


async def serve(port: int, metrics: Metrics, *, healthy: Check, ready: Check) -> web.AppRunner:
    """Start `/metrics`, `/healthz` and `/readyz`; the caller cleans up the runner that it gets."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            problem = check()
            return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

        return handle

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", answer(healthy))
    app.router.add_get("/readyz", answer(ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logs(*, style: str, level: str) -> None:
    """Our own lines at `level`; of libraries only warnings (kopf's INFO is two lines an object)."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a registry that is down is our own line, once
    logging.getLogger("moorage_operator").setLevel(level.upper())
