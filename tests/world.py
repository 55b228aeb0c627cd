"""A small world for the reconcile tests: the fake cluster with the controllers that Kubernetes would run, and a clock.

`world.settle()` lets everybody act until nobody has anything left to do. A pod's fate is decided by its model version:
`world.fates["4"] = loading` keeps the pods of version 4 from getting ready.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

import fake_ssa
from fake_cluster import FakeCluster
from fake_gateway import FakeGateway
from fake_traffic import FakeTraffic
from moorage_operator import errors, ports
from moorage_operator.core import names, routing, signatures
from moorage_operator.core.kinds import (
    AUTOSCALER,
    BY_NAME,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    Kind,
    Manifest,
    Ref,
)
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.core.notices import AliasMove, Errand, Report, Stage
from moorage_operator.core.observed import Answer
from moorage_operator.core.platform import Platform, RegistryEndpoint, RouterSettings
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.core.routing import AgentState
from moorage_operator.core.signatures import Signature
from moorage_operator.handlers import WATCHED
from moorage_operator.index import Index
from moorage_operator.meter import Meter
from moorage_operator.reconcile import Reconciler
from moorage_operator.retakes import Retakes
from moorage_operator.router_reconcile import RouterReconciler
from moorage_operator.routers import Routers

ROUTER = RouterKey("payments")
KEY = Key("payments", "fraud")
PLATFORM = Platform(
    image="moorage/runtime:1",
    gpu_image="moorage/runtime:1-gpu",
    registries={"default": RegistryEndpoint("http://mlflow")},
)
START = datetime(2026, 1, 1, tzinfo=UTC)

Objects = dict[Ref, Manifest]

Fate = Callable[[], dict[str, Any]]
"""The status of a pod, as the kubelet and the scheduler would write it."""


def ready() -> dict[str, Any]:
    fetched = {"exitCode": 0, "message": json.dumps({"digest": "sha256:" + "ab" * 32})}
    return {
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{"name": "fetch", "state": {"terminated": fetched}}],
        "containerStatuses": [{"name": "serve", "state": {"running": {}}}],
    }


def fetched(schema: dict[str, Any] | None, *, then: Fate = ready) -> Fate:
    """Of a pod whose fetch container tells this signature; without one, as older runtimes do it."""

    def fate() -> dict[str, Any]:
        words: dict[str, Any] = {"digest": "sha256:" + "ab" * 32, "signature": f"sha256:{schema}"}
        words |= {} if schema is None else {"schema": schema}
        ended = {"exitCode": 0, "message": json.dumps(words)}
        return then() | {"initContainerStatuses": [{"name": "fetch", "state": {"terminated": ended}}]}

    return fate


def registered(schema: dict[str, Any]) -> Signature:
    """The same, as the registry tells it."""
    found = signatures.reported({"signature": f"sha256:{schema}", "schema": schema})
    assert found
    return found


def unready(**serve: Any) -> Fate:
    """`serve` is the status of that container: state, lastState."""
    status = {"name": "serve", **serve}
    return lambda: {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [fake_ssa.copied(status)],
    }


loading = unready(state={"running": {}})


def failing(reason: str, message: str = "it is broken") -> Fate:
    ended = {"exitCode": 1, "message": json.dumps({"reason": reason, "message": message})}
    return unready(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended})


def evicted() -> dict[str, Any]:
    """As the kubelet leaves a pod behind that it took its node's disk from: for ever, beside the one that came instead of it."""
    gone = "The container could not be located when the pod was terminated"
    ended = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": gone}
    status = ready() | {"containerStatuses": [{"name": "serve", "state": {"terminated": ended}}]}
    status["conditions"] = [{"type": "Ready", "status": "False", "reason": "PodFailed"}]
    told = "The node was low on resource: ephemeral-storage. "
    return status | {"phase": "Failed", "reason": "Evicted", "message": told}


def no_gpu() -> dict[str, Any]:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"conditions": [{"type": "Ready", "status": "False"}, scheduled]}


