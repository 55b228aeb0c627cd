"""What it takes to make one live object be as it should be: no write at all, if it is."""

from __future__ import annotations

from collections.abc import Iterator

from moorage_operator.core import compare
from moorage_operator.core.actions import Action, Apply, Delete, Leave, RestoreTemplate
from moorage_operator.core.kinds import AUTOSCALER, DEPLOYMENT, DISRUPTION_BUDGET, Kind, Manifest, ref_of
from moorage_operator.core.observed import Observed


def hold(observed: Observed, manifest: Manifest) -> Iterator[Action]:
    """Make the live object hold this manifest. A name that somebody else has is left alone, and now and then what somebody fights over;
    what is not there at all is made at once."""
    ref = ref_of(manifest)
    if ref in observed.taken:
        return
    desired = compare.with_hash(manifest)
    live = observed.children.get(ref)
    if live is None:
        yield Apply(desired)
        return
    contest = observed.contests.get(ref)
    for action in _repairs(desired, live):
        yield Leave(desired) if contest and contest.leaves(desired) else action


def _repairs(desired: Manifest, live: Manifest) -> Iterator[Action]:
    if not compare.holds(desired, live):
        yield Apply(desired, uid=live["metadata"]["uid"])
    elif ref_of(desired).kind is DEPLOYMENT and compare.has_foreign_template_fields(live):
        yield RestoreTemplate(live["spec"]["template"], desired)


def delete(observed: Observed, kind: Kind, name: str) -> Iterator[Action]:
    live = observed.child(kind, name)
    if live and not live["metadata"].get("deletionTimestamp"):
        yield deletion(live)


def deletion(live: Manifest) -> Delete:
    """Of just this object, as it is now; whatever its status is by then, where a controller writes that as often as pods come and go."""
    ref, metadata = ref_of(live), live["metadata"]
    version = "" if ref.kind in (AUTOSCALER, DISRUPTION_BUDGET) else metadata["resourceVersion"]
    return Delete(ref, uid=metadata["uid"], resource_version=version)
