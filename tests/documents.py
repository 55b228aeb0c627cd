"""The project's documents as tests read them: files, links, commands, and the ModelDeployments in their snippets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent
CRD = yaml.safe_load((REPOSITORY / "crds/modeldeployments.moorage.dev.yaml").read_text())
SPEC = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """One ModelDeployment, and where it is written."""

    place: str
    text: str


def files() -> list[Path]:
    """All that is written for people."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("charts/*/README.md")]
    return sorted([*found, *REPOSITORY.glob("examples/**/*.md"), *REPOSITORY.glob("hack/**/*.md")])


def fences(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages, without the indentation of the fence."""
    blocks = FENCE.findall(path.read_text())
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, kind, text in blocks if kind in languages]


def code(path: Path) -> str:
    """What is written as code: fenced blocks and `inline`."""
    text = path.read_text()
    return "\n".join([*re.findall(r"^ *```.*?^ *```", text, re.DOTALL | re.MULTILINE), *re.findall(r"`[^`\n]+`", text)])


def model_deployments() -> list[Snippet]:
    """Those of the examples and of all YAML snippets."""
    return list(_found())


def _found() -> Iterator[Snippet]:
    sources = [(path, [path.read_text()]) for path in sorted(REPOSITORY.glob("examples/**/*.yaml"))]
    sources += [(path, fences(path, "yaml")) for path in files()]
    for path, texts in sources:
        manifests = [item for text in texts for item in yaml.safe_load_all(text) if isinstance(item, dict)]
        for number, manifest in enumerate(item for item in manifests if item.get("kind") == "ModelDeployment"):
            yield Snippet(f"{path.relative_to(REPOSITORY)}-{number}", yaml.safe_dump(manifest))
