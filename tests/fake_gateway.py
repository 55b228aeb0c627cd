"""The controller of a Gateway in the small world: takes the routes that name it, if their Services are there."""

from __future__ import annotations

from typing import Any

from fake_cluster import FakeCluster
from moorage_operator.core.kinds import HTTP_ROUTE, SERVICE, Manifest, Ref


class FakeGateway:
    """`public` in the namespace `infra`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.is_there = True
        self.sleeps = False
        """While true, it takes up nothing new."""
        self.refusal = ""
        """Its reason, if it takes no route."""
        self.held: dict[Ref, Manifest] = {}
        """The routes by which its proxies act."""

    def run(self) -> None:
        """Once."""
        if not self.is_there or self.sleeps:
            return
        for ref, route in list(self._cluster._objects.items()):
            if ref.kind is HTTP_ROUTE:
                told = [
                    self._told(parent, route) for parent in route["spec"]["parentRefs"] if parent["name"] == "public"
                ]
                if told != route.get("status", {}).get("parents"):
                    self._tell(ref, told)
                if told and not self.refusal:
                    self.held[ref] = route
        self.held = {ref: route for ref, route in self.held.items() if ref in self._cluster._objects}

    def _tell(self, ref: Ref, told: list[Manifest]) -> None:
        def change(live: Manifest) -> None:
            live["status"] = {"parents": told}

        self._cluster.edit(ref, change, manager="gateway", subresource="status")

    def _told(self, parent: Manifest, route: Manifest) -> Manifest:
        services = {backend["name"] for rule in route["spec"].get("rules", []) for backend in rule["backendRefs"]}
        namespace = route["metadata"]["namespace"]
        missing = [name for name in sorted(services) if Ref(SERVICE, namespace, name) not in self._cluster._objects]
        generation = route["metadata"]["generation"]
        accepted = _condition("Accepted", generation, self.refusal, "not this one")
        resolved = _condition("ResolvedRefs", generation, "BackendNotFound" if missing else "", f"no {missing}")
        return {"parentRef": parent, "controllerName": "example.com/gateway", "conditions": [accepted, resolved]}


def _condition(kind: str, generation: int, refusal: str, message: str) -> dict[str, Any]:
    status = (
        {"status": "False", "reason": refusal, "message": message} if refusal else {"status": "True", "reason": kind}
    )
    return {"type": kind, "observedGeneration": generation} | status
