"""hack/cluster without a cluster: addresses, records, refusals, archives. What needs one is in test_cluster.py."""

import hashlib
import io
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import pytest

from devcluster import (
    cli,
    components,
    console,
    existing,
    gateway,
    images,
    kind,
    locks,
    network,
    paths,
    pki,
    processes,
    providers,
    settings,
    tools,
    versions,
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def a_state(name: str = "a", provider: str = "node") -> paths.State:
    state = paths.State(paths.state_root() / name)
    state.folder.mkdir(parents=True)
    settings.save(state, settings.Settings(name, provider))
    return state


def pretend_built(tool: tools.Tool) -> None:
    tool.folder.mkdir(parents=True)
    tool.binary.write_bytes(b"\x7fELF")


def test_no_two_clusters_share_an_address() -> None:
    parts = [
        part
        for block in network.BLOCKS
        for part in (ipaddress.IPv4Network(f"{block.host}/30", strict=False), block.services, block.pods)
    ]
    for index, part in enumerate(parts):
        assert part.subnet_of(network.RANGE)
        assert not any(part.overlaps(other) for other in parts[index + 1 :])


def test_a_cluster_keeps_its_block_until_its_folder_is_gone() -> None:
    first, second = a_state("first"), a_state("second")
    block = network.claim(first.folder)
    assert network.claim(first.folder) == block
    assert network.claim(second.folder) != block

    settings.forget(first)
    assert network.claim(a_state("third").folder) == block


def test_a_block_that_the_machine_routes_elsewhere_is_not_taken() -> None:
    routes = [{"dst": "default"}, {"dst": "198.18.0.0/24"}, {"dst": "198.18.70.1"}]
    assert [network.overlaps(block, routes) for block in network.BLOCKS[:3]] == [True, True, False]


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "a/b", "..", "a" * 33])
def test_a_name_that_could_not_be_a_hostname_is_refused(name: str) -> None:
    with pytest.raises(console.Failure, match="can't name a cluster"):
        settings.check_name(name)


def test_what_was_asked_for_once_holds_until_something_else_is_asked_for() -> None:
    made = settings.change(settings.Settings("a", "node"), audit=True, gpus=2)
    assert settings.change(made, audit=None, gpus=None) == made
    assert settings.change(made, audit=None, gpus=0).gpus == 0


