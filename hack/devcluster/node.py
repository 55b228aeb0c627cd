"""A cluster of one real node, which is a process tree in namespaces of its own.

`up` builds what is missing, writes what the components read, starts the supervisor and waits until the cluster is of use. The kernel
undoes nearly everything when the supervisor ends; what remains, here, is control groups and the state's folder.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import string
import subprocess
import sys
import tempfile
import time

from devcluster import cgroups, components, console, images, kube, locks, network, paths, pki, processes, settings, tools

PROGRAMS = ("etcd", "containerd", "ctr", "runc", "nft", "ip", "openssl", "unshare", "nsenter", "mount", "conntrack")
CNI_FOLDERS = (pathlib.Path("/usr/lib/cni"), pathlib.Path("/opt/cni/bin"))
READY_SECONDS = 120.0


def missing() -> list[str]:
    """What this machine lacks to run a node, in words; empty when it can."""
    lacks = [f"the program {name}" for name in PROGRAMS if not shutil.which(name, path=_path())]
    if not any((folder / "bridge").exists() for folder in CNI_FOLDERS):
        lacks.append("the CNI plugins (containernetworking-plugins)")
    if shutil.which("go") is None and not all(tool.binary.exists() for tool in tools.NODE):
        lacks.append("Go, to build Kubernetes")
    return lacks


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


class Node:
    def __init__(self, state: paths.State, name: str) -> None:
        self.state = state
        self.name = name
        self.kube = kube.Kube(state.kubeconfig, tools.search_path(tools.KUBERNETES, tools.HELM), self.check_alive)

    @property
    def cgroup(self) -> str:
        return f"moorage-{self.name}"

    def process(self) -> processes.Process | None:
        return processes.recall(self.state.process)

    # ---- up

    def up(self, *, audit: bool | None, gpus: int | None) -> None:
        tools.ensure(*tools.NODE)
        with locks.held(self.state.lock, f"another command on {self.name}"):
            known = settings.load(self.state)
            wanted = self._settle(known, audit=audit, gpus=gpus)
            begin = 0.0
            if not self.process():
                self._clean(wanted)
                begin = float(int(time.time()))
                self._start(wanted)
            self._make_ready(wanted, begin)

    def _settle(self, known: settings.Settings | None, *, audit: bool | None, gpus: int | None) -> settings.Settings:
        """What was asked for now, over what the cluster was made with; refuses what a running one can't change."""
        known = known or settings.Settings(self.name, "node", block=network.claim(self.state.folder).index)
        changes = {key: value for key, value in (("audit", audit), ("gpus", gpus)) if value is not None}
        wanted = dataclasses.replace(known, **changes)
        if wanted.audit != known.audit and self.process():
            raise console.Failure(f"{self.name} runs without an audit log; `hack/cluster down`, then `up --audit`, keeps its state.")
        self.state.folder.mkdir(parents=True, exist_ok=True)
        settings.save(self.state, wanted)
        return wanted

    def _start(self, cluster: settings.Settings) -> None:
        block = network.Block(cluster.block)
        for module in ("overlay", "br_netfilter"):
            console.succeeds(["modprobe", module])  # built in, or loaded already, is as good
        cgroups.create(self.cgroup)
        self._write_files(block)
        process = self._launch()
        network.connect(block, process)
        self.kube.wait("containerd", lambda: console.succeeds(self._ctr("version")), READY_SECONDS)
        self._load_own_images()

    def _write_files(self, block: network.Block) -> None:
        self.state.logs.mkdir(exist_ok=True)
        pki.create(self.state.pki, node=self.name, node_ip=block.node, api_service=block.api_service)
        self.state.kubeconfig.unlink(missing_ok=True)
        self.state.kubeconfig.symlink_to("pki/admin.kubeconfig")
        values = {
            "pause_image": images.name(tools.PAUSE),
            "cni_plugins": str(next(folder for folder in CNI_FOLDERS if (folder / "bridge").exists())),
            "pods": str(block.pods),
            "dns": block.dns,
            "cgroup": self.cgroup,
        }
        (self.state.folder / "cni").mkdir(exist_ok=True)
        for source, target in (("cni.conflist", "cni/10-pods.conflist"), *((f, f) for f in ("containerd.toml", "kubelet.yaml", "audit-policy.yaml"))):
            text = string.Template((paths.NODE_SOURCES / source).read_text()).substitute(values)
            (self.state.folder / target).write_text(text)

    def _launch(self) -> processes.Process:
        """The supervisor, detached: it outlives this command and holds neither its terminal nor its locks."""
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
        inside = (sys.executable, "-m", "devcluster.supervisor", str(self.state.folder), str(tools.KUBERNETES.folder))
        environment = {"PATH": f"{tools.KUBERNETES.folder}:{_path()}", "HOME": "/root", "PYTHONPATH": str(paths.HACK)}
        self.state.failure.unlink(missing_ok=True)
        with (self.state.logs / "supervisor.log").open("ab") as log:
            started = subprocess.Popen(
                ["unshare", *namespaces, *inside],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True,
            )
        processes.remember(self.state.process, started.pid)
        host = pathlib.Path("/proc/self/ns/net").stat()
        own = pathlib.Path(f"/proc/{started.pid}/ns/net")
        while own.stat().st_ino == host.st_ino:  # until it has entered its namespaces
            time.sleep(0.01)
        process = self.process()
        if process is None:
            raise self._failure()
        return process

    def check_alive(self) -> None:
        if self.process() is None:
            raise self._failure()

    def _failure(self) -> console.Failure:
        if self.state.failure.exists():
            return console.Failure(self.state.failure.read_text().rstrip())
        return console.Failure(f"The node of {self.name} ended; {self.state.logs}/supervisor.log may tell why.")

    def _make_ready(self, cluster: settings.Settings, begin: float) -> None:
        block = network.Block(cluster.block)
        self.kube.wait("the API server", self.kube.answers, READY_SECONDS)
        values = {
            "node": self.name,
            "dns": block.dns,
            "coredns_image": images.name(tools.COREDNS),
            "metrics_server_image": images.name(tools.METRICS_SERVER),
        }
        for manifest in ("coredns.yaml", "metrics-server.yaml"):
            self.kube.apply(manifest, values)
        self.kube.wait(f"node {self.name}", lambda: self.kube.node_ready(self.name, begin), READY_SECONDS)
        self.kube.advertise_gpus(self.name, cluster.gpus)
        for name in ("coredns", "metrics-server"):
            self.kube.wait(name, functools.partial(self.kube.deployment_ready, name), READY_SECONDS)

    # ---- images

    def _inside(self, *command: str) -> list[str]:
        process = self.process()
        if process is None:
            raise self._failure()
        children = process.children()
        return ["nsenter", f"--target={children[0].pid if children else process.pid}", "--mount", "--net", "--", *command]

    def _ctr(self, *arguments: str) -> list[str]:
        return self._inside("ctr", "--address=/run/containerd/containerd.sock", "--namespace=k8s.io", *arguments)

    def load_image(self, archive: pathlib.Path) -> str:
        """Import a docker-archive or OCI archive; the names it brought."""
        with archive.open("rb") as stream:
            done = subprocess.run(self._ctr("images", "import", "-"), stdin=stream, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise console.Failure(f"{archive} can't be imported:\n{console.last_lines(done.stderr)}")
        return done.stdout.strip()

    def _load_own_images(self) -> None:
        present = console.run(self._ctr("images", "list", "--quiet")).split()
        for tool in images.OWN:
            if images.name(tool) in present:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                archive = pathlib.Path(scratch) / f"{tool.name}.tar"
                images.write(tool, archive)
                self.load_image(archive)

    # ---- down, delete

    def down(self) -> None:
        with locks.held(self.state.lock, f"another command on {self.name}"):
            known = settings.load(self.state)
            if known:
                self._clean(known)

    def delete(self) -> None:
        with locks.held(self.state.lock, f"another command on {self.name}"):
            known = settings.load(self.state)
            if known:
                self._clean(known)
                shutil.rmtree(self.state.folder)
                network.release(network.Block(known.block), self.state.folder)
            self.state.lock.unlink()

    def _clean(self, cluster: settings.Settings) -> None:
        """End the node if it runs, and remove what it left, whether it ended now, crashed, or the machine was restarted."""
        process = self.process()
        if process:
            inside = process.children()
            process.kill()
            for child in inside:
                child.kill()
        network.wait_until_gone(network.Block(cluster.block))
        cgroups.remove(self.cgroup)
        self.state.process.unlink(missing_ok=True)

    # ---- look

    def log_names(self) -> list[str]:
        known = settings.load(self.state)
        return [*(components.names(known) if known else []), "supervisor", *(["audit"] if known and known.audit else [])]
