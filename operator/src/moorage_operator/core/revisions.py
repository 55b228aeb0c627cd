"""A revision: what the user wants of the pods, together with one resolved model version; its name, and its frozen template."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from moorage_operator.core import names, pods
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, Manifest
from moorage_operator.core.platform import Platform
from moorage_operator.core.registry import ModelVersion
from moorage_operator.core.spec import Spec, without_defaults


@dataclass(frozen=True)
class Owner:
    """The ModelDeployment that its children belong to."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def does_not_own(self, child: Manifest) -> str:
        """Why an object that has a child's name is not ours, in words that follow "it exists and …"; empty if it is.

        Without any controller it is ours only if we applied it and it is labelled so: its owner reference was removed by hand, or
        by `kubectl delete --cascade=orphan`.
        """
        metadata, controller = child["metadata"], controller_of(child)
        if not controller:
            labels = metadata.get("labels") or {}
            applied = names.APPLIED_HASH in (metadata.get("annotations") or {})
            is_ours = applied and labels.get(names.DEPLOYMENT) == self.name and names.MANAGED.items() <= labels.items()
            return "" if is_ours else "was not made by Moorage"
        if controller["uid"] == self.uid:
            return ""
        return f"belongs to {controller['kind']} {controller['name']} (uid {controller['uid']})"

    def reference(self) -> Manifest:
        return {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.name,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def controller_of(manifest: Manifest) -> Manifest:
    """The owner reference of what controls an object; empty if nothing does."""
    references = manifest["metadata"].get("ownerReferences") or []
    return next((item for item in references if item.get("controller")), {})


@dataclass(frozen=True)
class Revision:
    """A frozen revision. `number` orders revisions by when they were made; `template` is the pod template."""

    name: str
    number: int
    model: ModelVersion
    template: Manifest
    min_ready_seconds: int

    def data(self) -> Manifest:
        """Content of its ControllerRevision."""
        model = {
            "name": self.model.name,
            "version": self.model.version,
            "runID": self.model.run_id,
            "source": self.model.source,
        }
        return {"model": model, "minReadySeconds": self.min_ready_seconds, "template": self.template}


def identity(spec: Spec, model: ModelVersion) -> str:
    """SHA-256, in hex, over all that makes a revision: the user's intent for the pods and the resolved version.

    Replicas, autoscaling, service and rollout are not in it, and neither is the alias by which the version was found.
    """
    content = {
        "model": {"name": model.name, "version": model.version, "registry": without_defaults(spec.model.registry)},
        "runtime": without_defaults(spec.runtime),
        "resources": without_defaults(spec.resources),
        "pod": without_defaults(spec.pod),
        "minReadySeconds": spec.min_ready_seconds or None,
        "restartAt": spec.restart_at or None,
    }
    present = {name: value for name, value in content.items() if value}
    return hashlib.sha256(msgspec.json.encode(present, order="sorted")).hexdigest()


def name_of(owner: Owner, spec: Spec, model: ModelVersion) -> str:
    return names.revision_name(owner.name, model.version, identity(spec, model))


def make(owner: Owner, spec: Spec, model: ModelVersion, *, number: int, platform: Platform) -> Revision:
    """A new revision, rendered with the platform's present defaults."""
    name = name_of(owner, spec, model)
    template = pods.make_template(spec, model, deployment=owner.name, revision=name, platform=platform)
    return Revision(name, number, model, template, spec.min_ready_seconds)


def chosen(
    owner: Owner, spec: Spec, model: ModelVersion, *, known: dict[str, Revision], platform: Platform
) -> Revision:
    """For spec and version: the frozen one if it was made before, else a new one with today's defaults."""
    found = known.get(name_of(owner, spec, model))
    return found or make(owner, spec, model, number=next_number(known), platform=platform)


def next_number(known: dict[str, Revision]) -> int:
    return max((revision.number for revision in known.values()), default=0) + 1


def read(controller_revision: Manifest) -> Revision:
    """The revision that a stored ControllerRevision holds."""
    data: dict[str, Any] = controller_revision["data"]
    model = data["model"]
    version = ModelVersion(model["name"], model["version"], model.get("runID", ""), model.get("source", ""))
    name = controller_revision["metadata"]["name"]
    return Revision(name, controller_revision["revision"], version, data["template"], data["minReadySeconds"])


def from_deployment(deployment: Manifest, model: ModelVersion, *, number: int) -> Revision:
    """The revision that a live Deployment runs: for when its ControllerRevision was deleted by hand."""
    spec = deployment["spec"]
    name = deployment["metadata"]["name"]
    return Revision(name, number, model, spec["template"], spec.get("minReadySeconds", 0))