def test_only_a_folder_with_a_cluster_in_it_is_removed(tmp_path: pathlib.Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    settings.forget(paths.State(precious))
    assert precious.exists()


def test_a_reused_pid_is_not_the_process_that_we_started() -> None:
    mine = processes.identify(os.getpid())
    assert mine
    assert mine.runs()
    assert not processes.Process(mine.pid, mine.start + 1, mine.boot).runs()
    assert not processes.Process(mine.pid, mine.start, "another boot").runs()


def test_an_ended_process_is_not_recalled(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        processes.remember(tmp_path / "process.json", child.pid)
        recalled = processes.recall(tmp_path / "process.json")
        assert recalled
        assert recalled.pid == child.pid
        recalled.kill()
    assert processes.recall(tmp_path / "process.json") is None


def test_a_lock_whose_file_was_removed_by_its_holder_still_excludes(tmp_path: pathlib.Path) -> None:
    path, inside, order = tmp_path / "lock", threading.Event(), list[str]()

    def second() -> None:
        inside.wait()
        with locks.held(path, "the first"):
            order.append("second")

    waiter = threading.Thread(target=second)
    waiter.start()
    with locks.held(path, "nobody"):
        inside.set()
        order.append("first")
        path.unlink()
    waiter.join()
    assert order == ["first", "second"]


def test_a_command_that_fails_is_told_with_the_end_of_what_it_printed() -> None:
    with pytest.raises(console.Failure, match=r"exited with 3:\n  \| no such thing"):
        console.run(["sh", "-c", "echo no such thing >&2; exit 3"])


def test_an_exported_kubeconfig_of_ours_does_not_count_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(a_state().kubeconfig))
    assert providers.foreign_kubeconfig() is None

    monkeypatch.setenv("KUBECONFIG", "/home/me/production.yaml")
    assert providers.foreign_kubeconfig() == "/home/me/production.yaml"


def test_after_delete_the_exported_kubeconfig_does_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    state = a_state()
    monkeypatch.setenv("KUBECONFIG", str(state.kubeconfig))
    settings.forget(state)
    assert providers.foreign_kubeconfig() is None


def test_an_exported_kubeconfig_of_ours_says_which_cluster_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    state = a_state("second", "kind")
    monkeypatch.setenv("KUBECONFIG", str(state.kubeconfig))
    assert providers.exported() == ("second", state)

    settings.forget(state)
    assert providers.exported() is None


@pytest.mark.parametrize(
    ("name", "folder", "context", "told"),
    [
        ("moorage", None, None, "hack/cluster"),
        ("second", None, None, "hack/cluster --name second"),
        ("moorage", "/srv/my cluster", None, "hack/cluster --state '/srv/my cluster'"),
        ("moorage", None, "staging", "hack/cluster --context staging"),
    ],
)
def test_up_tells_how_to_mean_the_same_cluster_again(
    name: str, folder: str | None, context: str | None, told: str
) -> None:
    state = paths.State(pathlib.Path(folder) if folder else paths.state_root() / name)
    assert cli.same_cluster(name, state, context) == told


def test_a_cluster_stays_with_what_made_it() -> None:
    with pytest.raises(console.Failure, match="made with --provider kind"):
        providers.choose(a_state("k", "kind"), name="k", context=None, provider="node")


def test_a_cluster_is_handled_by_what_made_it() -> None:
    chosen = providers.choose(a_state("k", "kind"), name="k", context=None, provider=None)
    assert isinstance(chosen, kind.Kind)


@pytest.mark.parametrize(
    "command", [["down"], ["delete"], ["load-image", "x"], ["logs", "etcd"], ["up", "--gpus", "1"]]
)
def test_a_cluster_of_the_user_is_never_changed(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--context", "production", *command]) == 1
    assert "production" in capsys.readouterr().err


def test_a_cluster_of_the_user_that_does_not_answer_is_told_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    kubectl.chmod(0o755)
    (tmp_path / "helm").symlink_to(kubectl)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(console.Failure, match="does not answer"):
        existing.Existing("/home/me/config", None).up(audit=None, gpus=None)


def test_an_image_archive_holds_the_binary_by_its_digest(tmp_path: pathlib.Path) -> None:
    pretend_built(tools.PAUSE)
    images.write(tools.PAUSE, tmp_path / "image.tar")

    with tarfile.open(tmp_path / "image.tar") as tar:
        content = {name: (tar.extractfile(name) or io.BytesIO()).read() for name in tar.getnames()}
    [manifest] = json.loads(content["manifest.json"])
    config = json.loads(content[manifest["Config"]])
    layer = content[manifest["Layers"][0]]
    assert manifest["RepoTags"] == ["localhost/moorage-pause:1"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("pause").mode & 0o111


@pytest.mark.parametrize(
    ("tool", "module"),
    [(tools.KUBERNETES, "k8s.io/kubernetes"), (tools.TRAEFIK, "github.com/traefik/traefik/v3")],
    ids=["kubernetes", "traefik"],
)
def test_a_module_that_wraps_a_program_requires_the_version_it_is_built_as(tool: tools.Tool, module: str) -> None:
    words = [line.split() for line in (paths.NODE_SOURCES / tool.source / "go.mod").read_text().splitlines()]
    assert [line[line.index(module) + 1] for line in words if module in line and "=>" not in line] == [
        f"v{tool.version}"
    ]


def test_a_cluster_that_pulls_its_images_gets_the_public_traefik_and_keeps_gateway_crds_of_others(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    for name in ("kubectl", "helm"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ "$1" != apply ] || cat >> {said}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", "/home/me/production.yaml")
    crds = paths.binaries() / f"gateway-api-{versions.TRAEFIK}.yaml"
    crds.parent.mkdir(parents=True)
    crds.touch()

    assert cli.main(["gateway"]) == 0
    told = said.read_text()
    assert f"image: {gateway.PUBLIC_IMAGE}\n" in told
    [applied] = [line for line in told.splitlines() if f"--filename={crds}" in line]
    assert "--force-conflicts" not in applied


def test_certificates_are_made_once_and_trusted_by_their_authority(tmp_path: pathlib.Path) -> None:
    pki.create(tmp_path, node="a", node_ip="198.18.0.2", api_service="198.18.16.1")
    first = (tmp_path / "admin.kubeconfig").read_text()
    pki.create(tmp_path, node="a", node_ip="198.18.0.2", api_service="198.18.16.1")
    assert (tmp_path / "admin.kubeconfig").read_text() == first
    assert (tmp_path / "admin.kubeconfig").stat().st_mode & 0o077 == 0
    console.run(["openssl", "verify", "-CAfile", f"{tmp_path}/ca.crt", f"{tmp_path}/apiserver.crt"])


def test_the_audit_log_is_written_only_when_asked_for() -> None:
    def flags(*, audit: bool) -> str:
        cluster = settings.Settings("a", "node", audit=audit)
        return " ".join(flag for part in components.first(cluster) for flag in part.command)

    assert "--audit-log-path" in flags(audit=True)
    assert "--audit-log-path" not in flags(audit=False)


def test_the_way_to_the_cluster_leads_through_no_proxy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_state("moorage")
    pretend_built(tools.KUBERNETES)
    pretend_built(tools.HELM)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    cli.main(["env"])
    assert "export NO_PROXY=localhost,198.18.0.0/15\n" in capsys.readouterr().out


def test_logs_of_an_unknown_component_name_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    a_state("moorage")
    assert cli.main(["logs", "nonsense"]) == 1
    assert "kube-apiserver" in capsys.readouterr().err
