"""hack/cluster with a real node of its own, beside whatever cluster the machine runs already. Takes about two minutes."""

import http.client
import json
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from devcluster import cgroups, images, network, paths, processes, requirements, settings, tools

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),  # the first one on a machine builds Kubernetes
    pytest.mark.skipif(not requirements.can_have_node(), reason="a node in a namespace needs Linux and root"),
]
NAME = f"test-{os.getpid()}"
STATE = paths.State(paths.state_root() / NAME)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
Arguments = list[str]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [str(paths.HACK / "cluster"), "--name", NAME, "--provider", "node", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def cluster(*arguments: str) -> str:
    output, errors = start(*arguments).communicate()
    return output + errors


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    environment = ENVIRONMENT | {"KUBECONFIG": str(STATE.kubeconfig)}
    command = [str(tools.KUBERNETES.folder / "kubectl"), *arguments]
    return subprocess.run(command, env=environment, input=stdin, text=True, capture_output=True, check=True).stdout


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.2)


def running() -> processes.Process:
    process = processes.recall(STATE.process)
    assert process, "the node does not run"
    return process


def part(name: str) -> processes.Process:
    [found] = [each for inside in running().children() for each in inside.children() if each.program() == name]
    return found


def a_pod(name: str, *, image: str = images.name(tools.PAUSE), gpus: int = 0, fake_node: bool = False) -> None:
    container = {"name": "c", "image": image, "resources": {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}}
    toleration = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
        **({"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]} if fake_node else {}),
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def resolve(name: str, server: str) -> str:
    """The address of a name, asked from the host as a pod's resolver would ask."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.sendto(b"\0\7\1\0\0\1\0\0\0\0\0\0" + question, (server, 53))
        return socket.inet_ntoa(asking.recv(512)[-4:])


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[list[tuple[int, str]]]:
    """A node that two commands, at the same time, were told to make."""
    both = [start("up", "--gpus", "2", "--audit") for _ in range(2)]
    yield [(each.wait(), each.communicate()[1]) for each in both]
    cluster("delete")


@pytest.fixture
def block() -> network.Block:
    made = settings.load(STATE)
    assert made
    return network.Block(made.block)


def test_two_ups_at_once_make_one_node(node: list[tuple[int, str]]) -> None:
    assert [code for code, _ in node] == [0, 0], node
    assert kubectl("get", "nodes", "-o", "name").split() == [f"node/{NAME}"]
    assert NAME in kubectl("top", "nodes")


def test_status_names_what_runs_and_where_its_logs_are() -> None:
    told = cluster("status")
    assert f"kube-apiserver           process {part('kube-apiserver').pid}" in told
    assert str(STATE.logs) in told


def test_the_audit_log_tells_who_did_what() -> None:
    kubectl("create", "configmap", "audited")
    events = [json.loads(line) for line in (STATE.logs / "audit.log").read_text().splitlines()]
    [created] = [e for e in events if e["verb"] == "create" and e["objectRef"].get("name") == "audited"]
    assert (created["user"]["username"], created["responseStatus"]["code"]) == ("admin", 201)


def test_the_same_cluster_named_by_kubeconfig_or_context_is_used_and_left_alone(tmp_path: pathlib.Path) -> None:
    named = tmp_path / "mine.yaml"
    named.write_bytes(STATE.kubeconfig.read_bytes())
    environment = ENVIRONMENT | {"KUBECONFIG": str(named)}

    def mine(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [paths.HACK / "cluster", *arguments], env=environment, text=True, capture_output=True, check=False
        )

    assert mine("up").returncode == 0
    assert mine("kubeconfig").stdout.strip() == str(named)
    assert NAME in mine("--context", NAME, "shell", "--", "kubectl", "get", "nodes").stdout
    assert mine("delete").returncode == 1
    assert running()


def test_another_audit_setting_is_refused_while_it_runs() -> None:
    assert "`hack/cluster down` first" in cluster("up", "--no-audit")


def test_a_service_answers_the_host_by_its_address_and_has_a_name(block: network.Block) -> None:
    expose = ["expose", "deployment", "coredns", "-n", "kube-system"]
    kubectl(*expose, "--name=health", "--port=80", "--target-port=8080")
    address = kubectl("get", "service", "health", "-n", "kube-system", "-o", "jsonpath={.spec.clusterIP}")

    eventually(lambda: fetch(address, "/health") == "OK", "the Service answers")
    eventually(lambda: resolve("health.kube-system.svc.cluster.local", block.dns) == address, "its name resolves")


def fetch(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError as error:  # kube-proxy has not heard of the Service yet
        return str(error)
    finally:
        connection.close()


def test_a_pod_answers_exec_and_keeps_its_log() -> None:
    pod = ["-n", "kube-system", "deployment/coredns"]
    assert tools.COREDNS.version in kubectl("exec", *pod, "--", "/coredns", "-version")
    assert "CoreDNS" in kubectl("logs", *pod)


def test_two_fake_gpus_are_enough_for_two_pods_and_not_for_a_third() -> None:
    for name in ("gpu-1", "gpu-2", "gpu-3"):
        a_pod(name, gpus=1)
    kubectl("wait", "--for=condition=Ready", "pod/gpu-1", "pod/gpu-2", "--timeout=60s")
    eventually(
        lambda: "Insufficient nvidia.com/gpu" in kubectl("get", "pod", "gpu-3", "-o", "json"), "the third is refused"
    )

    cluster("up", "--gpus", "3")
    kubectl("wait", "--for=condition=Ready", "pod/gpu-3", "--timeout=90s")


def test_an_image_is_loaded_from_its_archive(tmp_path: pathlib.Path) -> None:
    images.write(tools.PAUSE, tmp_path / "pause.tar")
    assert images.name(tools.PAUSE) in cluster("load-image", str(tmp_path / "pause.tar"))


def test_what_is_no_image_archive_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "letter.tar").write_text("Dear reader")
    assert "can't be imported" in cluster("load-image", str(tmp_path / "letter.tar"))
    assert "neither an archive" in cluster("load-image", "no/such:image")


def test_pods_on_fake_nodes_become_ready_without_running() -> None:
    cluster("kwok", "--nodes", "2")
    a_pod("nowhere", image="no.such/image:1", fake_node=True)
    kubectl("wait", "--for=condition=Ready", "pod/nowhere", "--timeout=30s")

    cluster("kwok", "--nodes", "0")
    assert kubectl("get", "nodes", "-o", "name").split() == [f"node/{NAME}"]


def test_what_was_made_outlives_down_and_up() -> None:
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    cluster("down")
    assert "is not running" in cluster("status")

    cluster("up")
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    assert kubectl("get", "node", NAME, "-o", r"jsonpath={.status.capacity.nvidia\.com/gpu}") == "3"


def test_a_component_that_dies_ends_the_node_and_leaves_its_last_words() -> None:
    part("kube-scheduler").kill()
    eventually(lambda: processes.recall(STATE.process) is None, "the node ends")
    told = cluster("status")
    assert "kube-scheduler was ended by signal 9" in told
    assert "  | I" in told  # a line of its log


def test_a_component_that_can_not_start_fails_the_command_at_once() -> None:
    key = STATE.pki / "sa.key"
    content = key.read_text()
    key.write_text("no key")
    begin = time.monotonic()
    told = cluster("up")
    key.write_text(content)
    assert "kube-apiserver exited with 1" in told
    assert "/run/node/pki/sa.key" in told
    assert time.monotonic() - begin < 30


def test_a_node_that_is_killed_while_it_starts_fails_the_command_at_once() -> None:
    starting = start("up")
    eventually(lambda: processes.recall(STATE.process) is not None, "it starts")
    running().kill()
    _, told = starting.communicate(timeout=30)
    assert starting.returncode == 1
    assert "ended from outside" in told


def test_deleting_leaves_nothing_behind(block: network.Block) -> None:
    cluster("up")
    cluster("kwok", "--nodes", "1")
    everything = descendants(running())
    assert cgroups.remains(f"moorage-{NAME}")

    assert cluster("delete") == ""
    assert [each for each in everything if each.runs()] == []
    assert cgroups.remains(f"moorage-{NAME}") == []
    assert block.link not in dict(socket.if_nameindex()).values()
    assert not any(network.overlaps(block, [route]) for route in network.routes())
    assert NAME not in pathlib.Path("/proc/self/mountinfo").read_text()
    left = [*paths.state_root().glob("*"), *(claim.readlink() for claim in paths.state_root().glob(".networks/*"))]
    assert [path for path in left if NAME in path.name] == []


def descendants(process: processes.Process) -> list[processes.Process]:
    return [process, *(each for child in process.children() for each in descendants(child))]


@pytest.mark.skipif(
    not (requirements.has_docker() and requirements.has_kind()),
    reason="kind needs a Docker engine that answers, and kind",
)
def test_kind_makes_a_cluster_by_its_documented_commands() -> None:
    def kind(*arguments: str) -> str:
        command = [str(paths.HACK / "cluster"), "--name", f"{NAME}-kind", "--provider", "kind", *arguments]
        return subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=True).stdout

    try:
        kind("up", "--audit", "--gpus", "1")
        assert "Ready" in kind("shell", "--", "kubectl", "get", "nodes")
        assert '"verb":"create"' in kind("logs", "audit")
    finally:
        kind("delete")
