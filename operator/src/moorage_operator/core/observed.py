"""The world as one pass sees it: all reads end here, and nothing is read later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage_operator.core import names, revisions
from moorage_operator.core.contests import Contest
from moorage_operator.core.counted import Sample
from moorage_operator.core.kinds import CONTROLLER_REVISION, DEPLOYMENT, Kind, Manifest, Ref
from moorage_operator.core.notices import Errand, Report
from moorage_operator.core.reasons import Problem
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.core.routing import RouterView


@dataclass(frozen=True)
class Answer:
    """What the registry said last. Both are set when it can't be reached now, but had answered before."""

    version: ModelVersion | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Observed:
    """One ModelDeployment and all that belongs to it. `taken` are names of wanted children that others hold."""

    owner: revisions.Owner
    generation: int
    resource_version: str = ""
    status: Manifest = field(default_factory=dict)
    command: str = ""
    """The annotation by which a person tells the rollout something."""
    router: RouterView = field(default_factory=RouterView)
    """The namespace's router, as far as this ModelDeployment goes."""
    answer: Answer | None = None
    answers: Mapping[ModelRef, Answer] = field(default_factory=dict)
    """About the models of the arms, as far as there are any."""
    sample: Sample | None = None
    """What routers and runtimes have counted since the last look, if a rollout is judged by it."""
    reports: Mapping[Errand, Report] = field(default_factory=dict)
    """What has come of the errands to registries."""
    children: Mapping[Ref, Manifest] = field(default_factory=dict)
    pods: tuple[Manifest, ...] = ()
    taken: Mapping[Ref, str] = field(default_factory=dict)
    contests: Mapping[Ref, Contest] = field(default_factory=dict)
    """Children, of the router too, that had to be put back often."""
    refused: Mapping[Ref, str] = field(default_factory=dict)
    """Children that the API server refused in the last pass, with its words."""

    def child(self, kind: Kind, name: str) -> Manifest | None:
        return self.children.get(self.ref(kind, name))

    def ref(self, kind: Kind, name: str) -> Ref:
        return Ref(kind, self.owner.namespace, name)

    def pods_of(self, revision: str) -> tuple[Manifest, ...]:
        """Pods of a revision that are not on their way out."""
        return tuple(
            pod
            for pod in self.pods
            if pod["metadata"]["labels"].get(names.REVISION) == revision
            and not pod["metadata"].get("deletionTimestamp")
        )

    def replicas(self, revision: str) -> int:
        """The count that the revision's Deployment is set to; 0 without one."""
        deployment = self.child(DEPLOYMENT, revision)
        return int(deployment["spec"].get("replicas", 1)) if deployment else 0

    def frozen_revisions(self) -> dict[str, revisions.Revision]:
        """All revisions with a ControllerRevision, by name."""
        stored = (child for ref, child in self.children.items() if ref.kind is CONTROLLER_REVISION)
        found = (revisions.read(child) for child in stored)
        return {revision.name: revision for revision in found}
