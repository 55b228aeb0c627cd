"""What every image of the project promises, read from its Dockerfile; test_images.py asks the built images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
DOCKERFILES = ["Dockerfile.operator", "Dockerfile.runtime", "hack/mlflow-server/Dockerfile"]
LABELS = {"title", "description", "licenses", "version", "revision", "base.name"}

pytestmark = pytest.mark.parametrize("path", DOCKERFILES)


def instructions(path: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest), continuation lines joined and comments left out."""
    lines = [line for line in (REPOSITORY / path).read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in logical if line.strip())]


def final_stage(path: str) -> list[tuple[str, str]]:
    every = instructions(path)
    return every[max(at for at, (word, _) in enumerate(every) if word == "FROM") :]


def test_the_base_image_is_an_argument_and_the_only_image_from_outside(path: str) -> None:
    every = instructions(path)
    stages = {rest.split()[2] for word, rest in every if word == "FROM" and " AS " in rest}

    assert every[0] == ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm")
    assert {rest.split()[0] for word, rest in every if word == "FROM"} <= stages | {"${BASE_IMAGE}"}


def test_it_runs_as_a_numeric_user_that_is_not_root(path: str) -> None:
    assert [rest for word, rest in final_stage(path) if word == "USER"] == ["65532:65532"]


def test_it_carries_the_labels_of_the_oci_annotations(path: str) -> None:
    (text,) = [rest for word, rest in final_stage(path) if word == "LABEL"]

    assert set(re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", text)) == LABELS


def test_packages_come_from_the_lock_file_with_their_hashes(path: str) -> None:
    installs = [rest for word, rest in instructions(path) if word == "RUN" and "uv pip install" in rest]
    from_lists = [rest for rest in installs if re.search(r" -r [\w/]+\.txt", rest)]

    assert from_lists
    assert all("--require-hashes --no-deps" in rest for rest in from_lists)
    assert all(re.search(r"--no-deps .*/src/(operator|runtime)$", rest) for rest in installs if rest not in from_lists)


def test_the_final_stage_installs_no_compiler_and_takes_no_source_from_the_tree(path: str) -> None:
    packages = re.findall(r"apt-get install ([^&>]*)", " ".join(rest for _, rest in final_stage(path)))
    copies = [rest for word, rest in final_stage(path) if word in ("COPY", "ADD")]

    assert {name for text in packages for name in text.split() if not name.startswith("-")} <= {"libgomp1"}
    assert all(rest.startswith("--from=") for rest in copies)


def test_no_secret_is_an_argument_or_a_variable(path: str) -> None:
    declared = " ".join(rest for word, rest in instructions(path) if word in ("ARG", "ENV"))

    assert not re.search(r"(?i)(password|token|secret|credential|_key)", declared)


def test_the_pinned_uv_is_the_same_everywhere(path: str) -> None:
    pins = {rest for name in DOCKERFILES for word, rest in instructions(name) if rest.startswith("UV_VERSION=")}

    assert len(pins) == 1
    assert pins <= {rest for _, rest in instructions(path)}


def test_mlflow_is_told_to_report_to_nobody(path: str) -> None:
    if path.startswith("hack/"):
        pytest.skip("its manifest says so")
    assert "MLFLOW_DISABLE_TELEMETRY=true" in " ".join(rest for word, rest in final_stage(path) if word == "ENV")
