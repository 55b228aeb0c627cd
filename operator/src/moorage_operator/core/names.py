"""Every name and label key, in one place."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

GROUP = "moorage.dev"

MANAGED_BY = "app.kubernetes.io/managed-by"
APP_NAME = "app.kubernetes.io/name"
APP_INSTANCE = "app.kubernetes.io/instance"
APP_COMPONENT = "app.kubernetes.io/component"
DEPLOYMENT = "moorage.dev/deployment"
REVISION = "moorage.dev/revision"
MODEL_VERSION = "moorage.dev/model-version"
TRACK = "moorage.dev/track"
APPLIED_HASH = "moorage.dev/applied-hash"

COMMAND = "moorage.dev/command"
"""Annotation of a ModelDeployment by which a person takes part in its rollout (`commands`)."""

OPERATOR = "moorage"
"""Value of `app.kubernetes.io/managed-by` on every child."""

ROUTER = "router"
"""Value of `app.kubernetes.io/component` on all that belongs to a namespace's router."""

OF_ROUTER = {APP_COMPONENT: ROUTER}
"""Selects what belongs to a namespace's router."""

FIELD_MANAGER = "moorage"
"""Owner of all fields that the operator sets by server-side apply."""

REPLICAS_MANAGER = "moorage-replicas"
"""Owner of `spec.replicas` of a Deployment while it is handed over to an autoscaler."""

MANAGED = {MANAGED_BY: OPERATOR}
"""Selects all children, and pods of children."""


@dataclass(frozen=True, order=True)
class Key:
    """Which ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, order=True)
class RouterKey:
    """Whose router: that of a namespace."""

    namespace: str

    def __str__(self) -> str:
        return f"router of {self.namespace}"


def revision_name(deployment: str, model_version: str, digest: str) -> str:
    """`<deployment>-v<modelversion>-<hash8>`: the name of a revision and of its children, at most 63 characters.

    `digest` is a hex string of at least 8 characters over all that makes the revision.
    """
    version = re.sub(r"[^a-z0-9]+", "-", model_version.lower()).strip("-")[:12]
    return f"{deployment}-v{version}-{digest[:8]}"


def preview(deployment: str) -> str:
    """The Service of a blue-green rollout's new version."""
    return f"{deployment}-preview"


def command(deployment: str, text: str) -> str:
    """What a person types to tell a rollout something."""
    return f"kubectl annotate --overwrite mdep {deployment} {COMMAND}={text}"


def event_name(deployment: str, *identity: str) -> str:
    """A name that the same happening always gets, so that an event is written once."""
    return f"{deployment}.{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:16]}"
