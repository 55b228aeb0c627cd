"""Worlds in, worlds out: what one ModelDeployment makes of a cluster, pass by pass, without a cluster."""

from __future__ import annotations

import contextlib

import pytest

import world
from moorage_operator import errors
from moorage_operator.core import names
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CHILDREN,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    Manifest,
    Ref,
)
from moorage_operator.core.platform import Platform
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelRef
from world import World


@pytest.fixture
def served() -> World:
    """A world in which version 3 is champion; nothing has been applied yet."""
    made = World()
    made.move_alias("3")
    return made


async def test_a_new_model_deployment_is_served_at_its_address(served: World) -> None:
    served.apply(replicas=2)
    await served.settle()
    assert served.counts() == {"3": 2}
    assert served.traffic() == "3"
    assert served.condition("Ready") == ("True", "Promoted")
    assert served.status["phase"] == "Healthy"
    assert served.status["observedGeneration"] == 1
    assert served.status["url"] == "http://fraud.payments.svc"
    assert served.condition("Reconciling")[0] == served.condition("Stalled")[0] == "absent"


async def test_nothing_is_written_once_all_is_well(served: World) -> None:
    served.apply(replicas=2, resources={"limits": {"cpu": "2000m", "memory": "1024Mi"}})
    await served.settle()
    served.cluster.writes.clear()
    served.resync()
    await served.reconcile()
    served.restart()
    await served.reconcile()
    assert not served.cluster.writes


async def test_the_address_moves_only_when_all_new_pods_are_ready(served: World) -> None:
    served.apply(replicas=2)
    await served.settle()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 2, "4": 2}
    assert served.traffic() == "3"
    assert served.condition("Ready") == ("False", "Progressing")
    assert served.condition("Available") == ("True", "Serving")
    del served.fates["4"]
    await served.settle()
    assert served.traffic() == "4"
    assert served.status["stable"]["modelVersion"] == "4"


async def test_old_pods_stay_for_the_scale_down_delay_and_then_end(served: World) -> None:
    served.apply(replicas=2)
    await served.settle()
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 2, "4": 2}
    assert served.again_at == served.now.replace(second=30)
    await served.pass_time(31)
    assert served.counts() == {"3": 0, "4": 2}
    assert [item["metadata"]["name"] for item in served.all(SERVICE)] == ["fraud", served.revision("4")]


async def test_recreate_ends_the_old_pods_before_the_new_ones_start(served: World) -> None:
    served.apply(replicas=1, rollout={"strategy": "recreate"})
    await served.settle()
    served.move_alias("4")
    most = 0
    for _ in range(10):
        await served.reconcile()
        served.run_controllers()
        most = max(most, sum(served.counts().values()))
    assert most == 1
    assert served.traffic() == "4"
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_newer_version_replaces_the_one_on_its_way_at_once(served: World) -> None:
    served.apply()
    await served.settle()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    served.move_alias("5")
    await served.settle()
    assert served.counts() == {"3": 1, "4": 0, "5": 1}
    assert served.traffic() == "5"


async def test_going_back_to_the_stable_version_drops_the_one_on_its_way(served: World) -> None:
    served.apply()
    await served.settle()
    served.fates["4"] = world.failing("ModelLoadFailed")
    served.move_alias("4")
    await served.settle()
    assert served.condition("Stalled") == ("True", "ModelLoadFailed")
    served.move_alias("3")
    await served.settle()
    assert served.counts() == {"3": 1, "4": 0}
    assert served.condition("Ready") == ("True", "Promoted")
    assert "canary" not in served.status


async def test_old_revisions_are_kept_up_to_the_limit_and_then_gone(served: World) -> None:
    served.apply(revisionHistoryLimit=1)
    for version in ("3", "4", "5", "6"):
        served.move_alias(version)
        await served.settle()
        await served.pass_time(31)
    assert served.counts() == {"5": 0, "6": 1}
    assert {item["metadata"]["labels"][names.MODEL_VERSION] for item in served.of_models(CONFIG_MAP)} == {"5", "6"}


async def test_the_registry_going_away_changes_nothing_that_runs(served: World) -> None:
    served.apply()
    await served.settle()
    served.lose_registry()
    await served.settle()
    assert served.condition("ModelResolved") == ("Unknown", "RegistryUnreachable")
    assert served.condition("Ready") == ("True", "Promoted")
    served.restart()
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_an_alias_that_vanishes_keeps_the_model_serving_and_says_so(served: World) -> None:
    served.apply()
    await served.settle()
    served.registry[ModelRef("detector", alias="champion")] = Problem(Reason.ALIAS_NOT_FOUND, "no alias")
    await served.settle()
    assert served.counts() == {"3": 1}
    assert served.condition("Available") == ("True", "Serving")
    assert served.condition("Stalled") == ("True", "AliasNotFound")


