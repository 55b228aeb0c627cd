"""Starts the supervisor of a node in namespaces of its own, with all that its components read written beforehand."""

import contextlib
import pathlib
import string
import subprocess
import sys
import time

from devcluster import cgroups, console, images, network, paths, pki, processes, requirements, settings, tools

NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")


def cgroup(cluster: settings.Settings) -> str:
    return f"moorage-{cluster.name}"


def start(state: paths.State, cluster: settings.Settings) -> None:
    """Leaves a connected, running supervisor, or nothing that runs."""
    block = network.Block(cluster.block)
    for module in ("overlay", "br_netfilter"):
        console.succeeds(["modprobe", module])  # built in, or loaded already, is as good
    cgroups.create(cgroup(cluster))
    _write_files(state, cluster, block)
    started = _spawn(state)
    try:
        _await_namespaces(started)
        network.connect(block, started.pid)
    except BaseException:
        started.kill()
        raise
    processes.remember(state.process, started.pid)


def _write_files(state: paths.State, cluster: settings.Settings, block: network.Block) -> None:
    pki.create(state.pki, node=cluster.name, node_ip=block.node, api_service=block.api_service)
    state.kubeconfig.unlink(missing_ok=True)
    state.kubeconfig.symlink_to("pki/admin.kubeconfig")
    values = {
        "pause_image": images.name(tools.PAUSE),
        "cni_plugins": str(requirements.cni_plugins()),
        "pods": str(block.pods),
        "dns": block.dns,
        "cgroup": cgroup(cluster),
    }
    targets = {"cni.conflist": "cni/pods.conflist"}
    for source in ("cni.conflist", "containerd.toml", "kubelet.yaml", "audit-policy.yaml"):
        target = state.folder / targets.get(source, source)
        target.parent.mkdir(exist_ok=True)
        target.write_text(string.Template((paths.NODE_SOURCES / source).read_text()).substitute(values))


def _spawn(state: paths.State) -> subprocess.Popen[bytes]:
    """Detached: it outlives this command and holds neither its terminal nor its locks. The caller's environment stays outside."""
    inside = (sys.executable, "-m", "devcluster.supervisor", str(state.folder), str(tools.KUBERNETES.folder))
    environment = {
        "PATH": f"{tools.KUBERNETES.folder}:{requirements.search_path()}",
        "HOME": "/root",
        "PYTHONPATH": str(paths.HACK),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    state.logs.mkdir(exist_ok=True)
    state.failure.unlink(missing_ok=True)
    with (state.logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            ["unshare", *NAMESPACES, *inside],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def _await_namespaces(started: subprocess.Popen[bytes], deadline_seconds: float = 10.0) -> None:
    """Until its network and its /run are its own: before that, what we send inside would reach the host's."""
    deadline = time.monotonic() + deadline_seconds
    while started.poll() is None and not _is_apart(started.pid):
        if time.monotonic() > deadline:
            raise console.Failure("The node's namespaces were not there in time.")
        time.sleep(0.01)
    if started.poll() is not None:
        raise console.Failure("No namespaces could be made: `unshare --net --mount --pid --fork true` may tell why.")


def _is_apart(pid: int) -> bool:
    process = processes.identify(pid)
    for inside in process.children() if process else []:
        with contextlib.suppress(OSError):  # it has ended just now
            return " /run/node " in pathlib.Path(f"/proc/{inside.pid}/mountinfo").read_text()
    return False
