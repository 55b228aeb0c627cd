"""`kubectl moorage lint`: what is wrong with a file, by a cluster where one answers, else as far as can be seen without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plugin_world import PLUGIN, Cluster

HEAD = "apiVersion: moorage.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: fraud}\n"
GOOD = HEAD + "spec: {model: {name: fraud-detector, alias: champion}, replicas: 2}\n"
IN_PART = (
    "Fields, their types and the rules broken most often were checked; bounds and the other rules need a cluster.\n"
)
OFFLINE = f"Checked in part, without a cluster: you asked for none (--offline). {IN_PART}"
MODEL = "model: {name: m, alias: champion}"
ALIAS_OR_VERSION = "set exactly one of spec.model.alias (follows the alias when it moves) and spec.model.version (stays on that version)"

FOUND_OFFLINE = {
    "a field spelled wrong": (f"{{{MODEL}, replica: 2}}", ["unknown field spec.replica: did you mean spec.replicas?"]),
    "a field in the wrong place": (f"{{{MODEL}, steps: []}}", ["unknown field spec.steps: did you mean spec.rollout.steps?"]),
    "a field deep inside": (
        f"{{{MODEL}, rollout: {{steps: [{{setWeight: 5}}, {{setWieght: 9}}]}}}}",
        ["unknown field spec.rollout.steps[1].setWieght: did you mean spec.rollout.steps[1].setWeight?"],
    ),
    "a field unlike any": (f"{{{MODEL}, qqq: 1}}", ["unknown field spec.qqq"]),
    "fields that are passed on": (f"{{{MODEL}, pod: {{affinity: {{anything: 1}}, labels: {{a: b}}}}}}", []),
    "a version without quotes": ("{model: {name: m, version: 3}}", ['spec.model.version is to be a string: write "3", in quotes']),
    "a word for a number": (f"{{{MODEL}, replicas: two}}", ["spec.replicas is to be of type integer"]),
    "a truth for a number": (f"{{{MODEL}, replicas: true}}", ["spec.replicas is to be of type integer"]),
    "a word that is none of some": (
        f"{{{MODEL}, rollout: {{strategy: bluegreen}}}}",
        ["spec.rollout.strategy is to be one of canary, blueGreen, recreate"],
    ),
    "an item that is no object": (f"{{{MODEL}, rollout: {{steps: [5]}}}}", ["spec.rollout.steps[0] is to be of type object"]),
    "no model": ("{replicas: 1}", ["spec.model is missing"]),
    "no name of the model": ("{model: {alias: champion}}", ["spec.model.name is missing"]),
    "neither alias nor version": ("{model: {name: m}}", [ALIAS_OR_VERSION]),
    "an autoscaler and replicas": (
        f"{{{MODEL}, replicas: 1, autoscaling: {{maxReplicas: 3}}}}",
        ["set either spec.replicas or spec.autoscaling: an autoscaler owns the number of replicas"],
    ),
    "no object at all": ("champion", ["spec is to be an object"]),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "problems"), FOUND_OFFLINE.values(), ids=FOUND_OFFLINE)
def test_what_is_found_without_a_cluster(cluster: Cluster, spec: str, problems: list[str]) -> None:
    done = cluster.run("lint", "-", "--offline", stdin=f"{HEAD}spec: {spec}\n")

    head = f"ModelDeployment fraud: {f'{len(problems)} problem' if problems else 'ok'}"
    assert done.stdout == "\n".join([head, *(f"  - {problem}" for problem in problems), OFFLINE])
    assert (done.returncode, done.stderr) == (1 if problems else 0, "")


def test_several_documents_are_told_apart(cluster: Cluster, tmp_path: Path) -> None:
    other = "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\n"
    typo = GOOD.replace("ModelDeployment", "ModelDeploymnet").replace("v1alpha1", "v1")
    (tmp_path / "all.yaml").write_text(f"{GOOD}---\n{other}---\n{typo}---\n")

    done = cluster.run("lint", str(tmp_path / "all.yaml"), "--offline")

    assert done.returncode == 1
    assert done.stdout.splitlines()[:5] == [
        "ModelDeployment fraud: ok",
        "ModelDeploymnet fraud: 2 problems",
        "  - apiVersion is moorage.dev/v1: write moorage.dev/v1alpha1",
        "  - kind is ModelDeploymnet: write ModelDeployment",
        "not looked at: Secret token",
    ]


def test_a_cluster_that_takes_it_has_the_last_word(cluster: Cluster) -> None:
    done = cluster.run("lint", "-", stdin=GOOD)

    assert done.stdout == "ModelDeployment fraud: ok\nChecked by the cluster; nothing was changed.\n"
    assert [line.split()[:2] for line in cluster.asked if line.startswith("apply")] == [["apply", "--dry-run=server"]]


def test_the_rules_of_the_cluster_are_shown_in_their_words(cluster: Cluster) -> None:
    strict = 'Error from server (BadRequest): error when creating "STDIN": strict decoding error: unknown field "spec.replica"'
    invalid = (
        'The ModelDeployment "fraud" is invalid: \n'
        '* spec: Invalid value: "object": set either spec.replicas or spec.autoscaling\n'
        '* <nil>: Invalid value: "null": some validation rules were not checked'
    )
    cluster.has(says={"strict": strict, "ignore": invalid})

    done = cluster.run("lint", "-", stdin=GOOD)

    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "ModelDeployment fraud: 3 problems",
        "  - unknown field spec.replica: did you mean spec.replicas?",
        "  - spec: set either spec.replicas or spec.autoscaling",
        "  - some validation rules were not checked",
        "Checked by the cluster; nothing was changed.",
    ]


def test_what_else_the_cluster_says_is_told_without_its_preamble(cluster: Cluster) -> None:
    cluster.has(
        says={"strict": 'Error from server (NotFound): error when creating "STDIN": namespaces "shop" not found'}
    )

    assert '\n  - namespaces "shop" not found\n' in cluster.run("lint", "-", stdin=GOOD).stdout


@pytest.mark.parametrize(
    ("down", "doubt"),
    [
        ("The connection was refused", "none answers (The connection was refused)"),
        (
            "Error from server (NotFound): the server could not find the requested resource",
            "the one that answers does not know moorage.dev/v1alpha1",
        ),
    ],
)
def test_without_a_cluster_it_says_that_it_checked_in_part(cluster: Cluster, down: str, doubt: str) -> None:
    cluster.has(down=down)

    done = cluster.run("lint", "-", stdin=GOOD)

    assert done.stdout == f"ModelDeployment fraud: ok\nChecked in part, without a cluster: {doubt}. {IN_PART}"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("file", "said"),
    [("missing.yaml", 'the path "missing.yaml" does not exist'), ("-", "- has no ModelDeployment")],
)
def test_a_file_without_one_is_an_error(cluster: Cluster, file: str, said: str) -> None:
    done = cluster.run("lint", file, stdin="apiVersion: v1\nkind: Secret\nmetadata: {name: token}\n")

    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl reads the YAML")
@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (f"# two\n{GOOD}---\n---\n{GOOD}", 0, "ModelDeployment fraud: ok\nModelDeployment fraud: ok\n"),
        (f"{HEAD}spec: [\n", 1, "error converting YAML to JSON"),
        ("metadata: {name: fraud}\n", 1, "Object 'Kind' is missing"),
        ("kind: ModelDeployment\n", 1, "  - apiVersion is missing: write moorage.dev/v1alpha1\n"),
        ("", 1, "- is empty"),
    ],
)
def test_kubectl_itself_reads_a_file_without_a_cluster(text: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PLUGIN), "lint", "-", "--offline"], input=text, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip

    assert done.returncode == code
    assert said in done.stdout + done.stderr