async def test_a_foreign_service_of_the_same_name_is_left_alone(served: World) -> None:
    foreign: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "fraud", "namespace": "payments"},
        "spec": {"selector": {"app": "old"}, "ports": [{"port": 80}]},
    }
    served.cluster.add(foreign)
    served.apply()
    await served.settle()
    stored = next(item for item in served.all(SERVICE) if item["metadata"]["name"] == "fraud")
    assert stored["spec"]["selector"] == {"app": "old"}
    assert served.condition("TrafficProgrammed") == ("False", "NameConflict")
    assert served.condition("Ready") == ("False", "NameConflict")
    served.cluster.writes.clear()
    await served.reconcile()
    assert not served.cluster.writes
    served.cluster.remove(served.ref(SERVICE))
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_children_that_the_index_does_not_know_are_found_and_kept(served: World) -> None:
    served.apply()
    await served.settle()
    before = {item["metadata"]["uid"] for item in served.all(DEPLOYMENT)}
    children = [ref for kind in CHILDREN for ref in served.index.refs(kind)]
    for ref in children:
        served.index.remove(ref.kind, served.cluster._objects[ref])
    await served.reconcile()
    await served.reconcile()  # the address, once its port at the router is known
    assert {item["metadata"]["uid"] for item in served.all(DEPLOYMENT)} == before
    assert {ref for kind in CHILDREN for ref in served.index.refs(kind)} == set(children)


