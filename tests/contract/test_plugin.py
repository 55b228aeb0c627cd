"""The kubectl plugin and the operator mean the same: commands, steps, names, fields and rules. And it stays one file."""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

import kubectl_moorage as plugin
from documents import REPOSITORY
from moorage_operator.core import commands, names, spec, state, steps, strategy
from moorage_operator.core.kinds import MODEL_DEPLOYMENT
from moorage_operator.core.observed import Observed
from moorage_operator.core.revisions import Owner
from moorage_operator.core.traffic import Routed
from moorage_operator.core.waiting import World
from plugin_world import BEFORE, CANARY, PLUGIN, REJECTED, STABLE, Object, a_model, a_rollout

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CRD = (REPOSITORY / "crds/modeldeployments.moorage.dev.yaml").read_text()
TEXT = (REPOSITORY / "docs/plugin.md").read_text()
TREE = ast.parse(PLUGIN.read_text(), feature_version=(3, 9))

SAID: dict[str, tuple[Object, Object]] = {
    "promote": (a_rollout(), {"full": False}),
    "promoteFull": (a_rollout(), {"full": True}),
    "abort": (a_rollout(), {}),
    "pause": (a_rollout(), {}),
    "resume": (a_rollout(paused=True), {}),
    "retry": (a_model(rejected=[REJECTED]), {}),
    "undo": (a_model(), {"to": ""}),
}


def heard(model: Object, text: str) -> state.State:
    """What the operator makes of a command; it wants the stable revision and keeps one more."""
    before = state.read(model["status"])
    observed = Observed(owner=Owner("shop", "fraud", "uid-1"), generation=4)
    world = World(spec.parse(model), observed, Routed(None, frozenset(), {}), NOW)
    before = before.moved(hash=strategy.hash_of(steps.of(world.spec, before)))
    return commands.obey(text, before, world, wanted=STABLE, kept={STABLE, CANARY, BEFORE})


@pytest.mark.parametrize("verb", commands._VERBS)
def test_the_operator_does_what_the_plugin_writes(verb: str) -> None:
    model, options = SAID[verb]
    text = plugin.COMMANDS[verb.removesuffix("Full")](model, argparse.Namespace(**options))

    after = heard(model, text)

    assert text.startswith(f"{verb}@")
    assert after.command == state.Command(text, NOW)
    assert after != state.read(model["status"]).changed(command=after.command)


def test_the_same_once_more_is_heard_once_more() -> None:
    model, text = a_rollout(), f"pause@{CANARY}"
    for expected in (text, f"{text}.2", f"{text}.3"):
        said = plugin.said_anew(text, model)
        after = heard(model, said)
        model["status"]["command"] = {"text": said, "at": "2026-01-31T12:00:00Z"}
        assert (said, after.command) == (expected, state.Command(said, NOW))


@pytest.mark.parametrize(
    ("rollout", "status"),
    [
        ({}, {}),
        ({"strategy": "blueGreen", "steps": []}, {}),
        ({"strategy": "blueGreen", "steps": [], "blueGreen": {"autoPromote": False}}, {}),
        ({"strategy": "recreate", "steps": []}, {}),
        ({}, {"stable": None}),
        ({}, {"canary": {"revision": CANARY, "isBack": True}}),
    ],
)
def test_the_plugin_counts_the_steps_that_the_operator_takes(rollout: dict[str, Any], status: dict[str, Any]) -> None:
    before = a_rollout()
    model = a_rollout(spec={"rollout": before["spec"]["rollout"] | rollout}, **status)

    taken = steps.of(spec.parse(model), state.read(model["status"]))

    assert len(plugin.steps_of(model)) + 1 == len(taken)
    assert [plugin.in_words(step) == plugin.UNTIL_PROMOTED for step in plugin.steps_of(model)] == [
        step.pause is not None and step.pause.length is None for step in taken[:-1]
    ]


def test_names_are_those_of_the_operator() -> None:
    assert (plugin.COMMAND, plugin.OF_MODEL, plugin.OF_REVISION) == (names.COMMAND, names.DEPLOYMENT, names.REVISION)
    assert (MODEL_DEPLOYMENT.api_version, MODEL_DEPLOYMENT.name) == (plugin.API, plugin.KIND)
    assert yaml.safe_load(CRD)["metadata"]["name"] == plugin.RESOURCE


def test_each_rule_that_needs_no_cluster_is_one_of_the_crd_in_its_words() -> None:
    messages = set(re.findall(r"""message: (?:'(.*)'|"(.*)")$""", CRD, re.MULTILINE))
    broken = {"model": {}, "replicas": 1, "autoscaling": {}}

    found = list(plugin.broken_rules(broken, "9"))

    assert len(found) == 3
    assert set(found) <= {quoted or plain for quoted, plain in messages}


def test_it_is_one_file_on_the_standard_library() -> None:
    imported = [node for node in ast.walk(TREE) if isinstance(node, ast.Import)]
    imported_from = [node.module or "" for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)]
    modules = {alias.name for node in imported for alias in node.names} | set(imported_from)

    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names
    assert PLUGIN.read_text().startswith("#!/usr/bin/env python3\n")
    assert PLUGIN.stat().st_mode & 0o111


def test_it_has_the_version_of_its_package() -> None:
    project = tomllib.loads((REPOSITORY / "cli/pyproject.toml").read_text())["project"]

    assert project["version"] == plugin.VERSION
    assert project["scripts"] == {"kubectl-moorage": "kubectl_moorage:main"}


def test_its_document_tells_each_command_and_option() -> None:
    [verbs] = [item for item in plugin.parser()._actions if isinstance(item, argparse._SubParsersAction)]
    told = {words for line in TEXT.splitlines() for words in re.findall(r"`(-[-a-z]+)", line)}
    options = {text for parser in verbs.choices.values() for item in parser._actions for text in item.option_strings}

    assert set(re.findall(r"^\| `([a-z]+)", TEXT, re.MULTILINE)) == set(verbs.choices)
    assert options - {"-h", "--help"} <= told
