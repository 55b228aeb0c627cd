"""Runs Helm on the project's own chart: `template`, with values, into objects."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
CHART = REPOSITORY / "charts/moorage"
NAMESPACE = "moorage-system"

Object = dict[str, Any]


def run(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    command = [_program(), *arguments, str(CHART), "--values", "-"]
    text = yaml.safe_dump(values or {})
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def template(values: Object | None = None, *options: str) -> list[Object]:
    """All objects that an installation as `moorage` makes."""
    text = _rendered(yaml.safe_dump(values or {}), *options)
    return [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item]


@functools.cache
def _rendered(values: str, *options: str) -> str:
    done = run("template", "moorage", "--namespace", NAMESPACE, *options, values=yaml.safe_load(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: Object) -> str:
    """What Helm says to values that it does not take."""
    done = run("template", "moorage", values=values)
    assert done.returncode != 0, "these values are accepted"
    return done.stderr


def one(objects: list[Object], kind: str, name: str = "moorage-operator") -> Object:
    found = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def _program() -> str:
    program = shutil.which("helm") or _built()
    if program is None:
        pytest.fail('helm is not on PATH: run `hack/install`, or `eval "$(hack/cluster env)"` if it is built')
    return program


def _built() -> str | None:
    """The one that hack/cluster builds and keeps, without starting a cluster."""
    done = subprocess.run(
        ["bash", "-c", 'eval "$(hack/cluster env)" && command -v helm'],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None
