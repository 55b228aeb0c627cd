"""Fights over a child: it is put back at once a few times, then only now and then, and told, until whoever else writes it stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from moorage_operator.core import compare, names
from moorage_operator.core.kinds import Manifest, Ref

AT_ONCE = 3
"""So often a child is put back at once; the next time within WINDOW it is a fight."""
WINDOW = timedelta(minutes=10)
PAUSE = timedelta(minutes=2)
"""Between two attempts to put it back while there is a fight: more than AT_ONCE of them fall into every WINDOW, so that none seems over
before it is."""


@dataclass(frozen=True)
class Rival:
    """Who else writes a child, as far as the API server tells: none of those who delete it, or change it as it is admitted."""

    managers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contest:
    """What a pass sees of a child that was put back often."""

    digest: str
    """Of what it was made to be last: something else is applied at once, whoever fights."""
    is_on: bool
    waits: bool
    moments: tuple[datetime, ...]
    """When that may change by the clock alone."""
    rival: Rival = Rival()

    def leaves(self, desired: Manifest) -> bool:
        """Is the child left as others have it for now, though this is wanted?"""
        return self.waits and compare.applied_hash(desired) == self.digest

    @property
    def is_about_the_spec(self) -> bool:
        return any(name.split(".")[0] == "spec" for name in self.rival.fields)

    def words(self, ref: Ref) -> str:
        fields, by = ", ".join(self.rival.fields), " and ".join(self.rival.managers)
        what = f" ({fields}, by {by})" if fields else ""
        minutes, window = (int(span.total_seconds() // 60) for span in (PAUSE, WINDOW))
        return (
            f"the {ref.kind.name} {ref.name} was changed or deleted by others more than {AT_ONCE} times in {window} minutes{what}: "
            f"until that stops, a change is put back every {minutes} minutes only"
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What a child was made to be last, and when it had to be made so again since."""

    digest: str
    times: tuple[datetime, ...] = ()
    rival: Rival = Rival()

    def again(self, now: datetime, rival: Rival | None = None) -> Taken:
        times = (*self.seen_at(now).times, now)[-AT_ONCE - 1 :]
        return replace(self, times=times, rival=rival or self.rival)

    def seen_at(self, now: datetime) -> Taken:
        """Without what is long ago, or yet to come: the clock was put back."""
        times = tuple(time for time in self.times if now - WINDOW < time <= now)
        return self if times == self.times else replace(self, times=times, rival=Rival())

    def contest(self, now: datetime) -> Contest | None:
        """None as long as it is put back like any other."""
        seen = self.seen_at(now)
        if len(seen.times) < AT_ONCE:
            return None
        is_on = len(seen.times) > AT_ONCE
        pause_ends, ends = seen.times[-1] + PAUSE, seen.times[0] + WINDOW
        return Contest(seen.digest, is_on, not is_on or now < pause_ends, (pause_ends, ends), seen.rival)


def rival_in(live: Manifest, desired: Manifest) -> Rival:
    """Which field managers hold what of `live` is not as desired.

    Reads `metadata.managedFields` (FieldsV1); https://kubernetes.io/docs/reference/using-api/server-side-apply/
    """
    found = {
        (entry["manager"], field)
        for entry in live["metadata"].get("managedFields", [])
        if entry["manager"] != names.FIELD_MANAGER and not entry.get("subresource")
        for field in _taken(entry.get("fieldsV1", {}), desired, live)
    }
    managers, fields = ({item[place] for item in found} for place in (0, 1))
    return Rival(tuple(sorted(managers)), tuple(sorted(fields)))


def _taken(fields: dict[str, Any], desired: Any, live: Any, path: str = "", key: str = "") -> Iterator[str]:
    """Paths down to the lists, whose elements no path of ours names."""
    inner = fields.keys() - {"."}
    is_map = isinstance(desired, dict) and isinstance(live, dict) and all(name.startswith("f:") for name in inner)
    if inner and is_map:
        for name in (name[2:] for name in inner if name[2:] in desired):
            yield from _taken(fields[f"f:{name}"], desired[name], live.get(name), f"{path}.{name}".lstrip("."), name)
    elif not compare.holds(desired, live, key=key, quantity=True):
        yield path
