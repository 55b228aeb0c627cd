"""The ModelDeployments of the benchmarks, and the children that the operator makes of one when its pods are not there yet."""

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks import lab, registry
from moorage_operator.core import decide, revisions, spec
from moorage_operator.core.actions import Apply
from moorage_operator.core.kinds import CONTROLLER_REVISION, DEPLOYMENT, MODEL_DEPLOYMENT, SERVICE, Kind, Manifest
from moorage_operator.core.observed import Answer, Observed
from moorage_operator.core.platform import Platform
from moorage_operator.core.registry import ModelVersion

MODELS = 20
"""Registered models that all ModelDeployments share: so many questions to the registry in each interval."""

CHILDREN: dict[Kind, int] = {CONTROLLER_REVISION: 1, DEPLOYMENT: 1, SERVICE: 2}
"""How many children each ModelDeployment gets."""


def model_deployments(count: int) -> list[Manifest]:
    """On fake nodes, as users write them: one pod each, by alias."""
    return [_model_deployment(f"model-{number:04}", f"bench-{number % MODELS}") for number in range(count)]


def _model_deployment(name: str, model: str) -> Manifest:
    fake = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.name,
        "metadata": {"name": name, "namespace": lab.NAMESPACE},
        "spec": {
            "traffic": {"router": "replicas"},  # nothing answers here that a router could send anything to
            "model": {"name": model, "alias": registry.ALIAS},
            "runtime": {"engine": "onnxruntime"},
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "pod": {"nodeSelector": {"type": "kwok"}, "tolerations": [fake]},
        },
    }


def children_of(model_deployment: Manifest, platform: Platform) -> list[Manifest]:
    """By the operator's own core, for a version 1 of the model; `metadata.ownerReferences` lacks the uid."""
    metadata = model_deployment["metadata"]
    wanted = spec.parse(model_deployment)
    version = ModelVersion(wanted.model.name, "1", "", f"s3://bench/{wanted.model.name}")
    observed = Observed(
        owner=revisions.Owner(metadata["namespace"], metadata["name"], ""), generation=1, answer=Answer(version)
    )
    decision = decide.decide(wanted, observed, platform, datetime.now(UTC).replace(microsecond=0))
    return [action.manifest for action in decision.actions if isinstance(action, Apply)]
