"""A Gateway for tests: Traefik as `hack/cluster gateway` runs it, and requests to it that name a host."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc

from fixtures_cluster import Api
from place import Object, Place

NAMESPACE = "moorage-traefik"
NAME = "public"
PARENT = {"name": NAME, "namespace": NAMESPACE}
"""For `spec.parentRefs` of a route, in any namespace."""
CONTROLLER = "traefik.io/gateway-controller"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

GATEWAY: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": NAME},
    "spec": {
        "gatewayClassName": "traefik",
        "listeners": [
            {"name": "http", "protocol": "HTTP", "port": 8000, "allowedRoutes": {"namespaces": {"from": "All"}}}
        ],
    },
}


@contextlib.contextmanager
def running(api: Api) -> Iterator[Gateway]:
    """Traefik and the Gateway stay after the block: another run of the tests may use them."""
    api.hack("cluster", "gateway")
    place = Place(api, NAMESPACE)
    place.apply(GATEWAY)
    place.kubectl("wait", f"gateway/{NAME}", "--for=condition=Programmed", "--timeout=60s", seconds=70)
    with place.reach("traefik") as url:
        yield Gateway(place, urllib.parse.urlsplit(url).netloc)


@dataclass(frozen=True)
class Gateway:
    place: Place
    address: str
    """Of Traefik, for this process."""

    @contextlib.contextmanager
    def caller(self, host: str) -> Iterator[Caller]:
        """One kept connection, as an application has it."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            yield Caller(connection, host)
        finally:
            connection.close()

    @contextlib.contextmanager
    def channel(self, host: str) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(self.address, options=[("grpc.default_authority", host)]) as channel:
            yield channel


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    connection: http.client.HTTPConnection = field(repr=False)
    host: str

    def ask(self, path: str = "/", body: Object | None = None, *, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """Any status is an answer; a connection that breaks is an error."""
        data = None if body is None else json.dumps(body).encode()
        found = {"host": self.host, **({} if data is None else {"content-type": "application/json"}), **headers}
        self.connection.request("GET" if data is None else "POST", path, data, found)
        answer = self.connection.getresponse()
        return Answer(answer.status, dict(answer.headers.items()), answer.read())
