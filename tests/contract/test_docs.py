"""Documents keep their word: links lead somewhere, commands and fields exist, snippets are taken by parser and chart."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import documents
import helm
from documents import REPOSITORY
from moorage_operator.core import spec

FILES = documents.files()

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)")
SCRIPT = re.compile(r"\bhack/[a-z][a-z0-9./-]*[a-z]")
FIELD = re.compile(r"\bspec((?:\.[a-z][A-Za-z]*)+)")
SET = re.compile(r"--set (\S+)")

each_document = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))


def headings(path: Path) -> set[str]:
    """The anchors that a forge makes of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_documents_that_people_look_for_are_there() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in FILES}

    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/quickstart.md", "docs/install.md"} <= names
    assert {"docs/api.md", "docs/operations.md", "docs/architecture.md", "docs/adr/0000-template.md"} <= names


@each_document
def test_each_link_inside_the_project_leads_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_document
def test_each_document_is_linked_from_another(path: Path) -> None:
    linked = {
        (other.parent / link.partition("#")[0]).resolve()
        for other in FILES
        if other != path
        for link in LINK.findall(other.read_text())
    }
    folders = {target for target in linked if target.is_dir()}

    assert path.name == "README.md" or path in linked or path.parent in folders or path.parent.name == "adr"


@each_document
def test_nothing_is_left_to_be_written(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|TBD|XXX)\b", path.read_text())


@each_document
def test_each_command_of_make_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))

    assert set(MAKE.findall(documents.code(path))) <= targets


@each_document
def test_each_script_exists(path: Path) -> None:
    missing = [name for name in SCRIPT.findall(documents.code(path)) if not (REPOSITORY / name).exists()]

    assert missing == []


@each_document
def test_each_field_exists(path: Path) -> None:
    unknown = [
        f"spec{field}" for field in FIELD.findall(documents.code(path)) if not _is_field(field.strip(".").split("."))
    ]

    assert unknown == []


def _is_field(names: list[str]) -> bool:
    schema = documents.SPEC
    for name in names:
        schema = schema.get("items", schema)
        if "additionalProperties" in schema:
            return True
        if name not in schema.get("properties", {}):
            return False
        schema = schema["properties"][name]
    return True


@pytest.mark.parametrize("snippet", documents.model_deployments(), ids=lambda snippet: snippet.place)
def test_each_model_deployment_is_taken_by_the_parser(snippet: documents.Snippet) -> None:
    manifest = yaml.safe_load(snippet.text)

    parsed = spec.parse(manifest)

    assert parsed.model.name == manifest["spec"]["model"]["name"]
    assert all(_is_field(names) for names in _paths(manifest["spec"]))


def _paths(value: object) -> list[list[str]]:
    if not isinstance(value, dict):
        return [[]]
    return [[name, *rest] for name, inner in value.items() for rest in _paths(inner)]


@pytest.mark.parametrize(
    "values",
    [text for path in FILES for text in documents.fences(path, "yaml") if text.startswith("# values.yaml")],
    ids=lambda text: text.splitlines()[1],
)
def test_each_snippet_of_values_is_taken_by_the_chart(values: str) -> None:
    assert helm.template(yaml.safe_load(values))


@each_document
def test_each_value_on_a_command_line_is_taken_by_the_chart(path: Path) -> None:
    for block in documents.fences(path, "bash", "sh"):
        options = SET.findall(block)
        assert helm.template({}, *[part for option in options for part in ("--set", option)])


def test_make_help_lists_each_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=True)
    targets = re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)

    assert [line.split()[1] for line in listed.stdout.splitlines()] == targets


def test_what_is_generated_is_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, "hack/generate.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
