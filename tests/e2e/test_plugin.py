"""`kubectl moorage` as a person has it: on PATH, called by kubectl, in front of a rollout that goes on meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

PLUGIN = Path(__file__).parents[2] / "cli/kubectl_moorage.py"
COMMAND = "moorage.dev/command"
MANAGER = "--field-manager=argocd-controller"
STEPS = [{"setWeight": 50}, {"pause": {}}, {"setWeight": 80}, {"pause": {}}]
ROLLOUT: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}


@dataclass(frozen=True)
class Plugin:
    """kubectl with the plugin on PATH, for one namespace."""

    place: Place
    folder: Path

    def run(self, verb: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """It may fail."""
        environment = self.place.api.environment()
        environment["PATH"] = f"{self.folder}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            [self.place.api.program(), "moorage", verb, *arguments, "--namespace", self.place.name],
            env=environment, input=stdin, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def __call__(self, verb: str, *arguments: str) -> str:
        """What it prints; it must not fail."""
        done = self.run(verb, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@pytest.fixture(scope="module")
def plugin(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """Installed as a single file."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kubectl-moorage").write_bytes(PLUGIN.read_bytes())
    (folder / "kubectl-moorage").chmod(0o755)
    return Plugin(place, folder)


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With two versions of the same files; `champion` is the first."""
    for _ in range(2):
        registry.copy("plugged")
    registry.set_alias("plugged", "1")
    return "plugged"


@pytest.fixture
def paused(place: Place, registry: Registry, model: str, request: pytest.FixtureRequest) -> str:
    """A ModelDeployment of its own whose version 2 is at the first pause."""
    name = str(request.param)
    registry.set_alias(model, "1")
    place.apply(a_model(name, model, rollout=ROLLOUT))
    place.wait_ready(name)
    registry.set_alias(model, "2")
    place.wait_for_reason(name, "Paused")
    return name


def at_step(place: Place, name: str, index: int) -> None:
    def arrived() -> bool:
        status = place.status(name)
        return status["phase"] == "Paused" and status.get("currentStepIndex") == index

    until(90, f"{name} is paused at step {index}", arrived, lambda: place.status(name))


def becomes_stable(place: Place, name: str, version: str) -> None:
    what = f"version {version} of {name} is stable, and no other has pods"

    def arrived() -> bool:
        status = place.status(name)
        return place.stable_version(name) == version and not {"canary", "leaving"} & status.keys()

    until(120, what, arrived, lambda: place.status(name))


@pytest.mark.parametrize("paused", ["plugin-promote"], indirect=True)
def test_a_rollout_is_watched_and_promoted_step_by_step_and_undone(place: Place, plugin: Plugin, paused: str) -> None:
    shown = plugin("status", paused)
    assert "▸  2  pause until promoted" in shown
    assert f"for you: kubectl moorage --namespace={place.name} promote {paused}" in shown
    assert "50 % desired, 50 % applied, verified" in shown

    assert "was heard" in plugin("promote", paused)
    at_step(place, paused, 3)
    assert "was heard" in plugin("promote", paused, "--full")
    becomes_stable(place, paused, "2")

    assert "undo@" in plugin("undo", paused)
    at_step(place, paused, 1)
    plugin("promote", paused, "--full")
    becomes_stable(place, paused, "1")

    table = [line.split()[1:3] for line in plugin("history", paused).splitlines()]
    assert table == [["RESULT", "VERSION"], ["Promoted", "1"], ["Promoted", "2"], ["Promoted", "1"]]
    assert "[pod/" in plugin.run("logs", paused).stdout


@pytest.mark.parametrize("paused", ["plugin-abort"], indirect=True)
def test_a_rollout_is_held_let_go_put_back_and_tried_again(place: Place, plugin: Plugin, paused: str) -> None:
    assert plugin.run("resume", paused).returncode == 1  # it is at a step, and not paused by a command
    plugin("pause", paused)
    assert f"resume {paused}" in plugin("status", paused)
    plugin("resume", paused)
    plugin("pause", paused)
    plugin("resume", paused)

    plugin("abort", paused)
    place.wait_for_reason(paused, "RolledBack")
    assert "somebody aborted it" in plugin("status", paused)
    assert plugin.run("abort", paused).stderr.startswith(f"error: no rollout of {paused} is under way; {paused}-v2-")

    plugin("retry", paused)
    at_step(place, paused, 1)
    plugin("undo", paused)
    becomes_stable(place, paused, "1")
    assert "\n  undo " in plugin("status", paused)


class Git:
    """A ModelDeployment as Argo CD and Flux apply it from Git: by server-side apply, again and again, and nothing by force."""

    def __init__(self, place: Place, manifest: Object) -> None:
        self.place, self.manifest = place, json.dumps(manifest)

    def sync(self) -> None:
        self.place.kubectl("apply", "--server-side", MANAGER, "--filename=-", stdin=self.manifest)

    def drift(self) -> str:
        """What the next sync would change; what `kubectl diff` prints then."""
        done = self.place.api.run(
            "kubectl", "diff", "--server-side", MANAGER, f"--namespace={self.place.name}", "--filename=-",
            stdin=self.manifest,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


def test_commands_do_not_fight_with_what_is_in_git(
    place: Place, plugin: Plugin, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    git = Git(place, a_model("from-git", model, rollout=ROLLOUT))
    git.sync()
    place.wait_ready("from-git")
    generation = place.model("from-git")["metadata"]["generation"]
    registry.set_alias(model, "2")
    place.wait_for_reason("from-git", "Paused")
    canary = place.status("from-git")["canary"]["revision"]

    said = f"promote@{canary}/1"
    place.kubectl("annotate", "mdep", "from-git", f"{COMMAND}={said}")
    git.sync()
    assert place.model("from-git")["metadata"]["annotations"][COMMAND] == said
    assert git.drift() == ""
    at_step(place, "from-git", 3)
    assert place.status("from-git")["command"]["text"] == said

    plugin("promote", "from-git", "--full")
    git.sync()
    becomes_stable(place, "from-git", "2")
    assert git.drift() == ""
    assert place.status("from-git")["stable"]["revision"] == canary
    assert place.model("from-git")["metadata"]["generation"] == generation


def test_new_pods_come_with_restart(place: Place, plugin: Plugin, registry: Registry, model: str) -> None:
    registry.set_alias(model, "1")
    place.apply(a_model("plugin-restart", model))
    place.wait_ready("plugin-restart")
    before = place.status("plugin-restart")["stable"]["revision"]

    assert "new pods take over" in plugin("restart", "plugin-restart")

    def changed() -> bool:
        return bool(place.status("plugin-restart")["stable"]["revision"] != before)

    until(120, "another revision is stable", changed, lambda: place.status("plugin-restart"))


def test_a_command_for_nobody_names_who_is_there(plugin: Plugin, place: Place) -> None:
    place.apply(a_model("plugin-names", replicas=0))

    done = plugin.run("status", "plugin-name")

    assert (done.returncode, done.stdout) == (1, "")
    assert 'there is no ModelDeployment "plugin-name"' in done.stderr
    assert 'did you mean "plugin-names"?' in done.stderr


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"replica": 2}, "unknown field spec.replica: did you mean spec.replicas?"),
        (
            {"replicas": 2, "autoscaling": {"maxReplicas": 3}},
            "set either spec.replicas or spec.autoscaling: an autoscaler owns the number of replicas",
        ),
        (
            {"rollout": {"steps": [{"setWeight": 5, "pause": {}}]}},
            "a step does one thing: setWeight, pause, setCanaryScale, setHeaderRoute or analysis",
        ),
        ({"replicas": -1}, "spec.replicas"),
    ],
)
def test_lint_says_what_the_cluster_would(place: Place, plugin: Plugin, spec: Object, problem: str) -> None:
    done = plugin.run("lint", "-", stdin=json.dumps(a_model("linted", **spec)))

    assert done.returncode == 1
    assert problem in done.stdout
    assert 'Invalid value: "object"' not in done.stdout
    assert done.stdout.endswith("Checked by the cluster; nothing was changed.\n")
    assert place.model("linted") == {}


def test_lint_finds_nothing_wrong_with_a_good_one_and_makes_nothing(place: Place, plugin: Plugin) -> None:
    done = plugin.run("lint", "-", stdin=json.dumps(a_model("linted")))

    assert done.stdout == "ModelDeployment linted: ok\nChecked by the cluster; nothing was changed.\n"
    assert (done.returncode, place.model("linted")) == (0, {})
