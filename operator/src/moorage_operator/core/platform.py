"""What the platform team set in the chart: images, registries, policy. The same for all ModelDeployments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from moorage_operator.core.spec import Spec


@dataclass(frozen=True)
class RegistryEndpoint:
    """A declared MLflow registry, as pods see it. `ca_bundle` is PEM text or empty; a `read_only` one is told nothing."""

    tracking_uri: str
    ca_bundle: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class Policy:
    """What a ModelDeployment may ask for; each list holds shell-style globs, an empty one allows nothing."""

    images: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ("*",)
    secrets: tuple[str, ...] = ("*",)
    allow_pickle: Literal["never", "perModel"] = "perModel"

    def refusal(self, spec: Spec) -> str:
        """Why this spec is not allowed, in a sentence, or empty."""
        if spec.runtime.allow_pickle and self.allow_pickle == "never":
            return (
                "spec.runtime.allowPickle is not allowed here (policy.allowPickle: never): "
                "log the model as ONNX or as an exported PyTorch program"
            )
        if spec.runtime.image and not _matches(spec.runtime.image, self.images):
            return f"the image {spec.runtime.image} is not allowed here: leave spec.runtime.image empty, or ask for it in policy.images"
        account = spec.pod.service_account_name
        if account and not _matches(account, self.service_accounts):
            return f"the ServiceAccount {account} is not allowed here: ask for it in policy.serviceAccounts"
        refused = [name for name in secrets_of(spec) if not _matches(name, self.secrets)]
        return f"the Secret {refused[0]} is not allowed here: ask for it in policy.secrets" if refused else ""


@dataclass(frozen=True)
class RouterSettings:
    """How the routers are run. Their image is a value of its own: an upgrade of the operator need not restart them."""

    image: str
    replicas: int = 2
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[Mapping[str, str], ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    agent_resources: Mapping[str, Any] = field(default_factory=dict)
    termination_grace_period_seconds: int = 100
    priority_class_name: str = ""
    cluster_role: str = ""
    """What the operator binds to each router's ServiceAccount; empty where the chart has made the bindings."""


@dataclass(frozen=True)
class Platform:
    """The chart's settings that shape pods. `image` runs on CPUs, `gpu_image` has PyTorch and the GPU libraries."""

    image: str
    gpu_image: str
    image_pull_policy: str = "IfNotPresent"
    registries: Mapping[str, RegistryEndpoint] = field(default_factory=dict)
    policy: Policy = Policy()
    fetch_resources: Mapping[str, Any] = field(default_factory=dict)
    drain_seconds: int = 5
    termination_grace_period_seconds: int = 60


def secrets_of(spec: Spec) -> list[str]:
    """Names of all Secrets that the pods of this spec would read."""
    names = [spec.model.registry.credentials_secret]
    names += [secret["name"] for secret in spec.pod.image_pull_secrets]
    for variable in spec.runtime.env:
        if variable.value_from and variable.value_from.secret_key_ref:
            names.append(variable.value_from.secret_key_ref.name)
    return [name for name in names if name]


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
