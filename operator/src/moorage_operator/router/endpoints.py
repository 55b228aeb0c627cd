"""EndpointSlices → where the pods of each revision listen. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moorage_operator.core.kinds import Manifest

Protocol = Literal["http", "grpc"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
"""Also the names of the ports in an EndpointSlice."""

SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, order=True)
class Address:
    """Where one pod listens for one protocol."""

    ip: str
    port: int

    @property
    def name(self) -> str:
        """The server's name in HAProxy; the port is behind the last colon, for IPv6 too."""
        return f"{self.ip}:{self.port}"

    @property
    def target(self) -> str:
        """The same for HAProxy to connect to."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else self.name


Endpoints = Mapping[tuple[str, Protocol], frozenset[Address]]
"""By revision and protocol."""


def collect(slices: Iterable[Manifest]) -> Endpoints:
    """The ready pods; of a revision with none of them, those that still serve while they end, as kube-proxy does it."""
    ready: dict[tuple[str, Protocol], set[Address]] = defaultdict(set)
    ending: dict[tuple[str, Protocol], set[Address]] = defaultdict(set)
    for item in slices:
        revision = item["metadata"].get("labels", {}).get(SERVICE_LABEL, "")
        for protocol, port in _ports(item):
            for endpoint in item.get("endpoints") or ():
                found = {Address(ip, port) for ip in endpoint["addresses"]}
                conditions = endpoint.get("conditions") or {}
                if conditions.get("ready") is not False:
                    ready[revision, protocol] |= found
                elif _still_serves(conditions):
                    ending[revision, protocol] |= found
    return {key: frozenset(ready.get(key) or ending[key]) for key in {*ready, *ending}}


def _ports(item: Manifest) -> list[tuple[Protocol, int]]:
    numbers = {port.get("name"): port.get("port") for port in item.get("ports") or ()}
    return [(protocol, numbers[protocol]) for protocol in PROTOCOLS if numbers.get(protocol)]


def _still_serves(conditions: Mapping[str, Any]) -> bool:
    return bool(conditions.get("terminating") and conditions.get("serving"))
