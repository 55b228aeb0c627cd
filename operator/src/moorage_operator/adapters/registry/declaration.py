"""One registry as the chart declares it."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_operator import errors
from moorage_operator.adapters import access


@dataclass(frozen=True)
class RegistryDeclaration:
    """Where one registry is and how to talk to it; `ValueError`, with a sentence for the chart's user, if that can't be."""

    name: str
    tracking_uri: str
    how: access.Access = access.OPEN

    def __post_init__(self) -> None:
        problem = access.address_problem(self.tracking_uri)
        if problem:
            raise ValueError(f"registry '{self.name}': trackingURI {problem}")

    def credentials(self) -> access.Credentials:
        """As they are now; `RegistryUnauthorized` if there are none to use."""
        try:
            return self.how.credentials()
        except access.IncompleteSecret as error:
            raise errors.RegistryUnauthorized(f"registry '{self.name}': {error}") from error
