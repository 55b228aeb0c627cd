"""A cluster of kind's: its documented commands, and the metrics-server that it does not bring."""

import functools
import json
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from devcluster import console, kube, kwok, locks, paths, settings, tools, versions

READY_SECONDS = 180.0
METRICS_SERVER_IMAGE = f"registry.k8s.io/metrics-server/metrics-server:v{versions.METRICS_SERVER}"


class Kind:
    def __init__(self, state: paths.State, name: str) -> None:
        self.state = state
        self.name = name
        self.node = f"{name}-control-plane"

    def _kube(self) -> kube.Kube:
        return kube.Kube(self.kubeconfig(), tools.search_path(*self.clients()))

    def up(self, *, audit: bool | None, gpus: int | None) -> None:
        tools.ensure(*self.clients())
        with locks.held(self.state.lock, f"another command on {self.name}"):
            known = settings.load(self.state)
            wanted = settings.change(known or settings.Settings(self.name, "kind"), audit=audit, gpus=gpus)
            if known and wanted.audit != known.audit:
                raise console.Failure("kind sets the audit log when it creates a cluster: `hack/cluster delete` first.")
            self._start(wanted)
            self._make_ready(wanted)

    def _start(self, wanted: settings.Settings) -> None:
        self.state.logs.mkdir(parents=True, exist_ok=True)
        settings.save(self.state, wanted)
        if self.name in console.run(["kind", "get", "clusters"]).split():
            console.run(["docker", "start", self.node])
            return
        config = self.state.folder / "kind.json"
        config.write_text(json.dumps(self._config(audit=wanted.audit), indent=1))
        create = [
            "kind",
            "create",
            "cluster",
            f"--name={self.name}",
            f"--config={config}",
            f"--kubeconfig={self.kubeconfig()}",
        ]
        with console.step(f"kind create cluster --name={self.name}"):
            console.run(create)

    def _config(self, *, audit: bool) -> dict[str, Any]:
        """https://kind.sigs.k8s.io/docs/user/auditing/: a folder passed from the host to the node to the API server's pod."""
        api_server: dict[str, Any] = {
            "extraArgs": {"enable-admission-plugins": "NodeRestriction,OwnerReferencesPermissionEnforcement"},
        }
        control_plane: dict[str, Any] = {"role": "control-plane"}
        if audit:
            policy = "/etc/kubernetes/audit-policy.yaml"
            control_plane["extraMounts"] = [
                {"hostPath": str(paths.NODE_SOURCES / "audit-policy.yaml"), "containerPath": policy, "readOnly": True},
                {"hostPath": str(self.state.logs), "containerPath": "/var/log/kubernetes"},
            ]
            log = "/var/log/kubernetes/audit.log"
            flags = {"audit-policy-file": policy, "audit-log-path": log, "audit-log-maxsize": "1000"}
            api_server["extraArgs"] |= flags
            api_server["extraVolumes"] = [
                {"name": "audit-policy", "hostPath": policy, "mountPath": policy, "readOnly": True, "pathType": "File"},
                {"name": "audit-log", "hostPath": "/var/log/kubernetes", "mountPath": "/var/log/kubernetes"},
            ]
        patch = json.dumps({"kind": "ClusterConfiguration", "apiServer": api_server})
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [control_plane | {"kubeadmConfigPatches": [patch]}],
        }

    def _make_ready(self, wanted: settings.Settings) -> None:
        cluster = self._kube()
        cluster.wait("the API server", cluster.answers, READY_SECONDS)
        cluster.apply("metrics-server.yaml", {"metrics_server_image": METRICS_SERVER_IMAGE})
        cluster.wait(f"node {self.node}", functools.partial(cluster.node_ready, self.node, 0), READY_SECONDS)
        cluster.advertise_gpus(self.node, wanted.gpus)
        for label in ("kube-dns", "metrics-server"):
            cluster.wait(label, functools.partial(cluster.pods_ready, label, 0), READY_SECONDS)

    def down(self) -> None:
        with locks.held(self.state.lock, f"another command on {self.name}"):
            if settings.load(self.state):
                kwok.stop(self.state)
                console.run(["docker", "stop", self.node])

    def delete(self) -> None:
        with locks.held(self.state.lock, f"another command on {self.name}"):
            kwok.stop(self.state)
            console.run(["kind", "delete", "cluster", f"--name={self.name}", f"--kubeconfig={self.kubeconfig()}"])
            settings.forget(self.state)

    def kubeconfig(self) -> pathlib.Path:
        return self.state.kubeconfig

    def clients(self) -> tuple[tools.Tool, ...]:
        return tools.absent_clients()

    def load_image(self, image: str) -> str:
        if image == "-":
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                shutil.copyfileobj(sys.stdin.buffer, archive)
                archive.flush()
                return self.load_image(archive.name)
        what = "image-archive" if pathlib.Path(image).is_file() else "docker-image"
        console.run(["kind", "load", what, image, f"--name={self.name}"])
        return image

    def own_image(self, tool: tools.Tool, *, public: str) -> str:
        return public

    def status(self) -> list[str]:
        if self.name not in console.run(["kind", "get", "clusters"]).split():
            return [f"{self.name}: no such kind cluster"]
        return [f"{self.name}: a cluster of kind's, kubeconfig {self.kubeconfig()}", self._kube().overview()]

    def log_files(self) -> dict[str, pathlib.Path]:
        known = settings.load(self.state)
        if known and known.audit:
            return {"audit": self.state.logs / "audit.log"}
        raise console.Failure(f"kind keeps its logs inside: `kind export logs --name={self.name} FOLDER`.")
