"""What a container needs of its node, as typed, frozen values of a spec."""

from __future__ import annotations

from moorage_operator.core.struct import Struct

Quantity = str | int


class Resources(Struct, frozen=True):
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}

    @property
    def asks_for_gpu(self) -> bool:
        return any(name.startswith("nvidia.com/") for name in self.limits)
