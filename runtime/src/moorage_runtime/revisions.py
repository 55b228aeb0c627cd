"""Names of revisions: which are of the same ModelDeployment as this pod. Whoever names a revision in a request names an address,
so only names that the operator would give, for this very deployment, are ever resolved or counted."""

from __future__ import annotations

import re

_NAME = re.compile(r"(?P<deployment>[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?)-(?:v[a-z0-9]{1,12}|set)-[0-9a-f]{8}")


def deployment_of(revision: str) -> str:
    """`fraud` of `fraud-v8-99aa77ee` and of `fraud-set-99aa77ee`; empty for what is no revision's name."""
    found = _NAME.fullmatch(revision)
    return found["deployment"] if found else ""


def is_sibling(revision: str, own: str) -> bool:
    """True for every revision of the deployment that `own` is one of, itself included."""
    return bool(own) and (revision == own or deployment_of(revision) == deployment_of(own) != "")
