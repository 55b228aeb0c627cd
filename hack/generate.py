#!/usr/bin/env python3
"""Makes what is made from something else: copies of the CRD and its fields, docs/api.md, tables in other documents, gRPC's messages.

`generate.py` writes, `generate.py --check` fails where a file is not what it would write. Its sources are the CRD, the comments of
the chart's values.yaml, the code's own reasons and metrics, and inference.proto; it writes whole files, or between two markers.
"""

from __future__ import annotations

import json
import sys
import tempfile
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from grpc_tools import protoc
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from moorage_operator import telemetry as operator_telemetry
from moorage_operator.core.reasons import EXPLANATIONS
from moorage_runtime import telemetry as runtime_telemetry

ROOT = Path(__file__).parent.parent
CRD = ROOT / "crds/modeldeployments.moorage.dev.yaml"
CRD_COPY = ROOT / "charts/moorage/files/modeldeployments.moorage.dev.yaml"
HEALTH_CHECK = ROOT / "charts/moorage/files/argo-cd-health.lua"
GITOPS = ROOT / "docs/gitops.md"
API_DOCS = ROOT / "docs/api.md"
OPERATIONS = ROOT / "docs/operations.md"
PLUGIN = ROOT / "cli/kubectl_moorage.py"
VALUES = ROOT / "charts/moorage/values.yaml"
CHART_README = ROOT / "charts/moorage/README.md"
RUNTIME = ROOT / "runtime/src"
MESSAGES = RUNTIME / "moorage_runtime/oip/inference.proto"

API_HEAD = """<!-- Made from crds/modeldeployments.moorage.dev.yaml by `make generate`: change that file. -->
# API reference: ModelDeployment

`moorage.dev/v1alpha1`, short name `mdep`. The API server itself checks types, bounds and rules: what breaks one is refused at
`kubectl apply` with the rule's message. [operations.md](operations.md) lists the reasons that the conditions may have.
"""

Schema = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """One value of the chart: its dotted path, its default, and the comment above it."""

    path: str
    default: Any
    description: str