class FakeAgents:
    """The agents of the router pods. Each follows the ConfigMap, and sees the pods that are ready, when `look` is called."""

    def __init__(self, of: World) -> None:
        self.world = of
        self.states: dict[str, AgentState] = {}
        """By pod."""
        self.deaf: set[str] = set()
        """Pods whose agents take nothing up; "*" is all of them."""
        self.silent: set[str] = set()
        """Pods whose agents do not answer."""
        self.busy: set[str] = set()
        """Pods whose agents are telling their HAProxy something: they answer without models."""
        self.started_at: dict[str, str] = {}
        """Pods whose agents have been started anew, beside an HAProxy that lived on."""
        self.queries: dict[str, float] = {}
        """What Prometheus says."""
        self.traffic = FakeTraffic()
        """What the first of them has counted."""

    async def state(self, address: str) -> AgentState:
        if address in self.silent or "*" in self.silent:
            raise errors.AgentUnreachable("does not answer")
        state = self.states.get(address, AgentState())
        state = msgspec.structs.replace(state, started_at=self.started_at.get(address, ""))
        if {"*", address} & self.busy:
            return msgspec.structs.replace(state, models={})
        if address != min(self.states, default=""):
            return state
        stored = msgspec.to_builtins(state)
        for model in stored["models"].values():
            model["counters"] = self.traffic.by_arm
        return msgspec.convert(stored, AgentState)

    async def metrics(self, address: str) -> str:
        """Of a model pod; the first of a revision has counted everything."""
        of_pods = {
            pod["metadata"]["name"]: pod["metadata"]["labels"].get(names.REVISION) for pod in self.world.all(POD)
        }
        revision = of_pods[address]
        firsts = [name for name, other in of_pods.items() if other == revision and not self.world.is_left_over(name)]
        if revision in self.traffic.silent or self.world.is_left_over(address):
            raise errors.RuntimeUnreachable("does not answer")
        return self.traffic.exposition(revision) if address == min(firsts) else "process_start_time_seconds 1.7e+09"

    async def value(self, query: str) -> float:
        """Of Prometheus."""
        if query not in self.queries:
            raise errors.QueryFailed("the query gives 0 series, and not one")
        return self.queries[query]

    def look(self) -> None:
        config_map = next(
            (item for item in self.world.all(CONFIG_MAP) if item["metadata"]["name"] == routing.NAME), None
        )
        pods = [item["metadata"]["name"] for item in self.world.all(POD) if _is_of_router(item)]
        self.states = {name: state for name, state in self.states.items() if name in pods}
        if config_map is None:
            return
        models = {
            name: self._seen(row) for name, row in json.loads(config_map["data"][routing.TABLE])["models"].items()
        }
        state = {"resourceVersion": config_map["metadata"]["resourceVersion"], "models": models}
        for pod in pods:
            if not {"*", pod} & self.deaf:
                self.states[pod] = msgspec.convert(state, AgentState)

    def shares(self) -> list[dict[str, float]]:
        """What each router pod sends to each revision, in percent."""
        held = [routing.held(state, KEY.name) for state in self.states.values()]
        return [{name: share / 100 for name, share in item.shares.items() if share} for item in held if item]

    def _seen(self, row: Manifest) -> Manifest:
        arms = row.get("arms", [])
        revisions = [row["stable"], *([row["canary"]["revision"]] if "canary" in row else [])]
        revisions += [arm["revision"] for arm in arms]
        matches = [match | {"revision": row["canary"]["revision"]} for match in row.get("matches", ())]
        matches += [arm["match"] | {"arm": arm["name"], "revision": arm["revision"]} for arm in arms if "match" in arm]
        found = row | {"endpoints": {revision: self.world.ready_pods(revision) for revision in revisions}}
        if "shadow" in row:
            found["shadow"] = row["shadow"] | {"weight": 100 * row["shadow"]["percent"]}
        return found | {"matches": matches}


class FakeTellers:
    """Carries errands to the world's registry when `work` is called; what it knows is gone with its process."""

    def __init__(self, of: World) -> None:
        self.world = of
        self.errands: dict[Errand, Report | None] = {}

    def reports(self, key: Key) -> Mapping[Errand, Report]:
        return {errand: report for errand, report in self.errands.items() if report}

    def want(self, key: Key, errands: Collection[Errand]) -> None:
        self.errands = {errand: self.errands.get(errand) for errand in errands}

    def work(self) -> bool:
        """All that is to be done, if the registry is there; whether there was anything."""
        due = [errand for errand, report in self.errands.items() if report is None]
        if self.world.registry_is_lost:
            return False
        for errand in due:
            self.world.said.append(errand)
            self.errands[errand] = self._carry_out(errand)
        return bool(due)

    def _carry_out(self, errand: Errand) -> Report:
        if self.world.registry_refuses:
            return Report(Stage.FAILED, self.world.registry_refuses)
        if isinstance(errand, AliasMove):
            if self.world.champion == errand.away_from:
                self.world.move_alias(errand.to)
            return Report(Stage.DONE if self.world.champion == errand.to else Stage.SKIPPED)
        tags = self.world.tags.setdefault(errand.version, {})
        tags.update({name: value for name, value in errand.tags if value is not None})
        for name in [name for name, value in errand.tags if value is None]:
            tags.pop(name, None)
        return Report(Stage.DONE)


