"""`router.json`: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_operator import errors
from moorage_operator.router import table
from router_world import a_canary, a_model

FULL = {
    "port": 10001,
    "stickiness": {"header": "x-user-id"},
    "stable": "fraud-v7-1a2b3c4d",
    "canary": {"revision": "fraud-v8-99aa77ee", "weight": 500, "salt": "a1b2c3d4"},
    "matches": [{"name": "testers", "arm": "canary", "header": "x-group", "value": "beta"}],
    "arms": [
        {
            "name": "challenger",
            "revision": "fraud-v9-01020304",
            "weight": 1000,
            "match": {"header": "x-group", "value": "gamma"},
        }
    ],
    "salt": "f00dcafe",
    "shadow": {"revision": "fraud-v8-99aa77ee", "percent": 0.25},
    "timeoutSeconds": 30,
}


def parse(**models: Any) -> table.Table:
    return table.parse(json.dumps({"models": models}), taken_ports=frozenset({8404, 8405}))


def an_arm(name: str, weight: int = 100) -> dict[str, Any]:
    return {"name": name, "revision": "fraud-v3", "weight": weight}


def test_a_full_document_is_read() -> None:
    model = parse(fraud=FULL).models["fraud"]

    assert model.canary == table.Canary(revision="fraud-v8-99aa77ee", weight=500, salt="a1b2c3d4")
    assert model.shadow
    assert model.shadow.weight == 25
    assert [(arm, condition.value) for arm, condition in model.conditions()] == [
        ("canary", "beta"),
        ("challenger", "gamma"),
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"port": 80}, "`int` >= 1024 - at `$.models[...].port`"),
        ({"port": 8404}, "port 8404 is the router's own"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"stable": "../etc"}, "stable"),
        ({"stable": "fraud-v1\n"}, "stable"),
        ({"timeoutSeconds": 0}, "timeoutSeconds"),
        ({"canary": a_canary(10_001)}, "weight"),
        ({"canary": a_canary(1, salt="a:b")}, "salt"),
        ({"stickiness": {}}, "a header or a cookie"),
        ({"stickiness": {"header": "a", "cookie": "b"}}, "a header or a cookie"),
        ({"stickiness": {"header": "a b"}}, "header"),
        ({"stickiness": {"header": "a),lower("}}, "header"),
        ({"stickiness": {"header": "X-Moorage-Arm"}}, "x-moorage-arm is the router's own"),
        ({"matches": [{"name": "t", "arm": "nobody", "header": "a", "value": "b"}]}, "the arm nobody, which is none"),
        ({"matches": [{"name": "t", "arm": "canary", "header": "a", "value": "b\nc"}]}, "value"),
        ({"matches": [{"name": "t", "arm": "canary", "header": "a", "value": ""}]}, "value"),
        ({"arms": [an_arm("a", 6000), an_arm("b", 6000)], "salt": "s"}, "the arms take 12000 of 10000"),
        ({"arms": [an_arm("a"), an_arm("a")], "salt": "s"}, "there are two arms a"),
        ({"arms": [an_arm("stable")], "salt": "s"}, "reserved"),
        ({"arms": [an_arm("a-match")], "salt": "s"}, "reserved"),
        ({"arms": [an_arm("a")]}, "arms need a salt"),
        ({"shadow": {"revision": "fraud-v2", "percent": 101}}, "percent"),
    ],
)
def test_what_is_not_as_expected_is_refused_with_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.TableRefused) as caught:
        parse(fraud=a_model(10001) | fields)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_models_on_one_port_are_refused() -> None:
    with pytest.raises(errors.TableRefused, match="port 10001 has more than one model"):
        parse(fraud=a_model(10001), iris=a_model(10001))


@pytest.mark.parametrize("name", ["Fraud", "fraud:stable", "a b", "", "9a", "a" * 64])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(errors.TableRefused):
        parse(**{name: a_model(10001)})


@pytest.mark.parametrize("document", ["", "[]", "{", '{"models": 1}', '{"models": {"a": null}}'])
def test_a_document_that_is_none_is_refused(document: str) -> None:
    with pytest.raises(errors.TableRefused, match=r"router\.json"):
        table.parse(document)
