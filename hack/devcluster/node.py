"""A cluster of one real node, which is a process tree in namespaces of its own.

`up` builds what is missing, starts the supervisor and waits until the cluster is of use. When the supervisor ends, the kernel undoes
nearly everything; what remains to be removed here is control groups and the state's folder.
"""

import contextlib
import functools
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from devcluster import (
    cgroups,
    components,
    console,
    images,
    kube,
    kwok,
    launch,
    locks,
    network,
    outage,
    paths,
    processes,
    requirements,
    settings,
    tools,
)

READY_SECONDS = 120.0


class Node:
    def __init__(self, state: paths.State, name: str) -> None:
        self.state = state
        self.name = name
        self.kube = kube.Kube(state.kubeconfig, tools.search_path(*self.clients()), self._check_alive)

    def kubeconfig(self) -> pathlib.Path:
        return self.state.kubeconfig

    def clients(self) -> tuple[tools.Tool, ...]:
        return (tools.KUBERNETES, tools.HELM)

    def up(self, *, audit: bool | None, gpus: int | None) -> None:
        _check_machine()
        tools.ensure(*tools.NODE)
        with self._locked():
            cluster = self._settle(audit=audit, gpus=gpus)
            if not self._process():
                self._clean(cluster)
                launch.start(self.state, cluster)
            try:
                self._make_ready(cluster, int(self.state.process.stat().st_mtime))
            except console.Failure:
                self._check_alive()  # what ended the node tells more than what noticed it first
                raise

    def down(self) -> None:
        with self._locked():
            known = settings.load(self.state)
            if known:
                self._clean(known)

    def delete(self) -> None:
        with self._locked():
            known = settings.load(self.state)
            if known:
                self._clean(known)
                network.release(network.Block(known.block), self.state.folder)
            settings.forget(self.state)

    def load_image(self, image: str) -> str:
        """Import a docker-archive or OCI archive (- is standard input), or an image of the Docker engine; the names it brought."""
        if image == "-":
            return self._import(sys.stdin.buffer, "what came on standard input")
        if pathlib.Path(image).is_file():
            return self._import_file(pathlib.Path(image))
        if not console.succeeds(["docker", "image", "inspect", image]):
            raise console.Failure(f"{image} is neither an archive's path nor an image of a Docker engine that answers.")
        with tempfile.TemporaryDirectory() as scratch:
            archive = pathlib.Path(scratch) / "image.tar"
            console.run(["docker", "save", "--output", str(archive), image])
            return self._import_file(archive)

    def own_image(self, tool: tools.Tool, *, public: str) -> str:
        tools.ensure(tool)
        with self._locked():
            self._load_own_images(tool)
        return images.name(tool)

    def disturb(self, what: str, seconds: float) -> None:
        """For so long a component stands still, or (pods-to-api) no pod reaches the API server."""
        known, process = settings.load(self.state), self._process()
        children = process.children() if process else []
        if known is None or not children:
            raise console.Failure(self._why_not())
        if what == outage.PODS_TO_API:
            outage.cut(self._inside(), network.Block(known.block), seconds)
        else:
            outage.frozen(children[0], what, seconds)

    def status(self) -> list[str]:
        known = settings.load(self.state)
        if not known:
            return [f"{self.name}: no such cluster; `hack/cluster up` makes it"]
        block = network.Block(known.block)
        return [
            *self._state_lines(),
            ", ".join(f"{tool.name} {tool.version}" for tool in tools.NODE),
            f"audit log {'on' if known.audit else 'off'}, {known.gpus} fake GPUs",
            f"host {block.host}, node {block.node}, pods {block.pods}, Services {block.services}",
            f"kubeconfig {self.kubeconfig()}",
            f"logs {self.state.logs}/: {', '.join(self.log_files())}",
            *([self.kube.overview()] if self._process() else []),
        ]

    def log_files(self) -> dict[str, pathlib.Path]:
        known = settings.load(self.state)
        names = [
            *(components.names(known) if known else []),
            "supervisor",
            *(["audit"] if known and known.audit else []),
        ]
        return {name: self.state.logs / f"{name}.log" for name in names}

    # ---- parts of up

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with locks.held(self.state.lock, f"another command on {self.name}"):
            yield

    def _settle(self, *, audit: bool | None, gpus: int | None) -> settings.Settings:
        known = settings.load(self.state)
        if not known:
            self.state.folder.mkdir(parents=True, exist_ok=True)  # a claim by a folder that does not exist is free
            known = settings.Settings(self.name, "node", block=network.claim(self.state.folder).index)
        wanted = settings.change(known, audit=audit, gpus=gpus)
        if wanted.audit != known.audit and self._process():
            raise console.Failure(
                f"{self.name} runs with{'' if known.audit else 'out'} an audit log, and can't change that while it runs: "
                "`hack/cluster down` first, which keeps its state."
            )
        settings.save(self.state, wanted)
        return wanted

    def _make_ready(self, cluster: settings.Settings, begin: float) -> None:
        wait = functools.partial(self.kube.wait, seconds=READY_SECONDS)
        wait("containerd", lambda: console.succeeds(self._ctr("version")))
        self._load_own_images(*images.OWN)
        wait("the API server", self.kube.answers)
        values = {
            "node": self.name,
            "dns": network.Block(cluster.block).dns,
            "coredns_image": images.name(tools.COREDNS),
            "metrics_server_image": images.name(tools.METRICS_SERVER),
        }
        for manifest in ("coredns.yaml", "metrics-server.yaml"):
            self.kube.apply(manifest, values)
        wait(f"node {self.name}", functools.partial(self.kube.node_ready, self.name, begin))
        self.kube.advertise_gpus(self.name, cluster.gpus)
        wait("CoreDNS", functools.partial(self.kube.pods_ready, "kube-dns", begin))
        wait(
            "metrics-server (it measures twice, 10 s apart)",
            functools.partial(self.kube.pods_ready, "metrics-server", begin),
        )

    def _load_own_images(self, *wanted: tools.Tool) -> None:
        present = console.run(self._ctr("images", "list", "--quiet")).split()
        for tool in wanted:
            if images.name(tool) in present:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                archive = pathlib.Path(scratch) / f"{tool.name}.tar"
                images.write(tool, archive)
                self._import_file(archive)

    # ---- the running process

    def _process(self) -> processes.Process | None:
        return processes.recall(self.state.process)

    def _check_alive(self) -> None:
        if self.state.failure.exists() or self._process() is None:
            raise console.Failure(self._why_not())

    def _why_not(self) -> str:
        if self.state.failure.exists():
            return f"{self.name} is not running. {self.state.failure.read_text().rstrip()}"
        if self.state.process.exists():
            return f"{self.name} is not running: it was ended from outside, or the machine was restarted. `hack/cluster up` starts it."
        return f"{self.name} is not running. `hack/cluster up` starts it."

    def _inside(self, *command: str) -> list[str]:
        process = self._process()
        children = process.children() if process else []
        if not children:
            raise console.Failure(self._why_not())
        return ["nsenter", f"--target={children[0].pid}", "--mount", "--net", "--", *command]

    def _ctr(self, *arguments: str) -> list[str]:
        return self._inside("ctr", "--address=/run/containerd/containerd.sock", "--namespace=k8s.io", *arguments)

    def _import_file(self, archive: pathlib.Path) -> str:
        with archive.open("rb") as stream:
            return self._import(stream, str(archive))

    def _import(self, stream: BinaryIO, what: str) -> str:
        command = self._ctr("images", "import", "-")
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise console.Failure(f"{what} can't be imported:\n{console.last_lines(done.stderr)}")
        return done.stdout.strip()

    def _state_lines(self) -> list[str]:
        process = self._process()
        if not process:
            return [self._why_not()]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.state.process.stat().st_mtime))
        running = [
            part for inside in process.children() for part in inside.children() if part.program() in self.log_files()
        ]
        return [
            f"{self.name}: a node in a namespace of this machine, running since {since}, process {process.pid}",
            *(f"  {part.program():<24} process {part.pid:<8} {part.megabytes():>5} MB" for part in running),
        ]

    def _clean(self, cluster: settings.Settings) -> None:
        """End the node if it runs, and remove what it left, whether it ended now, crashed, or the machine was restarted."""
        kwok.stop(self.state)
        process = self._process()
        if process:
            inside = process.children()
            process.kill()
            for child in inside:
                child.kill()
        network.disconnect(network.Block(cluster.block))
        cgroups.remove(launch.cgroup(cluster))
        self.state.process.unlink(missing_ok=True)
        self.state.failure.unlink(missing_ok=True)


def _check_machine() -> None:
    if not requirements.can_have_node():
        raise console.Failure("A node in a namespace needs Linux and root.")
    lacking = requirements.missing_for_node()
    if lacking:
        raise console.Failure("This machine lacks, for a node: " + ", ".join(lacking) + ". hack/install installs them.")
