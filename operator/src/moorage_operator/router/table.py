"""`router.json`: what the operator wants of the router, read strictly. Pure.

The document comes from a ConfigMap that others may have edited, and parts of it become HAProxy's configuration: whatever is
not exactly as expected is refused whole, with one sentence, and the router goes on with the last good one.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec

from moorage_operator import errors

BUCKETS = 10_000
"""Weights are parts of this."""

RESERVED_ARMS = ("stable", "canary", "fallback")
MATCH_SUFFIX = "-match"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
ArmName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
Salt = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{1,64}\Z")]
Token = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,126})?\Z")]
"""A header's or a cookie's name: fewer characters than HTTP has, none that HAProxy's configuration gives a meaning."""
Value = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}\Z")]
Weight = Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)]
Port = Annotated[int, msgspec.Meta(ge=1024, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A part of the document."""


class Stickiness(_Part, frozen=True):
    """Whose value decides: a header's or a cookie's."""

    header: Token = ""
    cookie: Token = ""


class Condition(_Part, frozen=True):
    """A header or a cookie that has exactly this value."""

    value: Value
    header: Token = ""
    cookie: Token = ""


class Match(_Part, frozen=True):
    """Requests that go to an arm whatever the weights say."""

    name: str
    arm: ArmName
    value: Value
    header: Token = ""
    cookie: Token = ""

    @property
    def condition(self) -> Condition:
        return Condition(value=self.value, header=self.header, cookie=self.cookie)


class Canary(_Part, frozen=True):
    revision: Name
    weight: Weight
    salt: Salt


class Arm(_Part, frozen=True):
    name: ArmName
    revision: Name
    weight: Weight
    match: Condition | None = None


class Shadow(_Part, frozen=True):
    revision: Name
    percent: Percent

    @property
    def weight(self) -> int:
        return round(self.percent * BUCKETS / 100)


class Model(_Part, frozen=True):
    """One ModelDeployment behind the router."""

    port: Port
    stable: Name
    timeout_seconds: Seconds
    salt: Salt | None = None
    stickiness: Stickiness | None = None
    canary: Canary | None = None
    matches: tuple[Match, ...] = ()
    arms: tuple[Arm, ...] = ()
    shadow: Shadow | None = None

    def conditions(self) -> list[tuple[str, Condition]]:
        """(arm, condition) of all matches; the first that holds decides."""
        own = [(arm.name, arm.match) for arm in self.arms if arm.match]
        return [*((match.arm, match.condition) for match in self.matches), *own]


class Table(_Part, frozen=True):
    models: dict[Name, Model] = {}


def parse(document: str, *, taken_ports: frozenset[int] = frozenset()) -> Table:
    """The table, or `TableRefused`. `taken_ports` are those of the router itself."""
    try:
        table = msgspec.json.decode(document, type=Table)
    except msgspec.MsgspecError as error:
        raise errors.TableRefused(f"router.json: {error}") from error
    problems = [f"{name}: {problem}" for name, model in table.models.items() for problem in _problems(model)]
    if problems := [*_port_problems(table, taken_ports), *problems]:
        raise errors.TableRefused(f"router.json: {'; '.join(problems)}")
    return table


def _port_problems(table: Table, taken: frozenset[int]) -> list[str]:
    uses = Counter(model.port for model in table.models.values())
    doubles = [f"port {port} has more than one model" for port, count in uses.items() if count > 1]
    return doubles + [f"port {port} is the router's own" for port in sorted(taken & uses.keys())]


def _problems(model: Model) -> list[str]:
    return [
        *(f"the arm {arm.name} has a reserved name" for arm in model.arms if _is_reserved(arm.name)),
        *(f"there are two arms {name}" for name, count in _names(model).items() if count > 1),
        *_weight_problems(model),
        *_condition_problems(model),
    ]


def _is_reserved(name: str) -> bool:
    return name in RESERVED_ARMS or name.endswith(MATCH_SUFFIX)


def _names(model: Model) -> Counter[str]:
    return Counter(arm.name for arm in model.arms)


def _weight_problems(model: Model) -> list[str]:
    total = sum(arm.weight for arm in model.arms)
    problems = [f"the arms take {total} of {BUCKETS}"] if total > BUCKETS else []
    if model.arms and model.salt is None:
        problems.append("arms need a salt")
    return problems


def _condition_problems(model: Model) -> list[str]:
    known = {"canary", *_names(model)}
    strangers = [f"a match names the arm {arm}, which is none" for arm, _ in model.conditions() if arm not in known]
    sources: list[Stickiness | Condition] = [condition for _, condition in model.conditions()]
    sources += [model.stickiness] if model.stickiness else []
    unclear = [
        "name a header or a cookie, not both" for source in sources if bool(source.header) == bool(source.cookie)
    ]
    names = {source.header.lower() for source in sources}
    ours = [f"the header {name} is the router's own" for name in sorted(names) if name.startswith("x-moorage-")]
    return strangers + unclear + ours
