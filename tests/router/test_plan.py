"""What HAProxy is told, given what it has."""

from __future__ import annotations

from collections.abc import Mapping

from moorage_operator.router import plan
from moorage_operator.router.endpoints import Address
from moorage_operator.router.pools import Backend
from moorage_operator.router.stats import Counters, Pool, Server

STABLE = Backend("fraud", "stable", "http")
CANARY = Backend("fraud", "canary", "http")
OLD, NEW = Address("10.0.0.1", 8080), Address("10.0.0.2", 8080)


def has(*servers: Server) -> Pool:
    return Pool(Counters(), servers)


def up(address: Address) -> Server:
    return Server(address.name, up=True, resting=False)


def resting(address: Address) -> Server:
    return Server(address.name, up=False, resting=True)


def told(
    wanted: Mapping[Backend, set[Address]], found: Mapping[Backend, Pool], rows: tuple[str, str] = ("1", "1")
) -> list[str]:
    pools = {backend: frozenset(addresses) for backend, addresses in wanted.items()}
    present = {backend.name: pool for backend, pool in found.items()}
    commands = plan.commands(pools, {"fraud": rows[0]}, present, {"fraud": rows[1]}, "/m")
    return [" ".join(command.text.split()[:5]) for command in commands]


def test_nothing_is_said_when_all_is_as_wanted() -> None:
    assert told({STABLE: {OLD}}, {STABLE: has(up(OLD))}) == []


def test_a_server_whose_checks_fail_is_left_to_haproxy() -> None:
    assert told({STABLE: {OLD}}, {STABLE: has(Server(OLD.name, up=False, resting=False))}) == []


def test_a_pod_comes_and_another_goes() -> None:
    assert told({STABLE: {NEW}}, {STABLE: has(up(OLD))}) == [
        "add server fraud:stable:http/10.0.0.2:8080 10.0.0.2:8080 check",
        "enable health fraud:stable:http/10.0.0.2:8080",
        "set server fraud:stable:http/10.0.0.2:8080 state ready",
        "set server fraud:stable:http/10.0.0.1:8080 state maint",
        "del server fraud:stable:http/10.0.0.1:8080",
    ]


def test_a_server_that_could_not_be_forgotten_yet_is_tried_again_and_taken_back_when_wanted() -> None:
    assert told({STABLE: set()}, {STABLE: has(resting(OLD))}) == ["del server fraud:stable:http/10.0.0.1:8080"]
    assert told({STABLE: {OLD}}, {STABLE: has(resting(OLD))}) == [
        "set server fraud:stable:http/10.0.0.1:8080 state ready"
    ]


def test_at_a_promotion_stable_has_the_new_pods_before_the_canary_loses_its_share() -> None:
    orders = told({STABLE: {NEW}, CANARY: set()}, {STABLE: has(up(OLD)), CANARY: has(up(NEW))}, rows=("a:0", "a:10000"))

    last_of_stable = max(at for at, text in enumerate(orders) if ":stable:" in text)
    first_of_canary = min(at for at, text in enumerate(orders) if ":canary:" in text)
    assert last_of_stable < first_of_canary < orders.index("set map /m fraud a:0")