def main(arguments: list[str]) -> int:
    outputs = {
        CRD_COPY: CRD.read_text(),
        API_DOCS: api_docs(yaml.safe_load(CRD.read_text())),
        PLUGIN: plugin(PLUGIN.read_text(), yaml.safe_load(CRD.read_text())),
        CHART_README: between(CHART_README.read_text(), "values", values_table(values(VALUES.read_text()))),
        OPERATIONS: operations(OPERATIONS.read_text()),
        GITOPS: between(GITOPS.read_text(), "argo-cd-health", _config_map(HEALTH_CHECK.read_text())),
        **messages(MESSAGES),
    }
    stale = [path for path, text in outputs.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} is not what it is made from: run `make generate` and commit it",
                file=sys.stderr,
            )
        return 1 if stale else 0
    for path in stale:
        path.write_text(outputs[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def between(text: str, name: str, content: str) -> str:
    """The text with what is between the markers of that name replaced."""
    begin, end = f"<!-- {name}: made by `make generate` -->\n", f"<!-- {name}: end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}{content}{end}{rest.split(end)[1]}"


def operations(text: str) -> str:
    """docs/operations.md with its tables: reasons, and the metrics of both programs."""
    runtime = runtime_telemetry.Metrics(model="", version="", revision="")
    rows = [_row([f"`{reason}`", told.meaning, told.remedy]) for reason, told in EXPLANATIONS.items()]
    text = between(text, "reasons", _table("reason", "what it means", "what to do", rows=rows))
    text = between(text, "operator-metrics", metrics_table(operator_telemetry.Metrics().registry))
    return between(text, "runtime-metrics", metrics_table(runtime.registry, but={"model", "version", "revision"}))


def metrics_table(registry: CollectorRegistry, but: Collection[str] = ()) -> str:
    """Every metric with its labels, `but` those that all have."""
    rows = []
    for collector in registry._collector_to_names:  # noqa: SLF001 - collect() leaves out labels that have no value yet
        if not isinstance(collector, MetricWrapperBase):
            continue  # the standard metrics of a process
        family, labels = next(iter(collector.describe())), collector._labelnames  # noqa: SLF001 - the only place of them
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = ", ".join(f"`{label}`" for label in labels if label not in but)
        rows.append(_row([f"`{name}`", family.type, shown, family.documentation]))
    return _table("metric", "type", "labels", "what it says", rows=sorted(rows))


def messages(proto: Path) -> dict[Path, str]:
    """The Python modules beside a .proto file, by the compiler that the lock file names."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--proto_path={RUNTIME}", f"--python_out={folder}", f"--pyi_out={folder}", str(proto)]
        if protoc.main(["protoc", *arguments]):
            sys.exit(f"{proto.relative_to(ROOT)} can't be compiled: see above")
        return {RUNTIME / made.relative_to(folder): made.read_text() for made in Path(folder).rglob("*_pb2.py*")}


def api_docs(crd: Schema) -> str:
    """docs/api.md: one section for every object that has fields."""
    version = crd["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    sections = [API_HEAD, *_rules(root | {"properties": {}}), ""]
    for name in ("spec", "status"):
        for path, schema in _objects(root["properties"][name], name):
            sections += [f"## {path}\n", f"{schema['description']}\n", *_fields(schema), "", *_rules(schema), ""]
    columns = [f"`{column['name']}`" for column in version["additionalPrinterColumns"]]
    sections += ["## Columns\n", f"`kubectl get mdep` shows {', '.join(columns)}; the last ones with `-o wide`.", ""]
    return "\n".join(line for index, line in enumerate(sections) if line or sections[index - 1])


def _objects(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """An object and all objects in it, with their paths; `[]` stands for each item of a list."""
    if schema.get("properties"):
        yield path, schema
    for name, child in schema.get("properties", {}).items():
        if child.get("type") == "array":
            yield from _objects({"description": child["description"]} | child["items"], f"{path}.{name}[]")
        else:
            yield from _objects(child, f"{path}.{name}")


def _fields(schema: Schema) -> list[str]:
    rows = ["| field | type | default | bounds | description |", "|---|---|---|---|---|"]
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        default = "required" if name in required else _code(field["default"]) if "default" in field else ""
        cells = [f"`{name}`", _type(field), default, _bounds(field), field["description"]]
        rows.append(_row(cells))
    return rows


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    return str(field["type"])


def _bounds(field: Schema) -> str:
    parts = [", ".join(_code(value) for value in field.get("enum", []))]
    parts.append(_range(field.get("minimum"), field.get("maximum"), ""))
    for suffix, unit in {"Length": " characters", "Items": " items", "Properties": " entries"}.items():
        parts.append(_range(field.get(f"min{suffix}"), field.get(f"max{suffix}"), unit))
    parts.append(f"matches {_code(field['pattern'])}" if "pattern" in field else "")
    return "; ".join(part for part in parts if part)


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return f"at most {high}{unit}"
    return f"at least {low}{unit}" if high is None else f"{low}…{high}{unit}"


def _rules(schema: Schema) -> list[str]:
    """The messages of an object's rules and of those of its fields that have no section of their own."""
    plain = [field for field in schema.get("properties", {}).values() if not field.get("properties")]
    plain += [field["items"] for field in plain if "items" in field and not field["items"].get("properties")]
    checks = [rule for part in (schema, *plain) for rule in part.get("x-kubernetes-validations", [])]
    return ["Rules:\n", *(f"- {rule['message']}" for rule in checks)] if checks else []


def plugin(text: str, crd: Schema) -> str:
    """The plugin with all fields below spec: one line, or some, for every object."""
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    lines = []
    for path, schema in _objects(spec, "spec"):
        required = schema.get("required", [])
        words = [f"{name}{'!' * (name in required)}={_word(field)}" for name, field in schema["properties"].items()]
        words += ["*"] * schema.get("x-kubernetes-preserve-unknown-fields", False)
        lines.append(textwrap.fill(f"{path}: {' '.join(words)}", 120, subsequent_indent="    ", break_on_hyphens=False))
    head, rest = text.split('FIELDS = """\n')
    return "\n".join([head + 'FIELDS = """', *lines, '"""' + rest.split('"""', 1)[1]])


def _word(field: Schema) -> str:
    """What a value has to be: one of some words, or of a type."""
    if field.get("x-kubernetes-int-or-string"):
        return "any"
    return "|".join(field.get("enum", [])) or str({"array": "list"}.get(field["type"], field["type"]))


def values(text: str) -> list[Value]:
    """The values of the chart in the order of the file. A map is one value if none of its entries has a comment."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 - for the type checker: the chart's file is a map
    return list(_values(root, text.splitlines(), ""))


def _values(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        comment = _comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and not comment:
            yield from _values(value, lines, f"{path}.")
        else:
            yield Value(path, yaml.safe_load(yaml.serialize(value)), comment)


def _comment_above(lines: list[str], line: int) -> str:
    """The comment lines directly above a line, joined; a blank line ends them."""
    found: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found)


def values_table(rows: list[Value]) -> str:
    lines = [_row([f"`{row.path}`", _code(row.default), row.description]) for row in rows]
    return _table("value", "default", "what it is", rows=lines)


def _config_map(lua: str) -> str:
    """The entry for Argo CD's own ConfigMap, as a snippet to paste."""
    body = "".join(f"    {line}\n" if line else "\n" for line in lua.splitlines())
    return f"```yaml\ndata:\n  resource.customizations.health.moorage.dev_ModelDeployment: |\n{body}```\n"


def _code(value: object) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{text}`"


def _table(*titles: str, rows: list[str]) -> str:
    return "\n".join([_row(list(titles)), "|---" * len(titles) + "|", *rows, ""])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
