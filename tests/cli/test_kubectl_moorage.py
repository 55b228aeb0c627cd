"""`kubectl moorage` from the outside: what it writes, what it prints, how it ends. Errors are one sentence and never a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from plugin_world import BEFORE, CANARY, PLUGIN, REJECTED, STABLE, Cluster, Object, a_model, a_pod, a_rollout

WRITES: dict[str, tuple[Object, list[str], str]] = {
    "promote": (a_rollout(), ["promote", "fraud"], f"promote@{CANARY}/1"),
    "promote to the end": (a_rollout(), ["promote", "fraud", "--full"], f"promoteFull@{CANARY}"),
    "abort": (a_rollout(), ["abort", "fraud"], f"abort@{CANARY}"),
    "pause": (a_rollout(), ["pause", "fraud"], f"pause@{CANARY}"),
    "resume": (a_rollout(), ["resume", "fraud"], f"resume@{CANARY}"),
    "a name as kubectl prints it": (a_rollout(), ["pause", "mdep/fraud"], f"pause@{CANARY}"),
    "retry": (a_model(rejected=[REJECTED]), ["retry", "fraud"], f"retry@{CANARY}"),
    "undo, to the one before": (a_model(), ["undo", "fraud"], f"undo@{BEFORE}"),
    "undo under way, to the stable one": (a_rollout(), ["undo", "fraud"], f"undo@{STABLE}"),
    "undo, to a version": (a_model(), ["undo", "fraud", "--to", "v6"], f"undo@{BEFORE}"),
    "undo, to a revision of long ago": (a_model(), ["undo", "fraud", "--to", "fraud-v1-0"], "undo@fraud-v1-0"),
}


@pytest.mark.parametrize(("model", "arguments", "text"), WRITES.values(), ids=WRITES)
def test_a_command_is_written_and_what_came_of_it_told(
    cluster: Cluster, model: Object, arguments: list[str], text: str
) -> None:
    cluster.has(model)

    done = cluster.run(*arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert cluster.written == text
    assert done.stdout.startswith(f"{text} was heard\n{model['status']['phase']}: {model['status']['message']}\n")


@pytest.mark.parametrize(
    ("last", "next_one"),
    [
        (f"abort@{CANARY}", f"pause@{CANARY}"),
        (f"pause@{CANARY}", f"pause@{CANARY}.2"),
        (f"pause@{CANARY}.2", f"pause@{CANARY}.3"),
        (f"pause@{CANARY}9", f"pause@{CANARY}"),
    ],
)
def test_what_was_said_last_gets_a_number_so_that_it_is_heard_again(cluster: Cluster, last: str, next_one: str) -> None:
    cluster.has(a_rollout(command={"text": last, "at": "2026-01-31T11:00:00Z"}))

    cluster.run("pause", "fraud")

    assert cluster.written == next_one


def test_a_refusal_is_told_in_the_words_of_the_operator(cluster: Cluster) -> None:
    cluster.has(a_rollout(), refuses="fraud-v8-99aa77ee is not paused by a command")

    done = cluster.run("resume", "fraud")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: resume@{CANARY} was refused: fraud-v8-99aa77ee is not paused by a command\n"


def test_a_command_that_nobody_hears_is_not_called_done(cluster: Cluster) -> None:
    cluster.has(a_rollout(), deaf=True)

    done = cluster.run("abort", "fraud", "--timeout=0.1", "-n", "shop")

    assert (done.returncode, done.stdout) == (3, "")
    assert "was not heard within 0.1 s: is the operator running" in done.stderr
    assert done.stderr.endswith(
        "To take it back: kubectl --namespace=shop annotate modeldeployments.moorage.dev fraud moorage.dev/command-\n"
    )


def test_a_command_that_another_one_replaces_is_not_called_done(cluster: Cluster) -> None:
    cluster.has(a_rollout(), deaf=True, somebody_else_writes=f"pause@{CANARY}")

    done = cluster.run("abort", "fraud")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: abort@{CANARY} was not heard: somebody else wrote pause@{CANARY} in its place\n"


DOWN = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
NO_CRD = 'error: the server doesn\'t have a resource type "modeldeployments"'
NO_RIGHT = 'Error from server (Forbidden): modeldeployments.moorage.dev "fraud" is forbidden: User "eve" cannot get it'
FAILS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a name spelled wrong": (
        {}, ["status", "farud"],
        'there is no ModelDeployment "farud" in the present namespace: did you mean "fraud"?',
    ),
    "another name": ({}, ["status", "x", "-n", "shop"], 'there is no ModelDeployment "x" in namespace shop: there are fraud'),
    "no rollout": ({}, ["promote", "fraud"], "no rollout of fraud is under way"),
    "put back before": (
        {"model": a_model(rejected=[REJECTED])}, ["abort", "fraud"],
        f"no rollout of fraud is under way; {CANARY} was put back",
    ),
    "nothing rejected": ({}, ["retry", "fraud"], "nothing of fraud is rejected: there is nothing to try again"),
    "nothing before": (
        {"model": a_model(history=[])}, ["undo", "fraud"],
        "fraud has had no other revision: there is nothing to go back to",
    ),
    "no such version": (
        {}, ["undo", "fraud", "--to", "5"],
        f"fraud has no revision of that name or version (5): {STABLE} (version 7), {BEFORE} (version 6)",
    ),
    "a version of two revisions": (
        {"model": a_rollout(canary={"revision": CANARY, "modelVersion": "6"})}, ["undo", "fraud", "--to=v6"],
        f"fraud has 2 revisions of that name or version (v6): {CANARY}, {BEFORE}",
    ),
    "suspended": (
        {"model": a_rollout(spec={"suspend": True})}, ["abort", "fraud"],
        "fraud is suspended: nothing is heard until spec.suspend is false; nothing was written",
    ),
    "no cluster": ({"down": DOWN}, ["status", "fraud"], DOWN),
    "no Moorage": (
        {"down": NO_CRD}, ["history", "fraud"],
        "this cluster knows no ModelDeployments: is Moorage installed there, and is it the cluster that you mean?",
    ),
    "no right": ({"down": NO_RIGHT}, ["status", "fraud"], NO_RIGHT.partition(": ")[2]),
    "no pods": ({}, ["logs", "fraud"], f"{STABLE} has no pods"),
    "two revisions": ({}, ["logs", "fraud", "--canary", "--revision=7"], "say either --revision or --canary"),
    "no canary": ({}, ["logs", "fraud", "--canary"], "no rollout of fraud is under way"),
}  # fmt: skip


@pytest.mark.parametrize(("world", "arguments", "said"), FAILS.values(), ids=FAILS)
def test_an_error_is_one_sentence(cluster: Cluster, world: dict[str, Any], arguments: list[str], said: str) -> None:
    cluster.has(world.pop("model", a_model()), **world)

    done = cluster.run(*arguments)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}\n")
    assert not [line for line in cluster.asked if line.startswith(("annotate", "patch"))]


def test_without_kubectl_it_says_so(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, str(PLUGIN), "status", "fraud"], env={"PATH": "/nowhere"}, capture_output=True, text=True,
        timeout=10, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "error: kubectl is not on PATH\n")


@pytest.mark.parametrize("arguments", [[], ["promot", "fraud"], ["status"], ["undo", "fraud", "--to"]])
def test_a_wrong_command_line_gets_the_usage(cluster: Cluster, arguments: list[str]) -> None:
    done = cluster.run(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("usage: kubectl moorage")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--context=far", "-n", "shop", "--kubeconfig=/k", "status", "fraud"],
        ["status", "fraud", "--kubeconfig", "/k", "--context", "far", "--namespace=shop"],
        ["--kubeconfig=/k", "status", "--context=far", "fraud", "-nshop"],
    ],
)
def test_which_cluster_and_namespace_may_be_said_anywhere(cluster: Cluster, arguments: list[str]) -> None:
    assert cluster.run(*arguments).returncode == 0
    assert all(line.startswith("--kubeconfig=/k --context=far --namespace=shop get ") for line in cluster.asked)


def test_what_it_says_to_type_is_for_the_same_place(cluster: Cluster) -> None:
    cluster.has(a_rollout())

    assert (
        "for you: kubectl moorage --namespace=shop promote fraud" in cluster.run("status", "fraud", "-n", "shop").stdout
    )


def test_restart_writes_the_present_time_and_waits_for_the_operator(cluster: Cluster) -> None:
    done = cluster.run("restart", "fraud")

    assert re.match(r"spec\.restartAt is 20..-..-..T..:..:..Z: new pods take over", done.stdout)
    assert done.stdout.endswith("Healthy: version 7 answers\n")


def test_restart_does_not_claim_what_no_operator_has_seen(cluster: Cluster) -> None:
    cluster.has(a_model(), deaf=True)

    done = cluster.run("restart", "fraud", "--timeout=0.1")

    assert (done.returncode, done.stdout) == (3, "")
    assert "the operator has not looked within 0.1 s" in done.stderr


def test_history_is_a_table_with_the_newest_first(cluster: Cluster) -> None:
    back = {
        "revision": CANARY,
        "modelVersion": "8",
        "result": "RolledBack",
        "at": "2026-01-31T09:00:00Z",
        "message": "it crashes",
    }
    cluster.has(a_model(history=[back, *a_model()["status"]["history"]]))

    assert cluster.run("history", "fraud").stdout.splitlines() == [
        "ENDED                 RESULT      VERSION  REVISION           NOW     MESSAGE",
        "2026-01-31T09:00:00Z  RolledBack  8        fraud-v8-99aa77ee          it crashes",
        "2026-01-30T09:00:00Z  Promoted    7        fraud-v7-11aa22bb  stable",
        "2026-01-29T09:00:00Z  Promoted    6        fraud-v6-33cc44dd",
    ]


@pytest.mark.parametrize(
    ("arguments", "revision", "option"),
    [
        (["-f"], STABLE, "--follow"),
        (["--canary", "-p"], CANARY, "--previous"),
        (["--revision=6", "--tail=-1"], BEFORE, "--tail=-1"),
    ],
)
def test_logs_are_those_of_one_revision(cluster: Cluster, arguments: list[str], revision: str, option: str) -> None:
    cluster.has(a_rollout(), pods=[a_pod(revision)])

    done = cluster.run("logs", "fraud", *arguments)

    assert (done.returncode, done.stdout) == (0, "[pod/fraud-v7-11aa22bb-x/serve] ready\n")
    assert f"--selector=moorage.dev/deployment=fraud,moorage.dev/revision={revision} " in cluster.asked[-1]
    assert option in cluster.asked[-1].split()