def _is_of_router(item: Manifest) -> bool:
    return bool(item["metadata"]["labels"].get(names.APP_COMPONENT) == names.ROUTER)


def is_leftover(pod: Manifest) -> bool:
    """Whoever else sees it: it counts for nobody."""
    return "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


class World:
    """One ModelDeployment in a cluster; `registry` maps references to what they name."""

    def __init__(self, *, platform: Platform = PLATFORM) -> None:
        self.now = START
        self.cluster = FakeCluster(now=lambda: self.now)
        self.index = Index()
        self.platform = platform
        self.registry: dict[ModelRef, ModelVersion | Problem] = {}
        self.champion = ""
        """The version that the alias names."""
        self.signatures: dict[str, Signature] = {}
        """By version: those that the registry tells, before any pod does."""
        self.tags: dict[str, dict[str, str]] = {}
        """By version."""
        self.said: list[Errand] = []
        """All errands that reached the registry."""
        self.registry_refuses = ""
        """Why, if it takes nothing."""
        self.fates: dict[str, Fate] = {}
        self.deaf = False
        """While true, watch events do not arrive."""
        self.gpus: int | None = None
        """Of the cluster, one for each pod of a model; None is enough for all."""
        self._placed: list[str] = []
        self.again_at: datetime | None = None
        self.agents = FakeAgents(self)
        self.prometheus: ports.Prometheus = self.agents
        self.gateway = FakeGateway(self.cluster)
        self.cluster.watch(self._hear)
        self.restart()

    # What the operator is given.

    def restart(self, *, told: Objects | None = None, late: bool = False) -> None:
        """A new process of the operator: all it knew is gone, but what the cluster holds.

        `told` is what its watches begin with, where the API server behind them lags (its LISTs out of a cache do); `late`, after the
        first LIST of our own, which asks for the newest.
        """
        self.index = Index()
        self._answered: set[ModelRef] = set()
        self._asked: set[ModelRef] = set()
        if not late:
            self._hear_all(told or {})
        self.resync()
        if late:
            self._hear_all(told or {})
        self.routers = Routers(self.agents, index=self.index, wake=lambda key: None, clock=self.seconds)
        self.meter = Meter(
            agents=self.agents,
            runtimes=self.agents,
            prometheus=self.prometheus,
            index=self.index,
            wake=lambda key: None,
            clock=lambda: self.now,
        )
        self.tellers = FakeTellers(self)
        self.retakes = Retakes(self.cluster)
        self.reconciler = Reconciler(
            cluster=self.cluster,
            index=self.index,
            answers=self,
            routers=self.routers,
            meter=self.meter,
            errands=self.tellers,
            retakes=self.retakes,
            platform=self.platform,
            clock=lambda: self.now,
        )
        self.router_reconciler = RouterReconciler(
            cluster=self.cluster,
            index=self.index,
            settings=RouterSettings("moorage/operator:1", cluster_role="moorage-router"),
            retakes=self.retakes,
            wake=lambda key: None,
            clock=lambda: self.now,
        )

    def seconds(self) -> float:
        return (self.now - START).total_seconds()

    def snapshot(self) -> Objects:
        """Of the cluster as it is now."""
        return {ref: fake_ssa.copied(manifest) for ref, manifest in self.cluster._objects.items()}

    def _hear_all(self, told: Objects) -> None:
        for ref, manifest in told.items():
            if ref.kind in WATCHED:
                self.index.put(ref.kind, manifest)

    def resync(self) -> None:
        """A live LIST of everything, as the operator makes from time to time."""
        for kind in (*WATCHED, HTTP_ROUTE):
            live = {
                ref: fake_ssa.copied(manifest) for ref, manifest in self.cluster._objects.items() if ref.kind is kind
            }
            for manifest in live.values():
                self.index.put(kind, manifest)
            self.index.forget(self.index.refs(kind) - live.keys())

    def answer(self, registry: str, ref: ModelRef) -> Answer | None:
        if ref not in self._answered:
            self._asked.add(ref)
            return None
        found = self.registry.get(ref)
        if isinstance(found, Problem):
            return Answer(problem=found)
        return Answer(version=found) if found else None

    # What a user does.

    def apply(self, **spec: Any) -> None:
        """Create the ModelDeployment, or change top-level fields of its spec (None removes one)."""
        ref = self.ref(MODEL_DEPLOYMENT)
        if ref not in self.cluster._objects:
            spec = {"model": {"name": "detector", "alias": "champion"}} | spec
            metadata = {"name": KEY.name, "namespace": KEY.namespace}
            manifest = {
                "apiVersion": "moorage.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": metadata,
                "spec": spec,
            }
            self.cluster.add(manifest | {"status": {"observedGeneration": -1}})
            return

        def change(manifest: Manifest) -> None:
            merged = manifest["spec"] | spec
            manifest["spec"] = {name: value for name, value in merged.items() if value is not None}

        self.cluster.edit(ref, change)

    def relabel(self, ref: Ref, label: str, value: str | None) -> None:
        """A watch tells of nothing that is not managed by us: to it such an object is gone."""

        def change(manifest: Manifest) -> None:
            labels = {name: other for name, other in manifest["metadata"]["labels"].items() if name != label}
            manifest["metadata"]["labels"] = labels if value is None else labels | {label: value}

        now = self.cluster.edit(ref, change)
        if not names.MANAGED.items() <= now["metadata"]["labels"].items():
            self.index.remove(ref.kind, now)

    def command(self, text: str) -> None:
        """As `kubectl annotate --overwrite` does."""
        annotations = {names.COMMAND: text}
        self.cluster.edit(
            self.ref(MODEL_DEPLOYMENT), lambda manifest: manifest["metadata"].update(annotations=annotations)
        )

    def move_alias(self, version: str) -> None:
        """Where the registry was lost, it is there again."""
        self.champion = version
        named = ModelVersion("detector", version, f"run-{version}", "s3://m", self.signatures.get(version))
        self.registry[ModelRef("detector", alias="champion")] = named

    def evict(self, version: str, *, phase: str = "Failed") -> None:
        """One pod, which leaves a record of itself."""
        name = self._first_pod(version)
        self._set_status(POD, name, evicted() | {"podIP": name, "phase": phase})

    def lose_node(self, version: str) -> None:
        """Of one pod, which is to end and never does: nobody is there who could say that it has."""
        until = f"{self.now + timedelta(seconds=30):%Y-%m-%dT%H:%M:%SZ}"
        name = self._first_pod(version)
        self._set_status(POD, name, loading() | {"podIP": name})
        self.cluster.edit(
            self.ref(POD, name), lambda manifest: manifest["metadata"].update(deletionTimestamp=until), manager="kcm"
        )

    def _first_pod(self, version: str) -> str:
        """Of that model version, or of the router."""
        deployment = routing.NAME if version == "router" else self.revision(version)
        return str(self._pods_of(deployment)[0]["metadata"]["name"])

    def lose_registry(self) -> None:
        self.registry[ModelRef("detector", alias="champion")] = Problem(Reason.REGISTRY_UNREACHABLE, "no answer")

    @property
    def registry_is_lost(self) -> bool:
        return isinstance(self.registry.get(ModelRef("detector", alias="champion")), Problem)

    # What happens.

    async def settle(
        self,
        *,
        rounds: int = 30,
        before_a_pass: Callable[[], None] = lambda: None,
        after_a_pass: Callable[[], None] = lambda: None,
    ) -> None:
        """Let the operator and the controllers act in turn until nothing changes any more."""
        for _ in range(rounds):
            before = self.cluster._revision, self.agents.states, repr(self.meter._rollouts)
            before_a_pass()
            await self.reconcile()
            after_a_pass()
            self.run_controllers()
            if (self.cluster._revision, self.agents.states, repr(self.meter._rollouts)) == before:
                return
        raise AssertionError("the world does not come to rest")

    async def reconcile(self) -> None:
        """One pass, and another one when the registry has answered what the first one asked, or has been told something."""
        if ROUTER.namespace in self.index.router_namespaces:
            self.routers.look(ROUTER.namespace)
            list(self.routers._due(self.routers._clock()))
            await self.routers._ask(ROUTER.namespace)
        for key, rollout in list(self.meter._due()):
            await self.meter._look(key, rollout)
        again = await self.reconciler.reconcile(KEY)
        if self._asked:
            self._answered |= self._asked
            self._asked.clear()
            again = await self.reconciler.reconcile(KEY)
        if self.tellers.work():
            again = await self.reconciler.reconcile(KEY)
        await self._reconcile_router()
        self.again_at = self.now + timedelta(seconds=again) if again is not None else None

    def next_moment(self) -> datetime | None:
        """When the operator looks again by itself, or counts again; None if nothing but an event ever wakes it."""
        moments = [self.again_at] + [self.now + item.wanted.interval for item in self.meter._rollouts.values()]
        return min((moment for moment in moments if moment), default=None)

    async def _reconcile_router(self) -> None:
        """Again, as the queue does it, when something is not as it was known."""
        for _ in range(5):
            with contextlib.suppress(errors.Conflict):
                await self.router_reconciler.reconcile(ROUTER)
                return
        raise AssertionError("the router does not come to rest")

    async def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await self.settle()

    def run_controllers(self) -> None:
        """The autoscaler, the Deployment controller, the scheduler, the kubelet and the garbage collector, once."""
        self.cluster.collect_garbage()
        for autoscaler in self.all(AUTOSCALER):
            self._run_autoscaler(autoscaler["spec"])
        for deployment in self.all(DEPLOYMENT):
            self._run_deployment(deployment)
        self.agents.look()
        self.gateway.run()

    # What a test looks at.

    def ref(self, kind: Kind, name: str = KEY.name) -> Ref:
        return Ref(kind, KEY.namespace, name)

    def all(self, kind: Kind) -> list[Manifest]:
        found = [(ref.name, manifest) for ref, manifest in self.cluster._objects.items() if ref.kind is kind]
        return [fake_ssa.copied(manifest) for _, manifest in sorted(found, key=lambda item: item[0])]

    @property
    def status(self) -> dict[str, Any]:
        return self.all(MODEL_DEPLOYMENT)[0]["status"]  # type: ignore[no-any-return]  # JSON

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, reason)"""
        found = [item for item in self.status["conditions"] if item["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("absent", "")

    def message(self, kind: str) -> str:
        return next(str(item["message"]) for item in self.status["conditions"] if item["type"] == kind)

    def counts(self) -> dict[str, int]:
        """Pods that each model version's Deployment is set to."""
        return {
            item["metadata"]["labels"][names.MODEL_VERSION]: item["spec"]["replicas"]
            for item in self.of_models(DEPLOYMENT)
        }

    def of_models(self, kind: Kind) -> list[Manifest]:
        """All but the router's."""
        return [item for item in self.all(kind) if not _is_of_router(item)]

    def is_left_over(self, pod: str) -> bool:
        return any(is_leftover(item) for item in self.all(POD) if item["metadata"]["name"] == pod)

    def ready_pods(self, revision: str) -> int:
        pods = [pod for pod in self.of_models(POD) if pod["metadata"]["labels"][names.REVISION] == revision]
        return sum(pod.get("status", {}).get("conditions", [{}])[0].get("status") == "True" for pod in pods)

    @property
    def address(self) -> Manifest | None:
        """The one stable Service."""
        return next((item for item in self.all(SERVICE) if item["metadata"]["name"] == KEY.name), None)

    def traffic(self) -> str:
        """The model versions that the address sends requests to, joined by +; the one that it would, where there is no pod."""
        assert self.address
        selected = self.address["spec"]["selector"]
        if selected.get(names.APP_COMPONENT) == names.ROUTER:
            revisions = {revision for shares in self.agents.shares() for revision in shares}
            return "+".join(sorted(self.version(revision) for revision in revisions))
        for items in (self.of_models(POD), self.of_models(DEPLOYMENT)):
            labels = [item["metadata"]["labels"] for item in items]
            found = {str(item[names.MODEL_VERSION]) for item in labels if selected.items() <= item.items()}
            if found:
                return "+".join(sorted(found))
        return ""

    def version(self, revision: str) -> str:
        return next(
            str(i["metadata"]["labels"][names.MODEL_VERSION])
            for i in self.of_models(DEPLOYMENT)
            if i["metadata"]["name"] == revision
        )

    def revision(self, version: str) -> str:
        return next(
            str(i["metadata"]["name"])
            for i in self.of_models(DEPLOYMENT)
            if i["metadata"]["labels"][names.MODEL_VERSION] == version
        )

    def events(self) -> list[str]:
        return [event["reason"] for event in self.all(EVENT)]

    def fights(self) -> bool:
        """Is there a child that the operator does not put back at once any more?"""
        found = self.retakes.contests(KEY, self.now) | self.retakes.contests(ROUTER, self.now)
        return any(contest.is_on for contest in found.values())

    def autoscaler(self, version: str) -> dict[str, Any]:
        spec: dict[str, Any] = next(
            i["spec"] for i in self.all(AUTOSCALER) if i["metadata"]["labels"][names.MODEL_VERSION] == version
        )
        return spec

    # The controllers.

    def _hear(self, happening: str, manifest: Manifest) -> None:
        kind = BY_NAME[manifest["apiVersion"], manifest["kind"]]
        if self.deaf or kind is EVENT:
            return
        if happening == "DELETED":
            self.index.remove(kind, manifest)
        else:
            self.index.put(kind, manifest)

    def _run_autoscaler(self, spec: dict[str, Any]) -> None:
        """Without any load: into its bounds, but never up from 0."""
        ref = self.ref(DEPLOYMENT, spec["scaleTargetRef"]["name"])
        present = next(
            (item["spec"]["replicas"] for item in self.all(DEPLOYMENT) if ref.name == item["metadata"]["name"]), 0
        )
        wanted = min(max(present, spec["minReplicas"]), spec["maxReplicas"])
        if present not in (0, wanted):
            self.cluster.edit(ref, lambda manifest: manifest["spec"].update(replicas=wanted))

    def _run_deployment(self, deployment: Manifest) -> None:
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        template = json.dumps(spec["template"], sort_keys=True)
        pods = self._pods_of(name)
        for pod in pods:
            if pod["spec"]["template"] != template:
                self.cluster.remove(self.ref(POD, pod["metadata"]["name"]))
        pods = [pod for pod in pods if pod["spec"]["template"] == template]
        for pod in pods[spec["replicas"] :]:
            self.cluster.remove(self.ref(POD, pod["metadata"]["name"]))
        for number in range(len(pods), spec["replicas"]):
            self._start_pod(deployment, f"{name}-{self.cluster._revision}-{number}", template)
        self._run_kubelet(name, labels)
        self._report(deployment)

    def _start_pod(self, deployment: Manifest, name: str, template: str) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        owner |= {"name": deployment["metadata"]["name"], "uid": deployment["metadata"]["uid"]}
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        metadata = {"name": name, "namespace": KEY.namespace, "labels": labels, "ownerReferences": [owner]}
        self.cluster.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"template": template}})

    def _run_kubelet(self, deployment: str, labels: dict[str, str]) -> None:
        for pod in self._pods_of(deployment):
            name = pod["metadata"]["name"]
            fate = self.fates.get(labels.get(names.MODEL_VERSION, "router"), ready)()
            if names.MODEL_VERSION in labels and not self._has_place(name):
                fate = no_gpu()
            self._set_status(POD, name, fate | {"podIP": name})

    def _has_place(self, pod: str) -> bool:
        """Who has one keeps it."""
        there = {item["metadata"]["name"] for item in self.all(POD) if not is_leftover(item)}
        self._placed = [name for name in self._placed if name in there]
        if pod not in self._placed and (self.gpus is None or len(self._placed) < self.gpus):
            self._placed.append(pod)
        return pod in self._placed

    def _pods_of(self, deployment: str) -> list[Manifest]:
        """Those that count for a ReplicaSet."""
        pods = [pod for pod in self.all(POD) if pod["metadata"]["ownerReferences"][0]["name"] == deployment]
        return [pod for pod in pods if not is_leftover(pod)]

    def _report(self, deployment: Manifest) -> None:
        name = deployment["metadata"]["name"]
        pods = self._pods_of(name)
        available = sum(pod["status"]["conditions"][0] == {"type": "Ready", "status": "True"} for pod in pods)
        status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": len(pods)}
        status |= {"updatedReplicas": len(pods), "availableReplicas": available, "readyReplicas": available}
        self._set_status(DEPLOYMENT, name, status)

    def _set_status(self, kind: Kind, name: str, status: dict[str, Any]) -> None:
        self.cluster.edit(
            self.ref(kind, name), lambda manifest: manifest.update(status=status), manager="kcm", subresource="status"
        )
