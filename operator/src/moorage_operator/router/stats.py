"""What HAProxy answers to `show stat`, typed, and counters that outlive a reload. Pure."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field

_BACKEND = "BACKEND"
_FRONTEND = "FRONTEND"
_MAINTENANCE = "MAINT"
_UP = ("UP", "no check")


@dataclass(frozen=True)
class Counters:
    """Of one backend. `requests` and `bad` count each request once; the rest explains, and counts some of them again."""

    requests: int = 0
    bad: int = 0
    canceled: int = 0
    connect_errors: int = 0
    response_errors: int = 0
    retries: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(mine + theirs for mine, theirs in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        return (self.requests, self.bad, self.canceled, self.connect_errors, self.response_errors, self.retries)


@dataclass(frozen=True)
class Server:
    """One server of a backend, by its name there. Neither `up` nor `resting`: its checks fail."""

    name: str
    up: bool
    resting: bool


@dataclass(frozen=True)
class Pool:
    """One backend as HAProxy has it.

    `unanswered`: requests that have ended and are in no other counter, not even in that of requests. When a pod goes away under a
    request that is not the first of its caller's connection (with HTTP/2, any), HAProxy closes without a word, because
    the caller is expected to ask again, and counts nothing. What has begun, is not running and was not counted, was lost.
    `cut`: a pod ended a connection too early. Most of those are among the unanswered, the rest are answers cut short.
    """

    counters: Counters
    servers: tuple[Server, ...]
    unanswered: int = 0
    cut: int = 0


@dataclass(frozen=True)
class Worker:
    """The process that answers. `structure` is its configuration's, see `config`."""

    pid: int
    uptime: int
    structure: str

    def follows(self, earlier: Worker) -> bool:
        """Another process than `earlier`; in a container a new one often has the same number."""
        return self.pid != earlier.pid or self.uptime < earlier.uptime


@dataclass(frozen=True)
class Sample:
    """One look at HAProxy."""

    worker: Worker
    pools: Mapping[str, Pool]


def parse_info(text: str) -> Worker:
    """`show info`; `ValueError` for anything else."""
    facts = {name: value for name, _, value in (line.partition(": ") for line in text.splitlines())}
    try:
        return Worker(int(facts["Pid"]), int(facts["Uptime_sec"]), facts.get("description", ""))
    except KeyError as error:
        raise ValueError(f"no {error} in HAProxy's answer") from error


def parse_stat(text: str) -> dict[str, Pool]:
    """`show stat`: the backends; `ValueError` for anything else."""
    if not text.startswith("# "):
        raise ValueError(f"no statistics: {text[:100]}")
    counters: dict[str, Counters] = {}
    servers: dict[str, list[Server]] = {}
    losses: dict[str, tuple[int, int]] = {}
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        if row["svname"] == _BACKEND:
            counters[row["pxname"]] = _counters(row)
            unanswered = _number(row, "stot") - _number(row, "scur") - _number(row, "req_tot")
            losses[row["pxname"]] = unanswered, _number(row, "srv_abrt")
        elif row["svname"] != _FRONTEND:
            servers.setdefault(row["pxname"], []).append(_server(row))
    return {name: Pool(found, tuple(servers.get(name, ())), *losses[name]) for name, found in counters.items()}


def _counters(row: Mapping[str, str]) -> Counters:
    canceled = _canceled(row)
    return Counters(
        requests=_number(row, "req_tot"),
        bad=_number(row, "hrsp_5xx") + canceled,
        canceled=canceled,
        connect_errors=_number(row, "econ"),
        response_errors=_number(row, "eresp"),
        retries=_number(row, "wretr"),
    )


def _canceled(row: Mapping[str, str]) -> int:
    """HAProxy 3.0 counts a call that is canceled before its answer has begun twice, and as a 4xx, which no pod says over gRPC."""
    aborts = _number(row, "cli_abrt")
    if not row["pxname"].endswith(":grpc"):
        return aborts
    return max(aborts - _number(row, "hrsp_4xx"), (aborts + 1) // 2)


def _number(row: Mapping[str, str], column: str) -> int:
    return int(row[column] or 0)


def _server(row: Mapping[str, str]) -> Server:
    status = row["status"]
    return Server(row["svname"], up=status.startswith(_UP), resting=status.startswith(_MAINTENANCE))


@dataclass
class Ledger:
    """Counters that only grow: what earlier workers counted, as far as it was seen, and what the present one has.

    What a worker counts between the last look at it and its end is lost: requests that were still running at a reload.
    """

    _before: dict[str, Counters] = field(default_factory=dict)
    _last: Sample | None = None
    _unanswered: dict[str, int] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        if self._last and (sample.worker.follows(self._last.worker) or _began_anew(self._last, sample)):
            self._before = {name: self.total(name) for name in self._last.pools}
            self._unanswered = {}
        elif self._last:
            self._settle(self._last, sample)
        self._last = sample

    def total(self, backend: str) -> Counters:
        pool = self._last.pools.get(backend) if self._last else None
        before = self._before.get(backend, Counters())
        if pool is None:
            return before
        unanswered = self._unanswered.get(backend, 0)
        return before + pool.counters + Counters(requests=unanswered, bad=max(unanswered, pool.cut))

    def _settle(self, last: Sample, sample: Sample) -> None:
        """HAProxy writes its numbers down while it works: one that begins just then looks lost. Two looks in a row agree on the truth."""
        for name in last.pools.keys() & sample.pools.keys():
            seen_twice = min(last.pools[name].unanswered, sample.pools[name].unanswered)
            self._unanswered[name] = max(self._unanswered.get(name, 0), seen_twice)


def _began_anew(last: Sample, sample: Sample) -> bool:
    """A restart that took about as long as the worker before had lived: the same number, no lower age, lower counters."""
    common = last.pools.keys() & sample.pools.keys()
    return any(sample.pools[name].counters.requests < last.pools[name].counters.requests for name in common)
