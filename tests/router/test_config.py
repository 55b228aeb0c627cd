"""The text for HAProxy: what changes its structure, what is quoted, and that HAProxy itself takes it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_operator.router import config, pools, split, table, target
from moorage_operator.router.endpoints import Address, Endpoints
from moorage_operator.router.files import Files
from moorage_operator.router.settings import Layout
from router_world import a_canary, a_model

LAYOUT = Layout(Path("/run/router"))
PODS: Endpoints = {
    ("fraud-v1", "http"): frozenset({Address("10.0.0.1", 8080), Address("fd00::1", 8080)}),
    ("fraud-v1", "grpc"): frozenset({Address("10.0.0.1", 8081)}),
    ("fraud-v2", "http"): frozenset({Address("10.0.0.2", 8080)}),
}
ARM = {"name": "challenger", "revision": "fraud-v3", "weight": 1000}


def a_table(**fields: Any) -> table.Table:
    return table.parse(json.dumps({"models": {"fraud": a_model(10001, **fields)}}))


def a_target(found: table.Table, endpoints: Endpoints = PODS, layout: Layout = LAYOUT) -> target.Target:
    return target.make(target.Source(found, "1"), endpoints, layout)


BASE = a_table(canary=a_canary(100), arms=[ARM], salt="s")


@pytest.mark.parametrize(
    "changed",
    [
        a_table(canary=a_canary(200), arms=[ARM], salt="s"),
        a_table(canary=a_canary(100, revision="fraud-v9", salt="other"), arms=[ARM], salt="s"),
        a_table(arms=[ARM], salt="s"),
        a_table(canary=a_canary(100), arms=[ARM | {"weight": 5}], salt="t"),
        a_table(stable="fraud-v2", arms=[ARM], salt="s", shadow={"revision": "fraud-v2", "percent": 5}),
    ],
    ids=["weight", "revision and salt", "no canary", "an arm's weight", "promotion and shadow"],
)
def test_what_a_rollout_changes_needs_no_reload(changed: table.Table) -> None:
    assert config.structure(changed, LAYOUT) == config.structure(BASE, LAYOUT)
    assert config.render_map(changed) != config.render_map(BASE)


@pytest.mark.parametrize(
    "changed",
    [
        a_table(canary=a_canary(100)),
        a_table(arms=[ARM | {"name": "other"}], salt="s"),
        a_table(arms=[ARM], salt="s", stickiness={"cookie": "x-user-id"}),
        a_table(arms=[ARM], salt="s", timeoutSeconds=6),
        a_table(arms=[ARM | {"match": {"header": "a", "value": "b"}}], salt="s"),
        table.Table(),
    ],
    ids=["an arm less", "another arm", "a cookie", "the timeout", "a match", "no model"],
)
def test_what_is_rare_needs_one(changed: table.Table) -> None:
    assert config.structure(changed, LAYOUT) != config.structure(BASE, LAYOUT)


def test_servers_are_in_the_text_and_not_in_the_structure() -> None:
    with_pods, without = a_target(BASE), a_target(BASE, {})

    assert with_pods.structure == without.structure
    assert f"description {with_pods.structure}\n" in with_pods.files.config
    assert "    server fd00::1:8080 [fd00::1]:8080 check" in with_pods.files.config
    assert "    server 10.0.0.1:8081 10.0.0.1:8081 check" in with_pods.files.config
    assert "    server " not in without.files.config


def test_each_role_has_a_backend_for_each_protocol_and_stable_comes_first() -> None:
    model = a_table(arms=[ARM], salt="s", matches=[{"name": "t", "arm": "canary", "header": "a", "value": "b"}]).models[
        "fraud"
    ]

    assert list(pools.roles(model)) == ["stable", "fallback", "canary", "challenger", "canary-match"]


shares = st.integers(0, 3000)
salts = st.text("abcXYZ019", min_size=1, max_size=64)


@given(weights=st.lists(shares, max_size=3), canary=st.none() | st.integers(0, 10_000), salt=salts, other=salts)
def test_a_row_says_what_went_into_it(weights: list[int], canary: int | None, salt: str, other: str) -> None:
    arms = [ARM | {"name": f"a{index}", "weight": weight} for index, weight in enumerate(weights)]
    fields: dict[str, Any] = {"arms": arms, "salt": salt}
    if canary is not None:
        fields["canary"] = a_canary(canary, salt=other)
    model = a_table(**fields).models["fraud"]

    row = split.decode(split.encode(model))

    assert (row.stable, row.arms) == ("fraud-v1", tuple(split.Share("fraud-v3", weight) for weight in weights))
    assert row.canary == (None if canary is None else split.Share("fraud-v2", canary))
    assert canary is None or row.canary_salt == other


@pytest.mark.parametrize("text", ["", "a:b", "s:-:0:0:-:v1:-:100", "s:-:0:0:-:v1:v2:1:2:3"])
def test_a_row_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"no row|invalid literal"):
        split.decode(text)


def check(files: Files, layout: Layout) -> str:
    layout.map_file.write_text(files.splits)
    layout.config_file.write_text(files.config)
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(layout.config_file)], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stderr if done.returncode or "WARNING" in done.stderr else ""


@settings(max_examples=30, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60))
def test_haproxy_takes_any_value_that_the_table_takes(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    layout = dataclasses.replace(LAYOUT, folder=tmp_path_factory.mktemp("router"))
    found = a_table(
        matches=[{"name": "t", "arm": "canary", "header": "x-group", "value": value}],
        arms=[ARM | {"match": {"cookie": "group", "value": value}}],
        salt="s",
        stickiness={"cookie": "uid"},
    )

    assert check(a_target(found, PODS, layout).files, layout) == ""


@pytest.mark.parametrize("bind", ["*", "::", "127.0.0.1"])
def test_haproxy_takes_an_empty_table_and_each_way_to_listen(bind: str, tmp_path: Path) -> None:
    layout = dataclasses.replace(LAYOUT, folder=tmp_path, bind=bind)

    assert check(a_target(table.Table(), {}, layout).files, layout) == ""


def test_the_names_of_backends_tell_models_and_arms_apart() -> None:
    found = {
        pools.Backend(model, role, protocol).name
        for model in ("a", "a-b")
        for role in ("b", "b-c", "c")
        for protocol in ("http", "grpc")
    }

    assert len(found) == 12