async def test_a_deployment_changed_by_hand_is_put_back(served: World) -> None:
    served.apply()
    await served.settle()
    name = served.revision("3")

    def vandalise(manifest: Manifest) -> None:
        manifest["spec"]["replicas"] = 7
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "mine"

    served.cluster.edit(served.ref(DEPLOYMENT, name), vandalise)
    await served.settle()
    assert served.counts() == {"3": 1}
    assert served.all(DEPLOYMENT)[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "moorage/runtime:1"
    assert "DriftRepaired" in served.events()


async def test_a_key_that_somebody_adds_to_the_selector_of_the_address_is_removed(served: World) -> None:
    served.apply()
    await served.settle()
    wanted = dict(served.all(SERVICE)[0]["spec"]["selector"])
    served.cluster.edit(served.ref(SERVICE), lambda manifest: manifest["spec"]["selector"].update(app="nobody"))
    await served.settle()
    assert served.all(SERVICE)[0]["spec"]["selector"] == wanted


@pytest.mark.parametrize("value", ["somebody", None])
@pytest.mark.parametrize("label", [names.MANAGED_BY, names.DEPLOYMENT, names.REVISION, names.APP_COMPONENT])
async def test_a_label_by_which_children_are_found_is_put_back(served: World, label: str, value: str | None) -> None:
    served.apply(replicas=2)
    await served.settle()
    for kind in CHILDREN:
        for item in served.all(kind):
            before = item["metadata"]["labels"]
            if label in before:
                served.relabel(served.ref(kind, item["metadata"]["name"]), label, value)
                with contextlib.suppress(errors.Conflict):  # and the queue tries again
                    await served.reconcile()
                await served.settle()
                (after,) = (
                    other for other in served.all(kind) if other["metadata"]["name"] == item["metadata"]["name"]
                )
                assert (after["metadata"]["uid"], after["metadata"]["labels"]) == (item["metadata"]["uid"], before)


async def test_what_has_neither_owner_nor_labels_any_more_is_nobodys(served: World) -> None:
    served.apply()
    await served.settle()

    def disown(manifest: Manifest) -> None:
        manifest["metadata"].pop("ownerReferences")
        manifest["metadata"]["labels"] = {}

    served.cluster.edit(served.ref(SERVICE), disown)
    served.resync()
    await served.settle()
    assert served.condition("TrafficProgrammed") == ("False", "NameConflict")


async def test_what_others_add_to_the_pod_template_is_removed_and_other_fields_of_theirs_stay(served: World) -> None:
    served.apply()
    await served.settle()

    def add(manifest: Manifest) -> None:
        _restart_by_kubectl(manifest)
        manifest["metadata"]["labels"]["team"] = "red"

    served.cluster.edit(served.ref(DEPLOYMENT, served.revision("3")), add)
    await served.settle()
    deployment = served.all(DEPLOYMENT)[0]
    assert not deployment["spec"]["template"]["metadata"].get("annotations")
    assert deployment["metadata"]["labels"]["team"] == "red"


async def test_one_pass_puts_back_a_template_and_the_replicas_of_an_autoscaler(served: World) -> None:
    served.apply(autoscaling={"minReplicas": 2, "maxReplicas": 4})
    await served.settle()

    def spoil(manifest: Manifest) -> None:
        _restart_by_kubectl(manifest)
        manifest["spec"]["replicas"] = 0

    served.cluster.edit(served.ref(DEPLOYMENT, served.revision("3")), spoil)
    await served.reconcile()
    spec = served.all(DEPLOYMENT)[0]["spec"]
    assert not spec["template"]["metadata"].get("annotations")
    assert spec["replicas"] == 2


async def test_a_deleted_child_comes_back(served: World) -> None:
    served.apply(replicas=2)
    await served.settle()
    before = served.cluster._objects.keys()
    names_before = {str(ref) for ref in before if ref.kind.name not in ("Pod", "Event")}
    for kind in (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET, CONFIG_MAP):
        for item in served.all(kind):
            served.cluster.remove(served.ref(kind, item["metadata"]["name"]))
    await served.settle()
    assert {str(ref) for ref in served.cluster._objects if ref.kind.name not in ("Pod", "Event")} == names_before
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_deleted_controller_revision_comes_back_and_restarts_no_pod(served: World) -> None:
    served.apply()
    await served.settle()
    name = served.revision("3")
    template = served.all(DEPLOYMENT)[0]["spec"]["template"]
    served.cluster.remove(served.ref(CONTROLLER_REVISION, name))
    await served.settle()
    assert served.all(DEPLOYMENT)[0]["spec"]["template"] == template
    assert served.all(CONTROLLER_REVISION)


async def test_a_digest_that_somebody_changes_is_put_back(served: World) -> None:
    served.apply()
    await served.settle()
    pin = served.ref(CONFIG_MAP, served.revision("3"))
    before = served.cluster._objects[pin]["data"]
    served.cluster.edit(pin, lambda manifest: manifest["data"].update(digest="sha256:" + "0" * 64))
    await served.settle()
    assert served.cluster._objects[pin]["data"] == before
    assert served.status["stable"]["digest"] == before["digest"]


async def test_a_new_image_in_the_chart_touches_only_the_next_revision(served: World) -> None:
    served.apply()
    await served.settle()
    served.platform = Platform(image="moorage/runtime:2", gpu_image="g", registries=world.PLATFORM.registries)
    served.restart()
    served.cluster.writes.clear()
    await served.settle()
    assert not served.cluster.writes
    served.apply(restartAt="2026-01-01T00:00:00Z")
    await served.settle()
    images = [item["spec"]["template"]["spec"]["containers"][0]["image"] for item in served.of_models(DEPLOYMENT)]
    assert sorted(images) == ["moorage/runtime:1", "moorage/runtime:2"]


async def test_suspend_freezes_everything_and_resume_goes_on(served: World) -> None:
    served.apply()
    await served.settle()
    served.apply(suspend=True)
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 1}
    assert served.status["phase"] == "Paused"
    served.apply(suspend=False)
    await served.settle()
    assert served.traffic() == "4"


async def test_replicas_pass_to_an_autoscaler_and_back_without_a_dip(served: World) -> None:
    served.apply(replicas=4)
    await served.settle()
    counts: list[int] = []
    name = served.revision("3")
    served.cluster.watch(
        lambda _, m: (
            counts.append(m["spec"]["replicas"]) if (m["kind"], m["metadata"]["name"]) == ("Deployment", name) else None
        )
    )
    served.apply(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 8})
    await served.settle()
    assert set(counts) == {4}
    assert served.autoscaler("3")["minReplicas"] == 2
    served.cluster.edit(
        served.ref(DEPLOYMENT, served.revision("3")),
        lambda m: m["spec"].update(replicas=6),
        manager="hpa",
        subresource="",
    )
    await served.settle()
    assert served.counts() == {"3": 6}
    served.apply(replicas=5, autoscaling=None)
    await served.settle()
    assert served.counts() == {"3": 5}
    assert not served.all(AUTOSCALER)
    assert min(counts) == 4


