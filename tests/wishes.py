"""An external metric whose value a test says: by it, the real autoscaler of a cluster wants as many pods as it is told.

It is served as adapters do it (`external.metrics.k8s.io`), by a pod that the API server asks.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from fixtures_cluster import FOR_TESTS
from place import Object, Place

NAME, METRIC = "wishes", "wish"
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
PORT = 8443
SERVER = f"""
import datetime, http.server, json, pathlib, ssl
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value() if "/namespaces/" in self.path else NOTHING_TO_LIST).encode())
    def log_message(self, *args):
        pass
NOTHING_TO_LIST = {{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "{GROUP}/{VERSION}", "resources": []}}
def value():
    wish = pathlib.Path("/tmp/wish").read_text()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {{"metricName": "{METRIC}", "metricLabels": {{}}, "timestamp": now, "value": wish}}
    return {{"kind": "ExternalMetricValueList", "apiVersion": "{GROUP}/{VERSION}", "metadata": {{}}, "items": [item]}}
pathlib.Path("/tmp/wish").write_text("1")
server = http.server.ThreadingHTTPServer(("", {PORT}), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Wishes:
    """1 in the beginning."""

    place: Place

    def say(self, pods: int) -> None:
        self.place.kubectl("exec", NAME, "--", "python", "-c", f"open('/tmp/wish', 'w').write('{pods}')")

    @property
    def metric(self) -> Object:
        """Of an autoscaler: one pod for each of what is wished for."""
        return {
            "type": "External",
            "external": {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "1"}},
        }


@contextlib.contextmanager
def served(place: Place) -> Iterator[Wishes]:
    """Within the block, for the whole cluster: there can be only one adapter."""
    name = f"{VERSION}.{GROUP}"
    if place.get("apiservice", name):
        pytest.skip("this cluster has an adapter for external metrics")
    place.apply(*_server(place))
    place.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s", seconds=70)
    try:
        place.apply(_api_service(place, name))
        place.kubectl("wait", "--for=condition=Available", f"apiservice/{name}", "--timeout=60s", seconds=70)
        yield Wishes(place)
    finally:
        # While an API is there and nobody serves it, no namespace can be deleted.
        place.kubectl("delete", "apiservice", name, "--ignore-not-found")
        place.kubectl("delete", f"pod/{NAME}", f"service/{NAME}", f"secret/{NAME}", "--wait=false")


def _api_service(place: Place, name: str) -> Object:
    spec = {
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": place.name, "name": NAME, "port": PORT},
    }
    named = {"name": name, "labels": {FOR_TESTS: "true"}}
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": named, "spec": spec}


def _server(place: Place) -> list[Object]:
    labels = {"app.kubernetes.io/name": NAME}
    container = {
        "name": "serve",
        "image": f"moorage/runtime:{metadata.version('moorage-runtime')}",
        "command": ["python", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tls", "secret": {"secretName": NAME}}],
        "terminationGracePeriodSeconds": 1,
    }
    service = {"selector": labels, "ports": [{"port": PORT}]}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "data": _certificate()},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": service},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": labels}, "spec": pod},
    ]


def _certificate() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "tls.key", Path(folder) / "tls.crt"
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
        subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        return {file.name: base64.b64encode(file.read_bytes()).decode() for file in (key, certificate)}
