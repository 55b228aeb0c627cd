"""Fake nodes: KWOK answers for them, so that thousands of pods become Ready without running. For benchmarks.

KWOK runs on the host beside the cluster, only for nodes annotated kwok.x-k8s.io/node=fake. They are tainted: a pod must tolerate
kwok.x-k8s.io/node=fake:NoSchedule to land there.
"""

import json
import pathlib
import subprocess

from devcluster import console, kube, locks, paths, processes, settings, tools

STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)
FAKE = "kwok.x-k8s.io/node"


def set_nodes(state: paths.State, kubeconfig: pathlib.Path, search_path: str, count: int) -> None:
    """Have just `count` fake nodes; with 0, no KWOK either."""
    if not settings.load(state):
        raise console.Failure("KWOK is for clusters made by hack/cluster; `hack/cluster up` makes one.")
    with locks.held(state.lock, "another command on this cluster"):
        _set_nodes(state, kube.Kube(kubeconfig, search_path), count)


def _set_nodes(state: paths.State, cluster: kube.Kube, count: int) -> None:
    wanted = [f"kwok-{index}" for index in range(count)]
    present = [node["metadata"]["name"] for node in cluster.get("nodes", "-l", "type=kwok")["items"]]
    if count:
        tools.ensure(tools.KWOK)
        _start(state, cluster.kubeconfig)
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(_list(wanted)))
        cluster.wait(f"{count} fake nodes", lambda: len(cluster.ready_nodes("type=kwok")) >= count, 60)
    surplus = [name for name in present if name not in wanted]
    if surplus:
        cluster.kubectl("delete", "node", *surplus)
    if not count:
        stop(state)


def _list(names: list[str]) -> dict[str, object]:
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {FAKE: "fake"},
                "labels": {"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            },
            "spec": {"taints": [{"key": FAKE, "value": "fake", "effect": "NoSchedule"}]},
        }
        for name in names
    ]
    return {"apiVersion": "v1", "kind": "List", "items": nodes}


def _start(state: paths.State, kubeconfig: pathlib.Path) -> None:
    if processes.recall(_record(state)):
        return
    command = [str(tools.KWOK.binary), f"--kubeconfig={kubeconfig}", f"--config={_stages()}"]
    command += [f"--manage-nodes-with-annotation-selector={FAKE}=fake", "--cidr=10.99.0.0/16"]
    # Without leases nothing renews the nodes' heartbeat, and their pods count as not ready after 50 s.
    command.append("--node-lease-duration-seconds=40")
    state.logs.mkdir(exist_ok=True)
    with (state.logs / "kwok.log").open("wb") as log:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    processes.remember(_record(state), started.pid)


def stop(state: paths.State) -> None:
    process = processes.recall(_record(state))
    if process:
        process.kill()
    _record(state).unlink(missing_ok=True)


def _record(state: paths.State) -> pathlib.Path:
    return state.folder / "kwok.json"


def _stages() -> pathlib.Path:
    """KWOK's stock stages, from its module: a binary built by `go install` finds none by itself."""
    stages = tools.KWOK.folder / "stages.yaml"
    if not stages.exists():
        module = tools.KWOK.source.replace("/cmd/kwok", "")
        folder = pathlib.Path(json.loads(console.run(["go", "mod", "download", "-json", module]))["Dir"])
        texts = [(folder / "kustomize/stage" / f"{name}.yaml").read_text() for name in STAGES]
        stages.write_text("\n---\n".join(texts))
    return stages
