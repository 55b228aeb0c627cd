"""What the agent counts of itself. Requests are counted by HAProxy, whose own exporter tells them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """All of them; docs/router.md lists them, a test compares."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reloads = Counter(
            "moorage_router_reloads",
            "Reloads of HAProxy, by result (ok or failed).",
            ["result"],
            registry=self.registry,
        )
        self.commands = Counter(
            "moorage_router_commands", "Commands that HAProxy was given at run time.", registry=self.registry
        )
        self.problem = Gauge(
            "moorage_router_problem", "1 while something keeps HAProxy from what is wanted.", registry=self.registry
        )
