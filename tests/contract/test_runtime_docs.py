"""docs/runtime.md keeps its word: settings, errors and metrics are the code's, and its examples answer as it says."""

from __future__ import annotations

import dataclasses
import re
import shlex
import warnings
from pathlib import Path

import mlflow.sklearn
import orjson
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import documents
from moorage_runtime import arms, errors, feedback, limits, settings, shadow, telemetry
from moorage_runtime.codecs import comparing
from moorage_runtime.routes import predict
from moorage_runtime.rpc import inference
from runtime_builders import a_client, a_service, leaves, load

DOCUMENT = documents.REPOSITORY / "docs" / "runtime.md"


def section(title: str) -> str:
    """What is written under this heading."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title}"
    return found.group(1)


def table(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_settings_is_the_code() -> None:
    rows = {row[1]: row for row in table("Settings")}
    described = [f for f in dataclasses.fields(settings.Settings) if f.metadata]
    assert list(rows) == [f"`{settings.flag(field.name)}`" for field in described]
    for field in described:
        variable, _, commands, default, about = rows[f"`{settings.flag(field.name)}`"]
        assert variable == (f"`{field.metadata['variable']}`" if field.metadata["variable"] else "—")
        assert commands == ", ".join(field.metadata["commands"])
        assert about.startswith(field.metadata["about"])
        assert re.findall(r"`(\w+)`", about.removeprefix(field.metadata["about"])) == list(field.metadata["choices"])
        shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert default.strip("`") == (shown.lower() if isinstance(field.default, bool) else shown)


def test_the_tables_of_errors_are_the_code() -> None:
    requests = {row[1].strip("`"): int(row[0]) for row in table("Errors of requests")}
    assert requests == {kind.__name__: kind.status for kind in leaves(errors.RequestError)}
    calls = {row[1].strip("`"): row[2].strip("`") for row in table("Errors of requests")}
    assert calls == {kind.__name__: status.name for kind, status in inference.STATUS.items()}
    ends = {row[0].strip("`"): row[1] for row in table("Last words")}
    assert set(ends) == {kind.__name__ for kind in leaves(errors.Fatal)}
    assert {name for name, command in ends.items() if command == "fetch"} == {
        k.__name__ for k in leaves(errors.FetchError)
    }
    assert {name for name, command in ends.items() if command == "serve"} == {
        k.__name__ for k in leaves(errors.LoadError)
    }


def test_the_tree_in_the_docstring_of_the_errors_is_the_tree() -> None:
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert sorted(drawn) == sorted(classes - {"RuntimeFault"})


def test_the_table_of_metrics_is_the_code() -> None:
    metrics = telemetry.Metrics(model="m", version="1", revision="r")
    metrics.answered("v2", 200, 0.1)
    metrics.loaded(1.0)
    metrics.judged("r", "", is_right=True)
    metrics.scored("r", "", 1.0)
    metrics.paired("r", "both_right")
    metrics.shadowed("r", shadow.DISAGREE)
    exposed = {
        (family.name + "_total" if family.type == "counter" else family.name): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"model", "version", "revision", "le"},
        )
        for family in metrics.registry.collect()
    }
    assert {row[0].strip("`"): (row[1], set(re.findall(r"`(\w+)`", row[2]))) for row in table("Metrics")} == exposed
    protocols = {predict.V2.label, predict.MLFLOW.label, predict.ROWS.label, inference.PROTOCOL}
    assert set(re.findall(r"`protocol` is `(\w+)`, `(\w+)`, `(\w+)` or `(\w+)`", section("Metrics"))[0]) == protocols


def test_the_limits_in_the_text_are_the_code() -> None:
    assert f"{limits.MAX_REQUEST_BYTES // 1024 // 1024} MiB" in section("Errors of requests")
    told = section("Prediction ids and feedback")
    assert f"the latest {feedback.MAX_SEEN:,}" in told
    assert f"the latest {feedback.MAX_ANSWERS:,} answers of at most {feedback.MAX_ANSWER_BYTES // 1024} KiB" in told
    assert f"at most {feedback.MAX_BYTES // 2**20} MiB" in told
    told = " ".join(section("Shadows").split())
    assert f"{shadow.MAX_WAITING} wait" in told
    assert f"larger than {shadow.MAX_BYTES // 1024} KiB" in told
    assert f"has more than {shadow.MAX_ANSWER_BYTES // 1024} KiB" in told
    assert f"at most {100 * shadow.CPU_SHARE:g} % of a core" in told
    assert f"nothing within {shadow.TIMEOUT_SECONDS:g} seconds" in told
    assert f"takes longer than {shadow.SLOW_SECONDS:g} seconds" in told
    assert f"no copies for {shadow.PAUSE_SECONDS:g} seconds" in told
    told = section("Prediction ids and feedback")
    assert f"within {comparing.RELATIVE_TOLERANCE} of each other" in told
    assert f"comes after {arms.MAX_DISTINCT} of them" in section("Metrics")


def examples() -> list[tuple[list[str], str]]:
    """Each command of the document, and the line that it answers."""
    blocks = documents.fences(DOCUMENT, "console")
    shown = [part.rstrip() for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(shlex.split(command), answer) for command, _, answer in (part.rpartition("\n") for part in shown)]


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flowers, species = load_iris(return_X_y=True, as_frame=True)
    flowers = flowers.astype("float32")
    classifier = LogisticRegression(max_iter=500).fit(flowers, species)
    folder = tmp_path_factory.mktemp("documented") / "iris"
    with warnings.catch_warnings(action="ignore"):  # what MLflow says while saving is not under test
        signature = infer_signature(flowers, classifier.predict(flowers))
        mlflow.sklearn.save_model(classifier, folder, signature=signature, pip_requirements=[])
    return folder


async def test_the_examples_answer_as_they_are_written(iris: Path) -> None:
    served = a_service("iris", "3")
    await served.load(lambda: load(iris))
    assert len(examples()) >= 7
    async with a_client(served) as client:
        for words, written in examples():
            path = next(word for word in words if word.startswith("localhost:8080")).removeprefix("localhost:8080")
            headers = dict(words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H")
            body = next((words[i + 1] for i, word in enumerate(words) if word == "-d"), None)
            answer = await client.request("POST" if body else "GET", path, content=body, headers=headers)
            assert orjson.loads(answer.content) == orjson.loads(written), path
