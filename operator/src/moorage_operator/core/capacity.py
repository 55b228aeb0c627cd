"""What is remembered of a canary that found no room, as `status.capacity` has it. `no_capacity` decides by it."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Capacity(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Nothing of it is set where there was room."""

    short_since: datetime | None = None
    """When its pods were first found without room; after stable has given up a pod, when that was."""
    lent_by_stable: int = 0
    """Pods that stable has given up for it."""
    stable_ended: bool = False
    """All of stable's pods end first, as with strategy `recreate`."""
