"""HAProxy as it is, and as it should be → the commands in between. Pure.

In this order: servers that are new, backend by backend, stable first; servers that go; then the splits. So a row never names a
revision whose servers are not there, and at a promotion stable's pods are the new ones before the canary's share goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moorage_operator.router import config
from moorage_operator.router.endpoints import Address
from moorage_operator.router.pools import Backend, Pools
from moorage_operator.router.stats import Pool, Server


@dataclass(frozen=True)
class Command:
    """One line for the admin socket. HAProxy answers `answer` if it did it; one that `may_fail` is tried again at the next look."""

    text: str
    answer: str = ""
    may_fail: bool = False


def commands(
    wanted: Pools, splits: Mapping[str, str], found: Mapping[str, Pool], found_splits: Mapping[str, str], map_file: str
) -> list[Command]:
    changes = [command for backend, addresses in wanted.items() for command in _servers(backend, addresses, found)]
    return changes + [
        Command(f"set map {map_file} {model} {row}") for model, row in splits.items() if found_splits.get(model) != row
    ]


def _servers(backend: Backend, wanted: frozenset[Address], found: Mapping[str, Pool]) -> Iterator[Command]:
    present = {server.name: server for server in found[backend.name].servers}
    for address in sorted(wanted):
        yield from _bring(backend, address, present.get(address.name))
    names = {address.name for address in wanted}
    for server in present.values():
        if server.name not in names:
            yield from _dismiss(f"{backend.name}/{server.name}", server)


def _bring(backend: Backend, address: Address, server: Server | None) -> Iterator[Command]:
    name = f"{backend.name}/{address.name}"
    if server is None:
        options = config.server_options(backend.protocol)
        yield Command(f"add server {name} {address.target} {options}", answer="New server registered.")
        yield Command(f"enable health {name}")
    if server is None or server.resting:
        yield Command(f"set server {name} state ready")


def _dismiss(name: str, server: Server) -> Iterator[Command]:
    """What it is answering it may end; HAProxy refuses to forget it before."""
    if not server.resting:
        yield Command(f"set server {name} state maint")
    yield Command(f"del server {name}", answer="Server deleted.", may_fail=True)
