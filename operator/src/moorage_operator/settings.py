"""The operator's settings: one YAML file, which the chart renders (docs/operations.md), and two facts about its own pod."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

import msgspec

from moorage_operator.core.platform import Platform, Policy, RegistryEndpoint, RouterSettings

CONFIG_VARIABLE = "MOORAGE_CONFIG"
DEFAULT_CONFIG = Path("/etc/moorage/config.yaml")


class _Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A section of the file: a misspelt key is an error, not a default."""


class Images(_Section, frozen=True):
    runtime: str
    runtime_gpu: str = msgspec.field(name="runtimeGPU")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class RouterSection(_Section, frozen=True):
    """The routers: HAProxy and an agent, a Deployment in each namespace that has a ModelDeployment behind one."""

    image: str
    replicas: int = 2
    resources: dict[str, dict[str, str]] = {}
    agent_resources: dict[str, dict[str, str]] = {}
    image_pull_secrets: tuple[dict[str, str], ...] = ()
    termination_grace_period_seconds: int = 100
    priority_class_name: str = ""
    cluster_role: str = ""


class AccessSettings(_Section, frozen=True):
    """`credentials_directory` is a mounted Secret with the keys username and password, or token."""

    credentials_directory: str = ""
    ca_bundle: str = ""


class PrometheusSettings(AccessSettings, frozen=True):
    """Where guards with a query of their own ask."""

    url: str = ""


class RegistrySettings(AccessSettings, frozen=True, kw_only=True):
    name: str
    tracking_uri: str = msgspec.field(name="trackingURI")
    read_only: bool = False

    @property
    def endpoint(self) -> RegistryEndpoint:
        return RegistryEndpoint(self.tracking_uri, self.ca_bundle, self.read_only)


class PolicySettings(_Section, frozen=True):
    images: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ("*",)
    secrets: tuple[str, ...] = ("*",)
    allow_pickle: Literal["never", "perModel"] = "perModel"


class Settings(_Section, frozen=True):
    """The whole file. Durations are seconds."""

    images: Images
    router: RouterSection
    registries: tuple[RegistrySettings, ...] = ()
    policy: PolicySettings = PolicySettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    fetch_resources: dict[str, dict[str, str]] = {}
    drain_seconds: int = 5
    termination_grace_period_seconds: int = 60
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty means all."""
    leader_election: bool = True
    workers: int = 8
    writes_per_second: float = 500
    resync_seconds: float = 300
    registry_poll_seconds: float = 5
    port: int = 8080
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def router_settings(self) -> RouterSettings:
        """How the core makes routers."""
        return RouterSettings(**msgspec.structs.asdict(self.router), image_pull_policy=self.images.pull_policy)

    def platform(self) -> Platform:
        """The part that the pure core sees."""
        return Platform(
            image=self.images.runtime,
            gpu_image=self.images.runtime_gpu,
            image_pull_policy=self.images.pull_policy,
            registries={item.name: item.endpoint for item in self.registries},
            policy=Policy(**msgspec.structs.asdict(self.policy)),
            fetch_resources=self.fetch_resources,
            drain_seconds=self.drain_seconds,
            termination_grace_period_seconds=self.termination_grace_period_seconds,
        )


def load() -> Settings:
    """Settings from the file that MOORAGE_CONFIG names; `SystemExit` with one clear line where it can't be used."""
    path = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Settings)
    except OSError as error:
        raise SystemExit(f"moorage-operator: can't read {path}: {error.strerror}; set {CONFIG_VARIABLE}") from error
    except msgspec.DecodeError as error:
        raise SystemExit(f"moorage-operator: {path} is wrong: {error}") from error


def pod_name() -> str:
    """This process's name among its replicas, as the Lease shows it."""
    return os.environ.get("POD_NAME") or socket.gethostname()


def pod_namespace() -> str:
    """Where the Lease is: the operator's own namespace."""
    return os.environ.get("POD_NAMESPACE") or "default"
