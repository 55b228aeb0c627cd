"""The CRD as a text: what it promises is what the parser reads, and every field is described, bounded and explained.

What the API server makes of it is tested in test_crd_served.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from moorage_operator.core.spec import Spec
from moorage_operator.core.state import State

Schema = dict[str, Any]

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds/modeldeployments.moorage.dev.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]

KEYWORDS = {
    "type", "description", "properties", "required", "default", "enum", "format", "pattern", "minimum", "maximum", "items",
    "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "additionalProperties", "anyOf",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip
PASSED_THROUGH = {"spec.pod.affinity", "spec.autoscaling.metrics[]"}
"""The only places where the API server stores what this schema does not know."""


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema, with its path: fields by name, items of lists as [], entries of maps as {}."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in schema:
            yield from walk(schema[keyword], path + mark)


IN_SPEC = dict(walk(SPEC, "spec"))
EVERYWHERE = IN_SPEC | dict(walk(ROOT["properties"]["status"], "status"))


@pytest.mark.parametrize("path", EVERYWHERE)
def test_each_keyword_is_one_of_json_schema(path: str) -> None:
    assert EVERYWHERE[path].keys() <= KEYWORDS


@pytest.mark.parametrize("path", [path for path in EVERYWHERE if not path.endswith(("[]", "{}"))])
def test_each_field_has_a_description_that_ends_like_a_sentence(path: str) -> None:
    assert EVERYWHERE[path].get("description", "").endswith((".", ")"))


@pytest.mark.parametrize("path", IN_SPEC)
def test_each_value_is_bounded(path: str) -> None:
    schema = IN_SPEC[path]
    bound = {"string": "maxLength", "array": "maxItems"}.get(schema.get("type", ""))
    if schema.get("format") == "int32":  # int64 is the seconds of a toleration, of which Kubernetes takes any
        bound = "minimum"
    if "additionalProperties" in schema:
        bound = "maxProperties"
    closed = "enum" in schema or schema.get("pattern", "").endswith("{0,9}$")
    assert bound is None or bound in schema or closed


@pytest.mark.parametrize("path", [path for path, schema in IN_SPEC.items() if schema.get("type") == "number"])
def test_bounds_of_numbers_are_whole(path: str) -> None:
    """A number that is written without a point is held by the API server to bounds that are cut off at theirs: rules can be exact."""
    schema = IN_SPEC[path]

    assert all(float(schema.get(bound, 0)).is_integer() for bound in ("minimum", "maximum"))


def test_unknown_fields_are_kept_only_where_a_kubernetes_type_passes_through() -> None:
    keeping = {path for path, schema in EVERYWHERE.items() if "x-kubernetes-preserve-unknown-fields" in schema}

    assert keeping == PASSED_THROUGH


def test_each_rule_has_a_message_for_people() -> None:
    rules = [rule for _, schema in walk(ROOT, "") for rule in schema.get("x-kubernetes-validations", [])]

    assert len(rules) > 10
    assert all(len(rule["message"].split()) >= 5 and "self" not in rule["message"].split() for rule in rules)


def test_messages_are_different() -> None:
    messages = [rule["message"] for rule in SPEC["x-kubernetes-validations"]]

    assert len(set(messages)) == len(messages)


def test_a_status_that_nobody_wrote_is_of_no_generation() -> None:
    assert ROOT["properties"]["status"]["default"] == {"observedGeneration": -1}


# The parser.


def structs(node: inspect.Type, path: str) -> Iterator[tuple[str, inspect.StructType]]:
    """Every struct of the parser, with the path that its schema must have."""
    node = _without_none(node)
    if isinstance(node, inspect.StructType):
        yield path, node
        for field in node.fields:
            yield from structs(field.type, f"{path}.{field.encode_name}")
    if isinstance(node, inspect.VarTupleType):
        yield from structs(node.item_type, f"{path}[]")
    if isinstance(node, inspect.DictType):
        yield from structs(node.value_type, f"{path}{{}}")


def _without_none(node: inspect.Type) -> inspect.Type:
    if not isinstance(node, inspect.UnionType):
        return node
    types = [item for item in node.types if not isinstance(item, inspect.NoneType)]
    return types[0] if len(types) == 1 else inspect.UnionType(tuple(types))


STRUCTS = dict(structs(inspect.type_info(Spec), "spec"))
FIELDS = {f"{path}.{field.encode_name}": field for path, struct in STRUCTS.items() for field in struct.fields}


@pytest.mark.parametrize("path", STRUCTS)
def test_the_parser_reads_just_the_fields_of_the_schema(path: str) -> None:
    assert {field.encode_name for field in STRUCTS[path].fields} == set(IN_SPEC[path]["properties"])


@pytest.mark.parametrize("path", [path for path, schema in IN_SPEC.items() if schema.get("properties")])
def test_each_object_of_the_schema_is_read_by_a_struct_or_passed_on_whole(path: str) -> None:
    inside_a_map = any(path.startswith(whole) for whole in _passed_on())

    assert path in STRUCTS or inside_a_map


def _passed_on() -> list[str]:
    """Fields that the parser takes as they are: maps, and lists of maps."""

    def is_a_map(node: inspect.Type) -> bool:
        node = _without_none(node)
        return isinstance(node, inspect.DictType) or (
            isinstance(node, inspect.VarTupleType) and is_a_map(node.item_type)
        )

    return [path for path, field in FIELDS.items() if is_a_map(field.type)]


@pytest.mark.parametrize("path", FIELDS)
def test_types_and_choices_are_those_of_the_schema(path: str) -> None:
    schema = IN_SPEC[path]
    node = _without_none(FIELDS[path].type)

    if schema.get("x-kubernetes-int-or-string"):
        assert isinstance(node, inspect.UnionType)
        assert {_json_type(item) for item in node.types} == {"string", "integer"}
        return
    assert _json_type(node) == schema["type"]
    if isinstance(node, inspect.LiteralType):
        assert set(node.values) == set(schema["enum"])
    else:
        assert "enum" not in schema


def _json_type(node: inspect.Type) -> str:
    names: dict[type[inspect.Type], str] = {
        inspect.StrType: "string",
        inspect.LiteralType: "string",
        inspect.IntType: "integer",
        inspect.FloatType: "number",
        inspect.BoolType: "boolean",
        inspect.StructType: "object",
        inspect.DictType: "object",
        inspect.VarTupleType: "array",
    }
    return names[type(node)]


@pytest.mark.parametrize("path", FIELDS)
def test_defaults_are_those_of_the_schema(path: str) -> None:
    field, schema = FIELDS[path], IN_SPEC[path]
    parent, _, name = path.rpartition(".")

    assert field.required == (name in IN_SPEC[parent].get("required", []))
    if field.required:
        return
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if "default" not in schema:
        assert not default
    elif not isinstance(default, msgspec.Struct):
        assert default == _read(schema["default"], default)
    else:
        assert schema["default"] == {}
        assert default == type(default)()


def _read(default: Any, like: Any) -> Any:
    """As the parser reads it."""
    if isinstance(default, list):
        return tuple(msgspec.convert(item, type(like[0])) for item in default)
    return default


# The status.


STORED = {path: struct for path, struct in structs(inspect.type_info(State), "status") if "status.position" not in path}
"""What the operator writes down to go on from, but for the position, whose parts the status has one by one."""


@pytest.mark.parametrize("kind", sorted({struct.cls for struct in STORED.values()}, key=str))
def test_what_is_stored_in_the_status_has_its_place_in_the_schema(kind: type) -> None:
    """The API server refuses a status with a field that it does not know, and the rollout would stand still.

    What one kind has may be in several places, and each of them need not have all of it: stable never scales down.
    """
    paths = [path for path, struct in STORED.items() if struct.cls is kind]
    fields = {field.encode_name for path in paths for field in STORED[path].fields} - {"position"}

    assert fields <= {name for path in paths for name in EVERYWHERE[path]["properties"]}
