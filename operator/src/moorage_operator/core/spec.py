"""`spec` of a ModelDeployment as typed, frozen values. Field names and defaults equal the CRD's; a contract test holds them to it.

The API server has already checked types, bounds and rules, and has filled in defaults. Nothing here checks again.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import msgspec

from moorage_operator.core import quantities
from moorage_operator.core.arms import Arm, Experiment
from moorage_operator.core.needs import Resources
from moorage_operator.core.registry import ModelRef
from moorage_operator.core.strategy import Rollout
from moorage_operator.core.struct import Struct


class RegistryChoice(Struct, frozen=True):
    name: str = "default"
    credentials_secret: str = ""


class Model(Struct, frozen=True):
    name: str
    alias: str = ""
    version: str = ""
    registry: RegistryChoice = RegistryChoice()

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.name, self.alias, self.version)


class KeyRef(Struct, frozen=True):
    name: str
    key: str
    optional: bool | None = None


class ValueFrom(Struct, frozen=True):
    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(Struct, frozen=True):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class Runtime(Struct, frozen=True):
    engine: Literal["auto", "onnxruntime", "torch", "pyfunc"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    image: str = ""
    allow_pickle: bool = False
    env: tuple[EnvVar, ...] = ()


class Autoscaling(Struct, frozen=True):
    max_replicas: int
    min_replicas: int = 1
    target_cpu_utilization: int | None = msgspec.field(name="targetCPUUtilization", default=None)
    target_memory_utilization: int | None = None
    metrics: tuple[dict[str, Any], ...] = ()
    behavior: dict[str, Any] | None = None


class Pod(Struct, frozen=True):
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    runtime_class_name: str = ""
    priority_class_name: str = ""
    service_account_name: str = ""
    image_pull_secrets: tuple[dict[str, str], ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Service(Struct, frozen=True):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: int = 80
    grpc_port: int = 8081
    annotations: dict[str, str] = {}


class Stickiness(Struct, frozen=True):
    """At most one of them."""

    header: str = ""
    cookie: str = ""

    @property
    def is_set(self) -> bool:
        return bool(self.header or self.cookie)


class ParentRef(Struct, frozen=True):
    """A Gateway, or one of its listeners; without a namespace one in the ModelDeployment's own."""

    name: str
    namespace: str = ""
    section_name: str = ""
    port: int | None = None


class Gateway(Struct, frozen=True):
    """Where the address is published; nowhere without `parent_refs`."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()


BY_HAPROXY = ("auto", "haproxy")
"""Values of `traffic.router`."""


class Traffic(Struct, frozen=True):
    router: Literal["auto", "haproxy", "gateway", "replicas"] = "auto"
    gateway: Gateway = Gateway()
    stickiness: Stickiness = Stickiness()

    @property
    def by_haproxy(self) -> bool:
        """A router of ours in the namespace divides the requests."""
        return self.router in BY_HAPROXY

    @property
    def by_gateway(self) -> bool:
        """A Gateway of the platform's divides the requests."""
        return self.router == "gateway"

    @property
    def is_published(self) -> bool:
        """Does a Gateway of the platform's send requests to it, whoever divides them?"""
        return bool(self.gateway.parent_refs)

    @property
    def shows_weights_by_pods(self) -> bool:
        """One Service over the pods of two revisions: a weight is what their numbers show."""
        return self.router == "replicas"


class Spec(Struct, frozen=True):
    model: Model
    runtime: Runtime = Runtime()
    resources: Resources = Resources()
    replicas: int | None = None
    autoscaling: Autoscaling | None = None
    pod: Pod = Pod()
    min_ready_seconds: int = 0
    service: Service = Service()
    traffic: Traffic = Traffic()
    rollout: Rollout = Rollout()
    experiment: Experiment | None = None
    restart_at: str = ""
    suspend: bool = False
    revision_history_limit: int = 3

    @property
    def fixed_replicas(self) -> int:
        """How many pods a revision has when no autoscaler owns the number."""
        return 1 if self.replicas is None else self.replicas

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Of the experiment; none where no router could tell their requests apart."""
        return self.experiment.arms if self.experiment and self.traffic.by_haproxy else ()

    def ref_of(self, arm: Arm) -> ModelRef:
        return ModelRef(self.model.name, arm.model.alias, arm.model.version)

    def of_arm(self, arm: Arm) -> Spec:
        """What the pods of an arm are made by."""
        return self if arm.resources is None else msgspec.structs.replace(self, resources=arm.resources)


def parse(manifest: dict[str, Any]) -> Spec:
    """Spec of a ModelDeployment's manifest; `msgspec.ValidationError` names the field if the CRD is not the one we know."""
    return msgspec.convert(manifest.get("spec", {}), Spec)


def references(manifest: dict[str, Any]) -> tuple[str, list[ModelRef]]:
    """The registry, and all that it is asked; read without the rest of the spec, for a thousand ModelDeployments at a time."""
    wanted = msgspec.convert(manifest["spec"], _References)
    name = wanted.model.name
    arms = wanted.experiment.arms if wanted.experiment else ()
    return wanted.model.registry.name, [
        wanted.model.ref,
        *(ModelRef(name, arm.model.alias, arm.model.version) for arm in arms),
    ]


class _References(Struct, frozen=True):
    model: Model
    experiment: Experiment | None = None


def without_defaults(value: Any) -> Any:
    """A part of the spec as plain JSON, with every value left out that equals its default, quantities in canonical form.

    So a field that a later version adds with a default changes nothing, nor does writing a default out.
    """
    if isinstance(value, Resources):
        parts = {"limits": quantities.canonical_map(value.limits), "requests": quantities.canonical_map(value.requests)}
        return {name: part for name, part in parts.items() if part}
    if isinstance(value, msgspec.Struct):
        return _struct_without_defaults(value)
    if isinstance(value, tuple):
        return [without_defaults(item) for item in value]
    return value


def _struct_without_defaults(value: msgspec.Struct) -> dict[str, Any]:
    present = [(key, getattr(value, name), default) for name, key, default in _fields(type(value))]
    return {key: without_defaults(item) for key, item, default in present if item != default}


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Name, name in JSON, and default; msgspec works them out anew at each call, 1 ms for a spec."""
    return tuple(
        (
            item.name,
            item.encode_name,
            item.default if item.default_factory is msgspec.NODEFAULT else item.default_factory(),
        )
        for item in msgspec.structs.fields(struct)
    )
