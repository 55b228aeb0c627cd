"""EndpointSlices become addresses."""

from __future__ import annotations

import pytest

from moorage_operator.router import endpoints
from moorage_operator.router.endpoints import Address
from router_world import a_slice

BOTH = {"http": 8080, "grpc": 8081}


def test_each_protocol_has_the_port_of_its_name_and_what_has_another_is_left_out() -> None:
    found = endpoints.collect([a_slice("v1", BOTH | {"health": 8082}, ip="10.0.0.1")])

    assert found == {
        ("v1", "http"): {Address("10.0.0.1", 8080)},
        ("v1", "grpc"): {Address("10.0.0.1", 8081)},
    }


def test_a_revision_from_before_grpc_has_none() -> None:
    assert set(endpoints.collect([a_slice("v1", {"http": 8080})])) == {("v1", "http")}


def test_slices_of_one_revision_are_added_up() -> None:
    found = endpoints.collect([a_slice("v1", {"http": 8080}, ip=f"10.0.0.{n}", number=n) for n in (1, 2)])

    assert len(found["v1", "http"]) == 2


@pytest.mark.parametrize(
    ("conditions", "counts"),
    [
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
    ],
)
def test_a_pod_that_is_alone_counts_while_it_serves(conditions: dict[str, bool], counts: bool) -> None:
    found = endpoints.collect([a_slice("v1", {"http": 8080}, conditions=conditions)])

    assert bool(found.get(("v1", "http"))) is counts


def test_a_pod_that_ends_is_left_out_as_soon_as_another_is_ready() -> None:
    ending = a_slice(
        "v1", {"http": 8080}, ip="10.0.0.1", conditions={"ready": False, "serving": True, "terminating": True}
    )
    other = a_slice("v1", {"http": 8080}, ip="10.0.0.2", number=1)

    assert endpoints.collect([ending, other]) == {("v1", "http"): {Address("10.0.0.2", 8080)}}


def test_a_slice_without_anything_is_nothing() -> None:
    bare = a_slice("v1", {})
    bare |= {"ports": None, "endpoints": None}

    assert endpoints.collect([bare]) == {}
