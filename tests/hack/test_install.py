"""hack/install --check names everything that is missing at once, and installs nothing."""

import pathlib
import shutil
import subprocess

import pytest

from devcluster import paths

SCRIPT = paths.HACK / "install"


def check(path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(path)}
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), "--check"], env=environment, text=True, capture_output=True, check=False
    )


def a_bare_machine(folder: pathlib.Path) -> pathlib.Path:
    for name in ("bash", "dirname", "sort", "head"):
        program = shutil.which(name)
        assert program
        (folder / name).symlink_to(program)
    return folder


def test_all_that_is_missing_is_named_at_once(tmp_path: pathlib.Path) -> None:
    done = check(a_bare_machine(tmp_path))
    assert done.returncode == 1
    for missing in ("etcd-server", "containerd", "buildah", "shellcheck", "HAProxy 3.", "uv:", "Go 1."):
        assert missing in done.stderr


def test_with_docker_and_kind_no_node_is_asked_for(tmp_path: pathlib.Path) -> None:
    machine = a_bare_machine(tmp_path)
    for name in ("docker", "kind"):
        (machine / name).write_text("#!/bin/bash\n")
        (machine / name).chmod(0o755)
    told = check(machine).stderr
    assert "etcd-server" not in told
    assert "buildah" not in told
    assert "shellcheck" in told


@pytest.mark.parametrize(
    ("version", "is_missing"), [("2.6.12-1+deb12u4", True), ("3.0.11-1+deb13u5", False), ("3.2.1", False)]
)
def test_an_older_haproxy_is_as_good_as_none(tmp_path: pathlib.Path, version: str, is_missing: bool) -> None:
    machine = a_bare_machine(tmp_path)
    (machine / "haproxy").write_text(
        f"#!/bin/bash\necho 'HAProxy version {version} 2026/11/18 - https://haproxy.org/'\n"
    )
    (machine / "haproxy").chmod(0o755)
    told = check(machine).stderr
    assert ("HAProxy 3.0 or newer" in told) is is_missing
    assert ("patchelf" in told) is is_missing


def test_every_row_of_the_list_has_a_purpose_a_program_and_a_package() -> None:
    rows = [line.split() for line in (paths.HACK / "packages.txt").read_text().splitlines() if not line.startswith("#")]
    assert {row[0] for row in rows} == {"node", "images", "check", "haproxy"}
    assert all(len(row) == 3 for row in rows)
