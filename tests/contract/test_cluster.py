"""What `ports.Cluster` promises, held against the real API server and against `FakeCluster` alike."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fake_cluster import FakeCluster
from fixtures_cluster import Api
from moorage_operator import errors
from moorage_operator.adapters import cluster
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Kind, Manifest, Ref
from moorage_operator.core.names import REPLICAS_MANAGER
from moorage_operator.ports import NO_VERSION, Change, Cluster, Selection

PAGE = 7
"""Small, so that a list of a few objects comes in pages."""


class World:
    """A cluster and a namespace of our own in it."""

    def __init__(self, client: Cluster, namespace: str, api: Api | None = None) -> None:
        self.client = client
        self.namespace = namespace
        self.api = api

    def config_map(self, name: str, data: dict[str, str] | None = None, **metadata: Any) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
            "data": data or {},
        }

    def deployment(self, name: str, **spec: Any) -> Manifest:
        container = {"name": "serve", "image": "moorage/none:1", "ports": [{"containerPort": 8080, "name": "http"}]}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    # Nothing may start: these tests are about objects.
                    "spec": {"containers": [container], "nodeSelector": {"moorage.dev/test": "no-such-node"}},
                },
                **spec,
            },
        }

    def service(self, name: str, **labels: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield World(FakeCluster(), "contract")
        return
    api: Api = request.getfixturevalue("api")
    async with cluster.connect(api.kubeconfig, page_size=PAGE) as client:
        yield World(client, request.getfixturevalue("namespace"), api)


def version_of(manifest: Manifest | None) -> str:
    assert manifest is not None
    return str(manifest["metadata"]["resourceVersion"])


def container_of(deployment: Manifest) -> dict[str, Any]:
    container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


async def test_get_of_nothing_is_none(world: World) -> None:
    assert await world.client.get(Ref(kinds.CONFIG_MAP, world.namespace, "absent")) is None


async def test_apply_creates_and_answers_the_stored_object(world: World) -> None:
    stored = await world.client.apply(world.config_map("created", {"a": "1"}))

    assert stored["metadata"]["uid"]
    assert stored == await world.client.get(kinds.ref_of(stored))


async def test_what_is_stored_comes_back_as_json_has_it(world: World) -> None:
    service = world.service("tuple")
    service["spec"]["ports"] = tuple(service["spec"]["ports"])

    assert isinstance((await world.client.apply(service))["spec"]["ports"], list)


async def test_applying_the_same_again_changes_nothing(world: World) -> None:
    manifest = world.service("idle", a="1")
    first = await world.client.apply(manifest)

    assert version_of(await world.client.apply(manifest)) == version_of(first)


async def test_applying_the_same_in_other_units_changes_nothing(world: World) -> None:
    manifest = world.deployment("idle", replicas=2)
    container_of(manifest)["resources"] = {"limits": {"cpu": "2000m", "memory": "1024Mi"}}
    first = await world.client.apply(manifest)
    container_of(manifest)["resources"] = {"limits": {"cpu": 2, "memory": "1Gi"}}
    second = await world.client.apply(manifest)

    # A real cluster's controllers write to a Deployment too: only what is ours can be compared.
    assert (second["spec"], second["metadata"]["generation"]) == (first["spec"], 1)


async def test_a_field_left_out_by_its_only_owner_goes_away(world: World) -> None:
    manifest = world.config_map("dropped", {"kept": "1", "dropped": "2"}, labels={"stay": "1", "go": "2"})
    await world.client.apply(manifest)

    del manifest["data"]["dropped"], manifest["metadata"]["labels"]["go"]
    stored = await world.client.apply(manifest)

    assert (stored["data"], stored["metadata"]["labels"]) == ({"kept": "1"}, {"stay": "1"})


async def test_an_empty_map_left_behind_is_no_field(world: World) -> None:
    await world.client.apply(world.config_map("emptied", {"a": "1"}))
    manifest = world.config_map("emptied")
    del manifest["data"]

    assert "data" not in await world.client.apply(manifest)


async def test_fields_of_others_stay_and_show_their_owner(world: World) -> None:
    await world.client.apply(world.config_map("shared", {"ours": "1"}))
    await world.client.apply(world.config_map("shared", {"theirs": "2"}), manager="someone")

    stored = await world.client.apply(world.config_map("shared", {"ours": "3"}))

    assert stored["data"] == {"ours": "3", "theirs": "2"}
    owned = {entry["manager"]: entry["fieldsV1"] for entry in stored["metadata"]["managedFields"]}
    assert owned == {"moorage": {"f:data": {"f:ours": {}}}, "someone": {"f:data": {"f:theirs": {}}}}


async def test_force_takes_a_field_back(world: World) -> None:
    await world.client.apply(world.config_map("fought", {"a": "ours"}))
    await world.client.apply(world.config_map("fought", {"a": "theirs"}), manager="someone")

    stored = await world.client.apply(world.config_map("fought", {"a": "ours"}))

    assert stored["data"] == {"a": "ours"}
    assert [entry["manager"] for entry in stored["metadata"]["managedFields"]] == ["moorage"]


async def test_a_field_that_two_set_alike_stays_until_both_drop_it(world: World) -> None:
    for manager in ("moorage", "someone"):
        await world.client.apply(world.config_map("twice", {"a": "1"}), manager=manager)

    first = await world.client.apply(world.config_map("twice"))
    second = await world.client.apply(world.config_map("twice"), manager="someone")

    assert first["data"] == {"a": "1"}
    assert not second.get("data")


async def test_containers_ports_and_environment_merge_by_their_keys(world: World) -> None:
    manifest = world.deployment("merged")
    await world.client.apply(manifest)
    theirs = copy.deepcopy(manifest)
    container_of(theirs).clear()
    container_of(theirs).update(name="serve", env=[{"name": "THEIRS", "value": "1"}])
    await world.client.apply(theirs, manager="someone")

    container_of(manifest)["env"] = [{"name": "OURS", "value": "2"}]
    stored = await world.client.apply(manifest)

    assert {item["name"] for item in container_of(stored)["env"]} == {"OURS", "THEIRS"}
    assert [port["containerPort"] for port in container_of(stored)["ports"]] == [8080]


async def test_a_sidecar_that_was_patched_in_shows_as_foreign_and_can_be_removed(world: World) -> None:
    stored = await world.client.apply(world.deployment("injected"))
    path = "/spec/template/spec/containers"
    patched = await world.client.patch(
        kinds.ref_of(stored), [{"op": "add", "path": f"{path}/-", "value": {"name": "sidecar", "image": "x:1"}}]
    )
    entries = patched["metadata"]["managedFields"]
    foreign = [entry for entry in entries if (entry["manager"], entry["operation"]) == ("moorage", "Update")]

    assert 'k:{"name":"sidecar"}' in foreign[0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]

    put_back = {"op": "replace", "path": "/spec/template", "value": stored["spec"]["template"]}
    with pytest.raises(errors.Conflict):
        await world.client.patch(kinds.ref_of(stored), [put_back | {"op": "test"}, put_back])
    seen = put_back | {"op": "test", "value": patched["spec"]["template"]}
    healed = await world.client.patch(kinds.ref_of(stored), [seen, put_back])
    assert [item["name"] for item in healed["spec"]["template"]["spec"]["containers"]] == ["serve"]


async def test_quantities_are_stored_in_their_canonical_form(world: World) -> None:
    manifest = world.deployment("quantities")
    container_of(manifest)["resources"] = {
        "limits": {"cpu": "2000m", "memory": "1024Mi"},
        "requests": {"cpu": 0.5, "memory": "0.5Gi"},
    }

    stored = await world.client.apply(manifest)

    assert container_of(stored)["resources"] == {
        "limits": {"cpu": "2", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "512Mi"},
    }


async def test_defaults_are_filled(world: World) -> None:
    deployment = await world.client.apply(world.deployment("defaults"))
    service = await world.client.apply(world.service("defaults"))

    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert container_of(deployment)["terminationMessagePath"] == "/dev/termination-log"
    assert container_of(deployment)["ports"][0]["protocol"] == "TCP"
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["clusterIP"]


async def test_generation_counts_changes_of_the_spec_only(world: World) -> None:
    manifest = world.deployment("generation", replicas=1)
    first = await world.client.apply(manifest)
    manifest["metadata"]["labels"] = {"new": "label"}
    labelled = await world.client.apply(manifest)
    manifest["spec"]["replicas"] = 2
    scaled = await world.client.apply(manifest)

    assert [item["metadata"]["generation"] for item in (first, labelled, scaled)] == [1, 1, 2]


async def test_status_is_written_only_through_its_subresource(world: World) -> None:
    manifest = world.service("status")
    condition = {"type": "Tested", "status": "True", "reason": "Why", "message": "", "lastTransitionTime": None}
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    ignored = await world.client.apply({**manifest, "status": {"conditions": [condition]}})
    manifest["spec"]["ports"][0]["port"] = 81
    stored = await world.client.apply({**manifest, "status": {"conditions": [condition]}}, subresource="status")

    assert "conditions" not in ignored.get("status", {})
    assert (stored["status"]["conditions"], stored["spec"]["ports"][0]["port"]) == ([condition], 80)


async def test_an_apply_for_another_uid_is_a_conflict(world: World) -> None:
    await world.client.apply(world.config_map("other", {"a": "1"}))

    with pytest.raises(errors.Conflict):
        await world.client.apply(world.config_map("other", {"a": "2"}, uid="b8e5a1f2-0000-4000-8000-000000000000"))


async def test_an_apply_for_an_object_that_is_gone_is_a_conflict(world: World) -> None:
    with pytest.raises(errors.Conflict):
        await world.client.apply(world.config_map("gone", uid="b8e5a1f2-0000-4000-8000-000000000000"))


CHILD_SPECS: dict[Kind, dict[str, Any]] = {
    kinds.CONFIG_MAP: {"data": {"a": "1"}},
    kinds.CONTROLLER_REVISION: {"revision": 1, "data": {"a": "1"}},
    kinds.SERVICE: {"spec": {"ports": [{"port": 80}]}},
    kinds.DISRUPTION_BUDGET: {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}},
    kinds.AUTOSCALER: {
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}
    },
}


@pytest.mark.parametrize("kind", kinds.CHILDREN, ids=lambda kind: kind.name)
async def test_an_apply_with_no_version_makes_a_new_object_and_leaves_one_that_is_there(
    world: World, kind: Kind
) -> None:
    metadata = {"name": "new", "namespace": world.namespace}
    manifest = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata} | CHILD_SPECS.get(kind, {})
    manifest = world.deployment("new") if kind is kinds.DEPLOYMENT else manifest
    new = manifest | {"metadata": metadata | {"resourceVersion": NO_VERSION}}

    stored = await world.client.apply(new)
    with pytest.raises(errors.Conflict):
        await world.client.apply(new | {"metadata": new["metadata"] | {"labels": {"a": "1"}}}, manager="someone")
    again = await world.client.apply(manifest | {"metadata": metadata | {"labels": {"b": "2"}}})

    ours = [entry for entry in again["metadata"]["managedFields"] if entry.get("manager") == "moorage"]
    assert (again["metadata"]["uid"], again["metadata"]["labels"]) == (stored["metadata"]["uid"], {"b": "2"})
    assert [entry["operation"] for entry in ours] == ["Apply"]


async def test_an_object_that_cannot_be_stored_is_invalid(world: World) -> None:
    half = world.deployment("half")
    del half["spec"]["template"]

    with pytest.raises(errors.Invalid, match="Required value"):
        await world.client.apply(half)


async def test_an_immutable_field_is_invalid(world: World) -> None:
    manifest = world.deployment("immutable")
    await world.client.apply(manifest)
    manifest["spec"]["selector"] = {"matchLabels": {"app": "immutable", "more": "1"}}
    manifest["spec"]["template"]["metadata"]["labels"]["more"] = "1"

    with pytest.raises(errors.Invalid, match="immutable"):
        await world.client.apply(manifest)


async def test_create_takes_a_name_once(world: World) -> None:
    await world.client.create(world.config_map("name", {"a": "1"}))

    with pytest.raises(errors.AlreadyExists):
        await world.client.create(world.config_map("name", {"a": "2"}))


async def test_a_patch_is_all_or_nothing(world: World) -> None:
    stored = await world.client.apply(world.config_map("patched", {"a": "1"}))
    ref = kinds.ref_of(stored)
    add = {"op": "add", "path": "/data/b", "value": "2"}

    with pytest.raises(errors.Conflict):
        await world.client.patch(ref, [add, {"op": "test", "path": "/data/a", "value": "other"}])
    assert await world.client.get(ref) == stored

    patched = await world.client.patch(ref, [add, {"op": "test", "path": "/data/a", "value": "1"}])
    assert patched["data"] == {"a": "1", "b": "2"}


async def test_a_patch_against_a_stale_resource_version_is_a_conflict(world: World) -> None:
    stale = await world.client.apply(world.config_map("stale", {"a": "1"}))
    await world.client.apply(world.config_map("stale", {"a": "2"}))
    same = {"op": "test", "path": "/metadata/resourceVersion", "value": version_of(stale)}

    with pytest.raises(errors.Conflict):
        await world.client.patch(kinds.ref_of(stale), [same, {"op": "replace", "path": "/data/a", "value": "3"}])


@pytest.mark.parametrize("operation", ["remove", "test"])
async def test_a_patch_of_a_path_that_is_gone_is_a_conflict(world: World, operation: str) -> None:
    stored = await world.client.apply(world.config_map(f"path-{operation}", {"a": "1"}))

    with pytest.raises(errors.Conflict):
        await world.client.patch(kinds.ref_of(stored), [{"op": operation, "path": "/data/gone", "value": "1"}])


async def test_a_patch_of_nothing_is_invalid(world: World) -> None:
    with pytest.raises(errors.Invalid):
        await world.client.patch(Ref(kinds.CONFIG_MAP, world.namespace, "absent"), [])


async def test_delete_needs_the_object_that_was_seen(world: World) -> None:
    seen = await world.client.apply(world.config_map("deleted", {"a": "1"}))
    changed = await world.client.apply(world.config_map("deleted", {"a": "2"}))
    ref, uid = kinds.ref_of(seen), seen["metadata"]["uid"]

    with pytest.raises(errors.Conflict):
        await world.client.delete(ref, uid=uid, resource_version=version_of(seen))
    with pytest.raises(errors.Conflict):
        await world.client.delete(ref, uid="another", resource_version=version_of(changed))
    await world.client.delete(ref, uid=uid, resource_version=version_of(changed))
    assert await world.client.get(ref) is None


async def test_delete_without_a_version_needs_the_same_object_only(world: World) -> None:
    seen = await world.client.apply(world.config_map("deleted", {"a": "1"}))
    await world.client.apply(world.config_map("deleted", {"a": "2"}))
    ref = kinds.ref_of(seen)
    with pytest.raises(errors.Conflict):
        await world.client.delete(ref, uid="another", resource_version="")
    await world.client.delete(ref, uid=seen["metadata"]["uid"], resource_version="")
    assert await world.client.get(ref) is None


async def test_delete_of_what_is_gone_is_success(world: World) -> None:
    ref = Ref(kinds.CONFIG_MAP, world.namespace, "absent")
    await world.client.delete(ref, uid="any", resource_version="1")
    assert await world.client.get(ref) is None


async def test_an_object_made_again_has_another_uid(world: World) -> None:
    first = await world.client.apply(world.config_map("again"))
    await world.client.delete(kinds.ref_of(first), uid=first["metadata"]["uid"], resource_version=version_of(first))
    second = await world.client.apply(world.config_map("again"))

    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_replicas_change_hands_without_a_reset_to_one(world: World) -> None:
    ours = world.deployment("handover")
    fixed = copy.deepcopy(ours)
    fixed["spec"]["replicas"] = 3
    await world.client.apply(fixed)

    handover = {key: fixed[key] for key in ("apiVersion", "kind", "metadata")} | {"spec": {"replicas": 3}}
    counts = [
        (await world.client.apply(manifest, manager=manager))["spec"]["replicas"]
        for manifest, manager in [(handover, REPLICAS_MANAGER), (ours, "moorage"), (fixed, "moorage")]
    ]

    assert counts == [3, 3, 3]


async def test_replicas_dropped_without_a_handover_fall_to_one(world: World) -> None:
    await world.client.apply(world.deployment("dropped-replicas", replicas=3))

    assert (await world.client.apply(world.deployment("dropped-replicas")))["spec"]["replicas"] == 1


async def test_list_selects_by_kind_namespace_and_labels(world: World) -> None:
    label = {"listed-in": world.namespace}
    await world.client.apply(world.config_map("listed-a", labels=label))
    await world.client.apply(world.config_map("listed-b", labels=label | {"more": "1"}))
    await world.client.apply(world.config_map("listed-c"))
    await world.client.apply(world.service("listed-d", **label))

    found = [item async for item in world.client.list(kinds.CONFIG_MAP, namespace=world.namespace, labels=label)]
    more = [item async for item in world.client.list(kinds.CONFIG_MAP, labels=label | {"more": "1"})]

    assert [item["metadata"]["name"] for item in found] == ["listed-a", "listed-b"]
    assert [kinds.ref_of(item) for item in more] == [Ref(kinds.CONFIG_MAP, world.namespace, "listed-b")]
    assert [item async for item in world.client.list(kinds.CONFIG_MAP, namespace="nowhere")] == []


async def test_list_reads_every_page(world: World) -> None:
    label = {"paged-in": world.namespace}
    names = [f"paged-{number:02}" for number in range(2 * PAGE + 1)]
    for name in names:
        await world.client.apply(world.config_map(name, labels=label))

    found = [item async for item in world.client.list(kinds.CONFIG_MAP, namespace=world.namespace, labels=label)]

    assert [item["metadata"]["name"] for item in found] == names
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}


async def changes(world: World, selection: Selection, since: str, number: int) -> list[tuple[str, str]]:
    """The next ones, as (happening, name)."""
    found: list[Change] = []
    async with (
        asyncio.timeout(30),
        contextlib.aclosing(cast("AsyncGenerator[Change]", world.client.follow(selection, since=since))) as follow,
    ):
        async for change in follow:
            found += [change] if change.happening != "BOOKMARK" else []
            if len(found) == number:
                break
    return [(change.happening, change.manifest["metadata"]["name"]) for change in found]


@pytest.mark.parametrize("scope", ["one", "all"])
async def test_a_snapshot_is_followed_by_each_change_after_it(world: World, scope: str) -> None:
    label = {"followed-in": f"{world.namespace}-{scope}"}
    selection = Selection(kinds.CONFIG_MAP, world.namespace if scope == "one" else "", labels=label)
    await world.client.apply(world.config_map("followed-a", labels=label))
    snapshot = await world.client.snapshot(selection)
    added = await world.client.apply(world.config_map("followed-b", labels=label))
    await world.client.apply(world.config_map("followed-other"))
    changed = await world.client.apply(world.config_map("followed-b", {"a": "1"}, labels=label))
    await world.client.delete(
        kinds.ref_of(changed), uid=changed["metadata"]["uid"], resource_version=version_of(changed)
    )

    assert [kinds.ref_of(item).name for item in snapshot.objects] == ["followed-a"]
    assert await changes(world, selection, snapshot.resource_version, 3) == [
        ("ADDED", "followed-b"), ("MODIFIED", "followed-b"), ("DELETED", "followed-b"),
    ]  # fmt: skip
    assert await changes(world, selection, version_of(added), 1) == [("MODIFIED", "followed-b")]


async def test_one_object_is_followed_by_its_name(world: World) -> None:
    selection = Selection(kinds.CONFIG_MAP, world.namespace, name="single")
    nothing = await world.client.snapshot(selection)
    await world.client.apply(world.config_map("single-not"))
    await world.client.apply(world.config_map("single"))
    something = await world.client.snapshot(selection)

    assert (nothing.objects, len(something.objects)) == ((), 1)
    assert await changes(world, selection, nothing.resource_version, 1) == [("ADDED", "single")]


@pytest.fixture
def ending(world: World) -> Iterator[World]:
    """A namespace that is being deleted, and does not go: the ConfigMap "held" in it has a finalizer."""
    if isinstance(world.client, FakeCluster):
        other = World(world.client, "ending")
        world.client.add(other.config_map("held"))
        world.client.end_namespace(other.namespace)
        yield other
        return
    assert world.api
    other = World(world.client, f"{world.namespace}-ending")
    held = other.config_map("held", finalizers=["moorage.dev/test"])
    world.api.kubectl("create", "namespace", other.namespace)
    world.api.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(held))
    world.api.kubectl("delete", "namespace", other.namespace, "--wait=false")
    yield other
    unhold = '{"metadata": {"finalizers": null}}'
    world.api.kubectl("-n", other.namespace, "patch", "configmap", "held", "--type=merge", "--patch", unhold)


async def test_a_namespace_that_is_being_deleted_takes_nothing_new(ending: World) -> None:
    for write in (ending.client.apply, ending.client.create):
        with pytest.raises(errors.NamespaceTerminating) as caught:
            await write(ending.config_map("late"))
        assert caught.value.status == 403

    assert (await ending.client.apply(ending.config_map("held", {"a": "1"})))["data"] == {"a": "1"}


@pytest.mark.cluster
async def test_a_user_without_rights_is_forbidden(api: Api, namespace: str, tmp_path: Path) -> None:
    api.kubectl("-n", namespace, "create", "serviceaccount", "nobody")
    token = api.kubectl("-n", namespace, "create", "token", "nobody").strip()
    world = World(FakeCluster(), namespace)

    async with cluster.connect(api.kubeconfig_of(token, tmp_path / "nobody")) as client:
        with pytest.raises(errors.Forbidden, match="cannot patch resource") as caught:
            await client.apply(world.config_map("forbidden"))

    assert caught.value.status == 403
    assert token not in str(caught.value)


@pytest.mark.cluster
async def test_a_user_that_nobody_knows_is_forbidden(api: Api, tmp_path: Path) -> None:
    async with cluster.connect(api.kubeconfig_of("made-up", tmp_path / "unknown")) as client:
        with pytest.raises(errors.Forbidden) as caught:
            await anext(client.list(kinds.CONFIG_MAP))

    assert caught.value.status == 401
    assert "made-up" not in str(caught.value)
