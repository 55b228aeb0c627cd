"""What a revision was made of, as its first pod found it: digest and signature. Kept in a ConfigMap, so that it outlives the pods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from moorage_operator.core import checks, pods, signatures
from moorage_operator.core.kinds import CONFIG_MAP, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.signatures import Signature
from moorage_operator.core.state import Role, State

T = TypeVar("T")


@dataclass(frozen=True)
class Pin:
    """`signature` is None of a revision whose runtime did not tell it."""

    digest: str
    signature: Signature | None = None

    def data(self) -> dict[str, str]:
        """Of the ConfigMap that every later pod reads."""
        told = {pods.SIGNATURE_KEY: signatures.encode(self.signature)} if self.signature else {}
        return {pods.DIGEST_KEY: self.digest} | told


def pinned(observed: Observed, state: State) -> dict[str, Pin]:
    """By revision: as pinned before (in status, then in the ConfigMap, which more people may write), else what its pods agree to report."""
    found = {role.revision: of(observed, role) for role in state.roles}
    return {revision: pin for revision, pin in found.items() if pin.digest}


def of(observed: Observed, role: Role) -> Pin:
    """The digest is empty until it is known."""
    pin = (observed.child(CONFIG_MAP, role.revision) or {}).get("data", {})
    of_revision = observed.pods_of(role.revision)
    digest = role.digest or pin.get(pods.DIGEST_KEY, "") or _only(reported_digests(of_revision)) or ""
    signature = signatures.decode(pin.get(pods.SIGNATURE_KEY, "")) or _only(_reported_signatures(of_revision))
    return Pin(digest, signature)


def reported_digests(of_revision: Iterable[Manifest]) -> set[str]:
    """SHA-256 digests ("sha256:…") of what the pods' fetch containers got."""
    digests = {str(words.get("digest", "")) for words in checks.fetched(of_revision)}
    return {digest for digest in digests if digest.startswith("sha256:") and len(digest) == len("sha256:") + 64}


def _reported_signatures(of_revision: Iterable[Manifest]) -> set[Signature]:
    found = (signatures.reported(words) for words in checks.fetched(of_revision))
    return {signature for signature in found if signature}


def _only(found: set[T]) -> T | None:
    return next(iter(found)) if len(found) == 1 else None