async def test_a_new_revision_starts_with_as_many_pods_as_stable_has_now(served: World) -> None:
    served.apply(autoscaling={"minReplicas": 1, "maxReplicas": 8})
    await served.settle()
    served.cluster.edit(
        served.ref(DEPLOYMENT, served.revision("3")), lambda m: m["spec"].update(replicas=5), manager="hpa"
    )
    await served.settle()
    served.fates["4"] = world.loading
    served.move_alias("4")
    await served.settle()
    assert served.counts() == {"3": 5, "4": 5}
    assert served.autoscaler("4")["minReplicas"] == 5
    del served.fates["4"]
    await served.settle()
    assert served.autoscaler("4")["minReplicas"] == 1


async def test_the_digest_of_the_first_pod_is_pinned_for_the_later_ones(served: World) -> None:
    served.apply()
    await served.settle()
    digest = "sha256:" + "ab" * 32
    assert served.status["stable"]["digest"] == digest
    assert served.all(CONFIG_MAP)[0]["data"] == {"digest": digest}


async def test_a_missing_deadline_is_told_as_stalled(served: World) -> None:
    served.fates["3"] = world.loading
    served.apply(rollout={"progressDeadlineSeconds": 60})
    await served.settle()
    assert served.condition("Reconciling") == ("True", "Progressing")
    await served.pass_time(61)
    assert served.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    assert served.status["phase"] == "Degraded"
    del served.fates["3"]
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_server_that_ends_without_an_error_has_crashed_too(served: World) -> None:
    waiting, ended = {"reason": "CrashLoopBackOff"}, {"exitCode": 0}
    served.fates["3"] = world.unready(state={"waiting": waiting}, lastState={"terminated": ended})
    served.apply()
    await served.settle()
    assert served.condition("Ready") == ("False", "Crashed")
    assert "ended with exit code 0" in served.message("Ready")


async def test_a_container_without_our_program_can_not_be_started(served: World) -> None:
    said = 'exec: "moorage-runtime": executable file not found in $PATH'
    ended = {"exitCode": 128, "reason": "StartError", "message": said}
    served.fates["3"] = world.unready(state={"terminated": ended})
    served.apply()
    await served.settle()
    assert served.condition("Ready") == ("False", "ContainerCannotStart")
    assert "executable file not found" in served.message("Ready")


async def test_an_autoscaler_may_be_without_metrics_for_a_minute(served: World) -> None:
    served.apply(autoscaling={"maxReplicas": 3}, resources={"requests": {"cpu": "1"}})
    await served.settle()
    since = served.now.isoformat().replace("+00:00", "Z")
    failing = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "none"}
    [autoscaler] = served.all(AUTOSCALER)
    served.cluster.edit(
        served.ref(AUTOSCALER, autoscaler["metadata"]["name"]),
        lambda live: live.update(status={"conditions": [failing | {"lastTransitionTime": since}]}),
        manager="kcm",
        subresource="status",
    )
    await served.settle()
    assert served.condition("ScalingActive") == ("Unknown", "Pending")
    assert served.again_at
    assert (served.again_at - served.now).total_seconds() == 60
    await served.pass_time(60)
    assert served.condition("ScalingActive") == ("False", "AutoscalerWithoutMetrics")


async def test_an_event_is_told_once_although_the_status_could_not_be_written(served: World) -> None:
    served.apply()

    def refuse(verb: str, ref: Ref) -> None:
        if ref.kind.name == "ModelDeployment":
            raise errors.Unreachable("the API server is away")

    served.cluster.before_write = refuse
    for _ in range(3):
        with pytest.raises(errors.Unreachable):
            await served.reconcile()
    served.cluster.before_write = None
    await served.settle()
    assert served.events().count("RevisionCreated") == 1


async def test_a_child_that_the_api_server_refuses_is_told_with_its_words(served: World) -> None:
    served.apply()

    def refuse(verb: str, ref: Ref) -> None:
        if ref.kind is DEPLOYMENT:
            raise errors.Invalid("spec.template.spec.nodeSelector: Invalid value")

    served.cluster.before_write = refuse
    with pytest.raises(errors.Invalid):
        await served.reconcile()
    assert served.condition("Stalled") == ("True", "ChildRefused")
    assert "nodeSelector" in served.message("Ready")
    served.cluster.before_write = None
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_crash_after_any_write_leaves_nothing_that_the_next_process_does_not_finish(served: World) -> None:
    golden = World()
    golden.move_alias("3")
    golden.apply(replicas=2)
    await golden.settle()
    wanted = {str(ref) for ref in golden.cluster._objects if ref.kind.name not in ("Event", "Pod")}
    for crash_at in range(1, sum(golden.cluster.writes.values()) + 1):
        broken = World()
        broken.move_alias("3")
        broken.apply(replicas=2)
        countdown = iter(range(1, 1000))

        def crash(verb: str, ref: Ref, at: int = crash_at, count: object = countdown) -> None:
            if next(count) == at:  # type: ignore[call-overload]  # an iterator
                raise SystemExit("killed")

        broken.cluster.after_write = crash
        with pytest.raises(SystemExit):
            await broken.settle()
        broken.cluster.after_write = None
        broken.restart()
        await broken.settle()
        assert {str(ref) for ref in broken.cluster._objects if ref.kind.name not in ("Event", "Pod")} == wanted
        assert broken.condition("Ready") == ("True", "Promoted")


