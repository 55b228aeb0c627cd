"""A machine that makes random histories: whatever happens in whatever order, the world converges, and a pass after that writes nothing.

It plays users, controllers, failures and crashes against the very code that runs in production, on the fake cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import endings
import picture
import world
from moorage_operator import errors
from moorage_operator.core import contests, http_route, names, routing
from moorage_operator.core.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    Manifest,
    Ref,
)
from moorage_operator.core.registry import ModelRef, ModelVersion
from world import World

VERSIONS = st.sampled_from(["1", "2", "3", "4"])
FATES = st.sampled_from(
    [
        world.ready,
        world.loading,
        world.failing("ModelLoadFailed"),
        world.failing("PickleNotAllowed"),
        world.fetched({"inputs": [["x", "double"]], "outputs": []}),
        world.fetched({"inputs": [["y", "double"]], "outputs": []}),
    ]
)
CROWDED: list[dict[str, Any]] = [
    {"strategy": "canary", "steps": [{"setWeight": 50}, {"setWeight": 75}], "onNoCapacity": "shrinkStable"},
    {"strategy": "canary", "steps": [{"setWeight": 50}, {"pause": {"duration": 20}}], "onNoCapacity": "recreate"},
]
"""For when there are not enough GPUs for two versions."""

ROUTED: dict[str, Any] = {
    "strategy": "canary",
    "steps": [
        {"setCanaryScale": {"replicas": 0}},
        {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}},
        {"pause": {"duration": 20}},
        {"setHeaderRoute": {"name": "staff", "match": {"cookie": "staff", "value": "yes"}}},
        {"pause": {}},
        {"setHeaderRoute": {"name": "testers"}},
        {"setCanaryScale": {"matchTrafficWeight": True}},
        {"setWeight": 50},
    ],
    "shadow": {"percent": 10},
}
"""With header routes and a shadow."""

JUDGED: dict[str, Any] = {
    "strategy": "canary",
    "steps": [{"setWeight": 25}, {"pause": {"duration": 20}}, {"setWeight": 50}, {"pause": {"duration": 20}}],
    "analysis": {"minRequests": 100, "initialDelaySeconds": 1, "timeoutSeconds": 60},
}
"""With a guard of errors; `send_requests` shows it some."""

STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "canary"},
    {"strategy": "canary", "progressDeadlineSeconds": 30, "rollback": {"moveAliasBack": True}},
    {"strategy": "canary", "steps": [{"setWeight": 50}, {"pause": {"duration": 20}}, {"setWeight": 75}]},
    {"strategy": "canary", "steps": [{"setWeight": 0}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]},
    *CROWDED,
    ROUTED,
    JUDGED,
    {"strategy": "blueGreen"},
    {"strategy": "blueGreen", "blueGreen": {"autoPromote": False}},
    {"strategy": "recreate"},
]
BY_GATEWAY = {
    "router": "gateway",
    "gateway": {"parentRefs": [{"name": "public", "namespace": "infra"}], "hostnames": ["fraud.example.com"]},
}
BEGINNINGS: list[dict[str, Any]] = [
    {"rollout": {}},
    {"rollout": ROUTED},
    {"rollout": JUDGED},
    {"rollout": JUDGED, "traffic": BY_GATEWAY},
]
VERBS = ["promote", "promoteFull", "abort", "pause", "resume", "retry", "undo"]
OWNED = st.sampled_from([AUTOSCALER, CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, DISRUPTION_BUDGET, POD, SERVICE])


MONTH = 30 * 24 * 3600
BACK = -600


class Killed(BaseException):
    """kill -9 of the operator."""


class History(RuleBasedStateMachine):
    """One ModelDeployment's life."""

    @initialize(version=VERSIONS, replicas=st.integers(1, 3), given=st.sampled_from(BEGINNINGS))
    def begin(self, version: str, replicas: int, given: dict[str, Any]) -> None:
        self.world = World()
        self.world.move_alias(version)
        self.world.apply(replicas=replicas, **given)
        self.seen_traffic: str | None = None
        self.seen_weight = 0
        self.seen_routes: set[tuple[str, str]] = set()
        self.pods_before: dict[str, int] = {}
        self.misses_events = False
        self.said = 0

    # Users.

    @rule(version=VERSIONS, at_rest=st.booleans())
    def move_the_alias(self, version: str, at_rest: bool) -> None:
        """Often when the version before has arrived: else few revisions ever become old ones."""
        if at_rest:
            self.come_to_rest(later=31)
        self.world.move_alias(version)

    @rule(replicas=st.integers(0, 3))
    def set_fixed_replicas(self, replicas: int) -> None:
        self.world.apply(replicas=replicas, autoscaling=None)

    @rule(low=st.integers(1, 3), more=st.integers(0, 3))
    def set_autoscaling(self, low: int, more: int) -> None:
        """The API server lets no weight by pods through beside an autoscaler."""
        by_pods = self._spec().get("traffic", {}).get("router") == "replicas"
        rollout = {} if by_pods else self._spec().get("rollout", {})
        self.world.apply(replicas=None, autoscaling={"minReplicas": low, "maxReplicas": low + more}, rollout=rollout)

    @rule(strategy=st.sampled_from(STRATEGIES), delay=st.sampled_from([0, 30]))
    def choose_a_strategy(self, strategy: dict[str, Any], delay: int) -> None:
        """The API server lets not all of them through without a router of ours."""
        traffic = {"router": "auto"} if _needs_router(strategy) else self._spec().get("traffic")
        self.world.apply(
            replicas=3, autoscaling=None, rollout=strategy | {"scaleDownDelaySeconds": delay}, traffic=traffic
        )

    @rule(router=st.sampled_from(["auto", "replicas", "gateway"]))
    def choose_a_router(self, router: str) -> None:
        rollout = self._spec().get("rollout", {})
        by_pods_beside_an_autoscaler = router == "replicas" and "autoscaling" in self._spec()
        if router != "auto":
            needs_another = _needs_router(rollout) or by_pods_beside_an_autoscaler
            self.world.apply(experiment=None, rollout={} if needs_another else rollout)
        self.world.apply(traffic=BY_GATEWAY if router == "gateway" else {"router": router})

    @rule(verb=st.sampled_from(VERBS), role=st.sampled_from(["stable", "canary"]))
    def say_something(self, verb: str, role: str) -> None:
        revision = self.world.status.get(role, {}).get("revision", "fraud-v9-00000000")
        self._say(f"{verb}@{revision}")

    @rule(
        limit=st.integers(0, 2), port=st.sampled_from([80, 8000]), annotations=st.sampled_from([{}, {"team": "search"}])
    )
    def change_what_makes_no_revision(self, limit: int, port: int, annotations: dict[str, str]) -> None:
        self.world.apply(revisionHistoryLimit=limit, service={"port": port, "annotations": annotations})

    @rule(cpu=st.sampled_from(["1", "2000m", "2"]))
    def change_the_resources(self, cpu: str) -> None:
        self.world.apply(resources={"limits": {"cpu": cpu, "nvidia.com/gpu": 1}})

    # Failures.

    @rule(version=VERSIONS, fate=FATES)
    def decide_the_fate_of_a_version(self, version: str, fate: world.Fate) -> None:
        self.world.fates[version] = fate

    @rule(gpus=st.sampled_from([3, 4, 5]))
    def run_out_of_gpus(self, gpus: int) -> None:
        self.world.gpus = gpus

    @rule(version=VERSIONS, rollout=st.sampled_from(CROWDED), gpus=st.sampled_from([3, 4, 5]))
    def come_where_there_is_little_room(self, version: str, rollout: dict[str, Any], gpus: int) -> None:
        """All at once: by chance a history hardly ever gets there."""
        resources = {"limits": {"nvidia.com/gpu": 1}}
        self.world.apply(replicas=3, autoscaling=None, rollout=rollout, resources=resources, traffic={"router": "auto"})
        self.world.fates.clear()
        self.come_to_rest(later=31)
        self.world.gpus = gpus
        self._follow(version)

    @rule(version=VERSIONS, is_told=st.booleans())
    def come_with_another_signature(self, version: str, is_told: bool) -> None:
        """The same; what is pinned already stays. By the registry, too, or by pods alone."""
        self.world.fates.clear()
        self.come_to_rest(later=31)
        self.world.apply(autoscaling=None, rollout={"strategy": "canary", "steps": [{"setWeight": 50}, {"pause": {}}]})
        for number, name in enumerate("1234"):
            schema = {"inputs": [[f"x{number}", "double"]], "outputs": []}
            self.world.fates[name] = world.fetched(schema)
            if is_told:
                self.world.signatures[name] = world.registered(schema)
        self._follow(version)

    @rule(version=VERSIONS, bad=st.sampled_from([0, 30]))
    def come_to_be_judged(self, version: str, bad: int) -> None:
        """The same, with requests."""
        self.world.fates.clear()
        self.come_to_rest(later=31)
        self.world.apply(experiment=None, autoscaling=None, replicas=3, rollout=JUDGED)
        self._follow(version, bad=bad)

    @rule(
        version=VERSIONS, fate=st.sampled_from([world.loading, world.failing("ModelLoadFailed")]), at_once=st.booleans()
    )
    def come_with_pods_that_fail(self, version: str, fate: world.Fate, at_once: bool) -> None:
        """The same: none of them is ever ready, or all of them fail when they have requests."""
        self.world.fates.clear()
        self.come_to_rest(later=31)
        self.world.apply(autoscaling=None, replicas=3, rollout={"steps": [{"setWeight": 50}, {"pause": {}}]})
        if at_once:
            self.world.fates[version] = fate
        self._follow(version)
        self.world.fates[version] = fate
        self.world.run_controllers()

    def _follow(self, version: str, *, bad: int | None = None) -> None:
        """With requests, if `bad` says how many of them fail."""
        self.world.move_alias(version)
        for _ in range(6):
            self._pass()
            self.world.run_controllers()
            if bad is not None:
                self.send_requests(bad=bad, kind="canary")
            self.world.now += timedelta(seconds=11 if bad is None else 16)

    @rule()
    def lose_the_registry(self) -> None:
        self.world.lose_registry()

    @rule(kind=OWNED, data=st.data())
    def delete_a_child(self, kind: Any, data: st.DataObject) -> None:
        found = [item["metadata"]["name"] for item in self.world.all(kind)]
        if found:
            self.world.cluster.remove(self.world.ref(kind, data.draw(st.sampled_from(found))))

    @rule(count=st.integers(0, 5), data=st.data())
    def scale_a_deployment_by_hand(self, count: int, data: st.DataObject) -> None:
        found = [item["metadata"]["name"] for item in self.world.of_models(DEPLOYMENT)]
        if found:
            ref = self.world.ref(DEPLOYMENT, data.draw(st.sampled_from(found)))
            self.world.cluster.edit(ref, lambda manifest: manifest["spec"].update(replicas=count))

    @rule()
    def add_to_a_pod_template(self) -> None:
        for item in self.world.of_models(DEPLOYMENT):
            self.world.cluster.edit(self.world.ref(DEPLOYMENT, item["metadata"]["name"]), _add_annotation)

    @rule(deaf=st.booleans(), silent=st.booleans())
    def trouble_the_routers(self, deaf: bool, silent: bool) -> None:
        agents = self.world.agents
        agents.deaf = {"*"} if deaf else set()
        agents.silent = {"*"} if silent else set()
        self.world.gateway.sleeps = deaf

    @rule(deaf=st.booleans())
    def lose_events(self, deaf: bool) -> None:
        """What was lost stays unknown until the next resync."""
        self.world.deaf = deaf
        self.misses_events |= deaf

    # Time, and the operator.

    @rule(seconds=st.sampled_from([1, 31, 700, MONTH, BACK]))
    def let_time_pass(self, seconds: int) -> None:
        """Or let somebody set the clock."""
        self.world.now += timedelta(seconds=seconds)

    @rule(bad=st.sampled_from([0, 30]), kind=st.sampled_from(["canary", "stable"]))
    def send_requests(self, bad: int, kind: str) -> None:
        """As many as the weight says. Of a hundred that one version gets `bad` fail; the other one is well."""
        status = self.world.status
        weight = status.get("weights", {}).get("desired", 0)
        for role, share in (("stable", 100 - weight), ("canary", weight)):
            if role in status and share:
                failed = 4 * share * (bad if role == kind else 1) // 100
                self.world.agents.traffic.send(role, status[role]["revision"], 4 * share, bad=failed)

    @rule()
    def reconcile(self) -> None:
        self._pass()

    @rule()
    def run_controllers(self) -> None:
        self.world.run_controllers()

    @rule(at=st.integers(1, 8), after=st.booleans())
    def kill_the_operator_at_a_write(self, at: int, after: bool) -> None:
        left = at

        def kill(verb: str, ref: Ref) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        setattr(self.world.cluster, "after_write" if after else "before_write", kill)
        with contextlib.suppress(Killed):
            self._pass()
        self.world.cluster.after_write = self.world.cluster.before_write = None
        self.world.restart()
        self.misses_events = self.world.deaf

    @rule(later=st.sampled_from([0, 31]))
    def come_to_rest(self, later: int) -> None:
        """Convergence: with events and a registry, everybody's work ends, and a further pass writes nothing.

        `later`, in seconds, the old pods end, too.
        """
        self.world.deaf = False
        self.world.agents.deaf.clear()
        self.world.agents.silent.clear()
        self.world.gateway.sleeps = False
        self.world.move_alias(self.world.champion)
        self.world.resync()
        self.misses_events = False
        self._settle()
        self.world.now += timedelta(seconds=later)
        self._settle()
        for _ in range(contests.WINDOW // contests.PAUSE + 1):
            if self.world.fights():
                self.world.now += contests.PAUSE
                self._settle()
        assert not self.world.fights()
        self.world.cluster.writes.clear()
        self.world.restart()
        self._pass()
        assert not self.world.cluster.writes
        self._all_is_in_order()
        self._all_is_told()
        self._no_step_takes_longer_than_it_may()

    def _no_step_takes_longer_than_it_may(self) -> None:
        """Where the clock has leapt over a step, what was counted before still has to be looked at."""
        until = self.world.now + endings.LOOKS
        while endings.overstays(self._spec(), self.world.status, self.world.now):
            assert self.world.now < until, f"it stays for ever: {self.world.status['message']}"
            self._look_again()

    @rule()
    def everything_heals(self) -> None:
        """By itself all ends then, but what a person has to say something to; and that, once it is said."""
        self.world.fates.clear()
        self.world.gpus = None
        self.world.apply(rollout=self._spec().get("rollout", {}) | {"signature": "any"})
        for _ in range(10):
            self.come_to_rest(later=0)
            self._end_or_ask_a_person()
            if not self._push_on():
                break
        self.come_to_rest(later=31)
        replicas = self.world.all(MODEL_DEPLOYMENT)[0]["spec"].get("replicas", 1)
        assert self.world.status.get("stable", {}).get("modelVersion") == self.world.champion
        assert self.world.condition("Ready")[0] == ("True" if replicas else "False")

    def _end_or_ask_a_person(self) -> None:
        begun = self.world.now
        while "canary" in self.world.status and not self._asks_a_person():
            longest = endings.longest(self._spec(), self.world.status, begun)
            assert self.world.now - begun < longest, f"it never ends: {self.world.status['message']}"
            self._look_again()

    def _asks_a_person(self) -> bool:
        return endings.may_wait_for_a_person(self._spec(), self.world.status, self.world.now)

    def _look_again(self) -> None:
        """When the operator itself wants to, and no sooner: nothing happens until then."""
        self.world.now = self._looks_again_at()
        self._settle()

    def _looks_again_at(self) -> datetime:
        moment = self.world.next_moment()
        assert moment, f"nobody ever looks again: {self.world.status['message']}"
        return moment

    def _all_is_in_order(self) -> None:
        """The address is stable's; of revisions without a role there are only Deployments at 0, as many as wanted; of what was taken
        out of the spec there is nothing, and of a stranger's changes only those that were in a template when its ControllerRevision
        was lost.
        """
        spec, status = self.world.all(MODEL_DEPLOYMENT)[0]["spec"], self.world.status
        active = {status[role]["revision"] for role in ("stable", "canary") if role in status}
        active |= self._arms(status)
        for leaving in status.get("leaving", ()):
            active.add(leaving["revision"])
            assert self.world.now < self._looks_again_at() <= datetime.fromisoformat(leaving["scaleDownAt"])
        assert {pod["metadata"]["labels"][names.REVISION] for pod in self.world.of_models(POD)} <= active
        for kind in (SERVICE, AUTOSCALER, DISRUPTION_BUDGET):
            assert {item["metadata"]["labels"].get(names.REVISION) for item in self.world.of_models(kind)} <= {
                None,
                *active,
            }
        deployments = self.world.of_models(DEPLOYMENT)
        retired = {item["metadata"]["name"] for item in deployments} - active
        assert len(retired) <= spec.get("revisionHistoryLimit", 3)
        frozen = {item["metadata"]["name"]: item["data"] for item in self.world.all(CONTROLLER_REVISION)}
        for item in deployments:
            assert not _was_added_to(item["spec"]) or _was_added_to(frozen[item["metadata"]["name"]])
        address, answering = self.world.address, status.get("stable") or status.get("canary")
        assert address
        assert answering
        weight = status.get("weights", {}).get("desired", 0)
        canary = status["canary"]["revision"] if weight else ""
        expected = {answering["revision"]: 100 - weight} | ({canary: weight} if canary else {})
        expected = {revision: share for revision, share in expected.items() if share}
        router = spec.get("traffic", {}).get("router")
        if router == "gateway":
            assert address["spec"]["selector"].get(names.REVISION) == answering["revision"]
            (route,) = self.world.all(HTTP_ROUTE)
            assert http_route.backends(route) == expected
            assert {(match.value, match.revision) for match in http_route.matches_of(route)} == self._routes(status)
        elif router == "replicas":
            assert address["spec"]["selector"].get(names.REVISION) == (
                None if len(expected) > 1 else next(iter(expected))
            )
        else:
            assert address["spec"]["selector"].get(names.APP_COMPONENT) == names.ROUTER
            assert all(shares == expected for shares in self.world.agents.shares())
            assert self._matches() == self._routes(status)
        kept = {key for key in address["metadata"].get("annotations", {}) if not key.startswith("moorage.dev/")}
        assert kept == spec.get("service", {}).get("annotations", {}).keys()

    def _arms(self, status: Manifest) -> set[str]:
        """Revisions that arms of an experiment have, each as the routers hold it; who has pods that are ready has its weight."""
        arms = status.get("experiment", {}).get("arms", [])
        assert "stable" not in status or {arm["name"] for arm in arms} == {
            arm["name"] for arm in self._spec().get("experiment", {}).get("arms", ())
        }
        for held in self._held():
            for arm in arms:
                assert held.arms[arm["name"]].revision == arm["revision"]
                assert held.arms[arm["name"]].weight == 100 * arm.get("weight", 0)
        versions = [version for arm in arms for version in (arm, arm.get("next"))]
        return {version["revision"] for version in versions if version}

    def _held(self) -> list[routing.Held]:
        found = [routing.held(state, world.KEY.name) for state in self.world.agents.states.values()]
        return [held for held in found if held]

    def _all_is_told(self) -> None:
        """Nothing is left to tell the registry, and the tags of each version are those of its last outcome."""
        told: set[str] = set()
        for outcome in self.world.status.get("history", ()):
            assert picture.says(outcome["result"], outcome.get("reason", "")), "docs/rollouts.md does not say so"
            notice = outcome.get("registry", {})
            assert "Pending" not in (notice.get("tags"), notice.get("aliasMove"))
            if "tags" in notice and outcome["modelVersion"] not in told:
                told.add(outcome["modelVersion"])
                verdict = {"Promoted": "promoted", "RolledBack": "failed", "Aborted": "aborted"}[outcome["result"]]
                assert self.world.tags[outcome["modelVersion"]]["moorage.rollout"] == verdict

    # What must always hold.

    @invariant()
    def a_canary_gets_more_requests_only_when_it_has_ready_pods(self) -> None:
        weights, before = self.world.status.get("weights", {}).get("desired", 0), self.seen_weight
        self.seen_weight = weights
        if weights > before and self._spec().get("replicas", 1):
            canary = self.world.status["canary"]["revision"]
            assert self._ready(canary)
            assert self._available(canary) >= self._needed_for(weights)

    def _available(self, revision: str) -> int:
        """As the Deployment's controller has said last."""
        (deployment,) = (item for item in self.world.of_models(DEPLOYMENT) if item["metadata"]["name"] == revision)
        available: int = deployment["status"]["availableReplicas"]
        return available

    def _needed_for(self, weight: int) -> int:
        """Pods that its share needs, where neither an autoscaler nor a step says something else."""
        if "autoscaling" in self._spec() or "canaryScale" in self.world.status:
            return 1
        replicas: int = self._spec().get("replicas", 1)
        return -(-replicas * weight // 100)

    @invariant()
    def the_address_never_leaves_ready_pods_for_unready_ones(self) -> None:
        """Whoever is the only one to get requests is left for another one only when that one has ready pods, or somebody says abort."""
        target = self._only_target()
        left, self.seen_traffic = self.seen_traffic, target
        if target and left and target != left and self._ready(left) and self.world.status.get("stable"):
            wanted = self.world.all(MODEL_DEPLOYMENT)[0]["spec"].get("replicas", 1)
            assert self._ready(target) or wanted == 0 or self._was_aborted(left)

    def _was_aborted(self, revision: str) -> bool:
        last = self.world.status.get("history", [{}])[0]
        return (last.get("revision"), last.get("result")) == (revision, "Aborted")

    @invariant()
    def testers_get_a_canary_only_when_it_has_ready_pods(self) -> None:
        routes, before = self._routes(self.world.status), self.seen_routes
        self.seen_routes = routes
        if routes - before and self._spec().get("replicas", 1):
            assert self._ready(self.world.status["canary"]["revision"])

    def _routes(self, status: Manifest) -> set[tuple[str, str]]:
        """By value and revision; where the canary has everything there are none to be seen."""
        if status.get("weights", {}).get("desired") == 100:
            return set()
        return {(item["value"], status["canary"]["revision"]) for item in status.get("headerRoutes", ())}

    def _matches(self) -> set[tuple[str, str]]:
        return {
            (match.value, match.revision)
            for state in self.world.agents.states.values()
            if (held := routing.held(state, world.KEY.name))
            for match in held.matches
            if held.shares[match.revision] != 10_000
        }

    def _only_target(self) -> str | None:
        """The revision that gets all requests, if there is just one."""
        selector = self.world.address["spec"]["selector"] if self.world.address else {}
        if selector.get(names.APP_COMPONENT) != names.ROUTER:
            found: str | None = selector.get(names.REVISION)
            return found
        revisions = {revision for shares in self.world.agents.shares() for revision in shares}
        return revisions.pop() if len(revisions) == 1 else None

    @invariant()
    def nobody_else_is_owner(self) -> None:
        uid = self.world.all(MODEL_DEPLOYMENT)[0]["metadata"]["uid"]
        for item in self.world.of_models(DEPLOYMENT):
            assert [owner["uid"] for owner in item["metadata"]["ownerReferences"]] == [uid]

    def teardown(self) -> None:
        """However it went, nothing waits beyond its time, and when all is well it ends well. Few histories take out of the spec what was
        added to it, and change nothing else there.
        """
        if hasattr(self, "world"):
            self.let_time_pass(700)
            self.come_to_rest(later=31)
            service = self.world.all(MODEL_DEPLOYMENT)[0]["spec"].get("service", {})
            self.world.apply(service=service | {"annotations": {}})
            self.everything_heals()

    def _spec(self) -> Manifest:
        spec: Manifest = self.world.all(MODEL_DEPLOYMENT)[0]["spec"]
        return spec

    def _settle(self) -> None:
        """Routers and events are well then."""
        self.lost_for: Counter[str] = Counter()
        asyncio.run(
            self.world.settle(
                rounds=60, before_a_pass=self._before_a_pass, after_a_pass=self._after_a_pass_with_all_in_touch
            )
        )

    def _pass(self) -> None:
        self._before_a_pass()
        try:
            asyncio.run(self.world.reconcile())
        except (errors.ClusterError, Killed) as error:
            self._after_half_a_pass()
            if isinstance(error, Killed):
                raise
        else:
            self._after_a_pass()

    def _before_a_pass(self) -> None:
        self.pods_before = self._counts()

    def _after_half_a_pass(self) -> None:
        """Pods come before weights, and what the status does not say yet is no excuse."""
        self._stable_has_what_it_carries(least=self._held_share())
        self._nobody_is_sent_to_pods_that_were_ended()

    def _after_a_pass(self) -> None:
        self.the_address_never_leaves_ready_pods_for_unready_ones()
        self.a_canary_gets_more_requests_only_when_it_has_ready_pods()
        self.testers_get_a_canary_only_when_it_has_ready_pods()
        lends = self.world.status.get("capacity", {}).get("lentByStable")
        share = 100 - self.world.status.get("weights", {}).get("desired", 0) if lends else 100
        self._stable_has_what_it_carries(least=max(share, self._held_share()))
        self._nobody_is_sent_to_pods_that_were_ended()
        if not self.misses_events:
            self._no_canary_has_requests_and_no_pods()
            self._callers_can_use_what_they_get()

    def _after_a_pass_with_all_in_touch(self) -> None:
        self._after_a_pass()
        self._routers_leave_a_canary_that_lost_its_pods()

    def _stable_has_what_it_carries(self, *, least: float) -> None:
        """Pods for `least` percent of the requests. What an autoscaler gave it no pass takes away: only that one knows what they do."""
        spec, stable = self._spec(), self.world.status.get("stable", {}).get("revision")
        if stable not in self.pods_before or self._ends_first():
            return
        replicas = spec.get("replicas", 1)
        needed = sys.maxsize if "autoscaling" in spec else max(math.ceil(replicas * least / 100), min(replicas, 1))
        has = self._counts().get(stable, 0)
        assert has >= min(self.pods_before[stable], needed), "stable has fewer pods than it needs"

    def _nobody_is_sent_to_pods_that_were_ended(self) -> None:
        """By this pass: the last of a revision goes when no router, and no Gateway, has anything for it; stable may have to make room."""
        if not self._spec().get("replicas", 1):
            return
        counts, held = self._counts(), self._held_splits()
        sent_to = {revision for split in held for revision, share in split.items() if share}
        if self._ends_first():
            sent_to -= {self.world.status.get("stable", {}).get("revision")}
        for revision in sent_to:
            assert counts.get(revision, 0) or not self.pods_before.get(revision, 0), (
                "requests go to pods that were ended"
            )

    def _no_canary_has_requests_and_no_pods(self) -> None:
        """Not even for a moment after a pass that knew of it."""
        status = self.world.status
        sends = status.get("weights", {}).get("desired") or status.get("headerRoutes")
        if "stable" in status and sends and self._spec().get("replicas", 1) and not self._wakes():
            assert self._ready(status["canary"]["revision"]), "a canary keeps its requests without any ready pod"

    def _routers_leave_a_canary_that_lost_its_pods(self) -> None:
        """What they really hold: one pass sees it, and before the next one they have heard of it."""
        if not self._spec().get("replicas", 1) or self._wakes():
            return
        stable = self.world.status.get("stable", {}).get("revision")
        sent_to = {revision for split in self._held_splits() for revision, share in split.items() if share}
        lost = {revision for revision in sent_to if stable not in (None, revision) and not self._ready(revision)}
        self.lost_for = Counter({revision: self.lost_for[revision] + 1 for revision in lost})
        assert max(self.lost_for.values(), default=0) <= 2, "the routers send requests to nobody"

    def _wakes(self) -> bool:
        """Has all been scaled to zero? Then stable answers for the canary, if it wakes up first."""
        behind_gateway = self._spec().get("traffic", {}).get("router") == "gateway"
        return bool(self.world.status.get("canary", {}).get("isWaking")) and not behind_gateway

    def _ends_first(self) -> bool:
        """Do stable's pods end before others start?"""
        strategy = self._spec().get("rollout", {}).get("strategy")
        return bool(strategy == "recreate" or self.world.status.get("capacity", {}).get("stableEnded"))

    def _held_share(self) -> float:
        """The most of the requests that somebody sends to stable, in percent."""
        stable = self.world.status.get("stable", {}).get("revision")
        return max((split.get(stable, 0) for split in self._held_splits()), default=0)

    def _held_splits(self) -> list[dict[str, float]]:
        """By revision, in percent: what those really hold who divide the requests now."""
        selector = self.world.address["spec"]["selector"] if self.world.address else {}
        if route := self.world.gateway.held.get(self.world.ref(HTTP_ROUTE)):
            shares = http_route.backends(route)
            if http_route.divides(route):
                return [{revision: 100 * share / sum(shares.values()) for revision, share in shares.items()}]
        if selector.get(names.APP_COMPONENT) == names.ROUTER:
            return self.world.agents.shares()
        return [{selector[names.REVISION]: 100}] if names.REVISION in selector else []

    def _callers_can_use_what_they_get(self) -> None:
        spec, status = self._spec(), self.world.status
        is_asked = spec.get("rollout", {}).get("signature") != "any" and "undo" not in status
        if not is_asked or status.get("canary", {}).get("isBack") or not status.get("weights", {}).get("desired"):
            return
        pins = {item["metadata"]["name"]: item["data"].get("signature", "") for item in self.world.all(CONFIG_MAP)}
        found = {pins.get(status[role]["revision"], "") for role in ("stable", "canary")} - {""}
        assert len(found) < 2, "they get a version with another signature"

    def _counts(self) -> dict[str, int]:
        """Pods by revision: two of them may have the same model version."""
        return {item["metadata"]["name"]: item["spec"]["replicas"] for item in self.world.of_models(DEPLOYMENT)}

    def _push_on(self) -> bool:
        """Take away whatever keeps the champion from being stable; False if there is nothing."""
        status = self.world.status
        if "undo" in status:
            self._say(f"undo@{status['undo']['insteadOf']}")
        elif "canary" in status:
            self._say(f"promoteFull@{status['canary']['revision']}")
            self._settle()
            self._end_or_ask_a_person()
            assert "canary" not in self.world.status, f"it was promoted, and stays: {self.world.status['message']}"
        elif "rejected" in status:
            self._say(f"retry@{status['rejected'][0]['revision']}")
        else:
            return False
        return True

    def _say(self, command: str) -> None:
        self.said += 1
        self.world.command(f"{command}.{self.said}")

    def _ready(self, revision: str) -> int:
        return self.world.ready_pods(revision)


class Experimenting(History):
    """The same, with arms of an experiment that come, change and go."""

    @rule(weights=st.lists(st.sampled_from([0, 10, 40]), max_size=2), version=VERSIONS)
    def change_the_experiment(self, weights: list[int], version: str) -> None:
        """The API server lets none through without a router of ours."""
        self.world.registry[ModelRef("detector", alias="arm-0")] = ModelVersion("detector", version, "run", "s3://m")
        self.world.registry[ModelRef("detector", alias="arm-1")] = ModelVersion("detector", "4", "run-4", "s3://m")
        names_ = [f"arm-{number}" for number in range(len(weights))]
        arms = [
            {"name": name, "model": {"alias": name}, "weight": weight}
            for name, weight in zip(names_, weights, strict=True)
        ]
        if self._spec().get("traffic", {}).get("router") not in ("replicas", "gateway"):
            self.world.apply(experiment={"arms": arms} if arms else None)


def _needs_router(rollout: dict[str, Any]) -> bool:
    return "shadow" in rollout or rollout.get("onNoCapacity") == "shrinkStable"


def _was_added_to(content: Manifest) -> bool:
    return "someone" in content["template"]["metadata"].get("annotations", {})


def _add_annotation(manifest: Manifest) -> None:
    manifest["spec"]["template"]["metadata"].setdefault("annotations", {})["someone"] = "was here"