async def test_an_operator_that_dies_after_each_write_still_gets_there(served: World) -> None:
    """Every life finds what the one before it left, and makes one write; it asks the registry anew."""
    served.apply(replicas=2)
    first = await settle_with_one_write_a_life(served)
    served.move_alias("4")
    second = await settle_with_one_write_a_life(served)
    served.apply(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    third = await settle_with_one_write_a_life(served)
    await served.pass_time(31)
    assert served.counts() == {"3": 0, "4": 2}
    assert served.autoscaler("4")["minReplicas"] == 2
    assert served.condition("Ready") == ("True", "Promoted")
    assert served.events().count("VersionResolved") == 2
    assert max(first, second, third) < 25


async def settle_with_one_write_a_life(world: World) -> int:
    """Returns the number of lives."""

    def die(verb: str, ref: Ref) -> None:
        raise SystemExit("killed")

    for lives in range(100):
        world.cluster.after_write = die
        try:
            await world.reconcile()
        except SystemExit:
            world.cluster.after_write = None
            world.run_controllers()
            world.restart()
            continue
        before = world.cluster._revision
        world.run_controllers()
        if world.cluster._revision == before:
            world.cluster.after_write = None
            return lives
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("alias", ["champion", "nobody"])
async def test_a_restart_alone_is_no_news(served: World, alias: str) -> None:
    served.registry[ModelRef("detector", alias="nobody")] = Problem(Reason.ALIAS_NOT_FOUND, "no such alias")
    served.apply(model={"name": "detector", "alias": alias})
    await served.settle()
    served.cluster.writes.clear()
    served.restart()
    await served.settle()
    assert not served.cluster.writes


async def test_what_was_made_just_before_a_crash_is_not_undone_before_the_registry_has_answered(
    served: World,
) -> None:
    served.apply()
    await served.settle()
    served.move_alias("4")

    def die(verb: str, ref: Ref) -> None:
        if ref.kind is DEPLOYMENT:
            raise SystemExit("killed")

    served.cluster.after_write = die
    with pytest.raises(SystemExit):
        await served.reconcile()
    served.cluster.after_write = None
    served.restart()
    await served.reconciler.reconcile(world.KEY)
    assert served.counts() == {"3": 1, "4": 1}


async def test_in_a_namespace_that_is_being_deleted_it_tries_once(served: World) -> None:
    served.apply(replicas=2)
    await served.settle()
    served.cluster.end_namespace("payments")
    served.cluster.writes.clear()
    told = served.events()
    for child in [ref for ref in served.cluster._objects if ref.kind in CHILDREN and ref.name != "moorage-router"]:
        served.cluster.remove(child)
        await served.reconcile()
    assert served.cluster.writes.total() == 1
    assert served.events() == told
    served.resync()
    await served.reconcile()
    assert served.cluster.writes.total() == 2, "a resync finds it, should it be there after all"


def _restart_by_kubectl(manifest: Manifest) -> None:
    annotations = manifest["spec"]["template"]["metadata"].setdefault("annotations", {})
    annotations["kubectl.kubernetes.io/restartedAt"] = "now"


async def test_a_budget_goes_though_its_controller_writes_its_status_just_then(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does as soon as the Deployment has another number of pods, which is what the same pass writes first."""
    served.apply(replicas=2)
    await served.settle()
    delete = served.cluster.delete

    async def delete_late(ref: Ref, **seen: str) -> None:
        served.cluster.edit(ref, lambda live: live.update(status={"currentHealthy": 1}))
        await delete(ref, **seen)

    monkeypatch.setattr(served.cluster, "delete", delete_late)
    served.apply(replicas=1)
    await served.reconcile()
    assert not served.of_models(DISRUPTION_BUDGET)
