"""Each guard catches a version that is worse in just its way, on requests as callers send them, and lets an equal one through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import callers
from gateways import PARENT, Gateway
from mlflow_in_cluster import Registry
from moorage_operator.core.reasons import Reason
from place import Object, Place, a_model, until

MODEL = "moody"
HOST = "moody.example.org"

ERRORS = {"name": "errors", "errorRate": {}}
SLOW = {"name": "slow", "latency": {"quantile": 0.9, "maxSeconds": 0.2}}
SAME = {"name": "same", "disagreement": {"max": "3%"}}
QUALITY = {"name": "quality", "feedback": {}}
QUICK = {"intervalSeconds": 5, "initialDelaySeconds": 1, "minRequests": 30}


@dataclass(frozen=True)
class Worse:
    """A version, what finds out, and all the errors that callers may see until then."""

    mood: str
    guard: Object
    reasons: frozenset[Reason] = frozenset({Reason.ANALYSIS_FAILED})
    errors: frozenset[str] = frozenset()
    protocols: tuple[str, ...] = ("http",)
    replicas: int = 1


WORSE = {
    "failing": Worse("failing", ERRORS, errors=frozenset({"HTTP 500"})),
    "failing only over gRPC": Worse(
        "failing by gRPC", ERRORS, errors=frozenset({"gRPC INTERNAL"}), protocols=("http", "grpc")
    ),
    "slow": Worse("slow", SLOW),
    "disagreeing": Worse("wrong", SAME),
    "less accurate": Worse("wrong", QUALITY),
    # A pod that crashes costs the one or two requests that it has, and is away for seconds; the guard needs some eight errors. Long
    # before that one pod has crashed twice, or both are away: that needs no statistics.
    "crashing": Worse(
        "crashing",
        ERRORS,
        reasons=frozenset({Reason.ANALYSIS_FAILED, Reason.CANARY_LOST, Reason.CANARY_CRASHES}),
        errors=frozenset({"HTTP 502", "HTTP 503"}),
        replicas=2,
    ),
}


@pytest.fixture(scope="module")
def moody(place: Place, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model deployment whose stable version is in no mood at all."""
    callers.published(registry, MODEL, "equal", tmp_path_factory.mktemp("equal"))
    place.apply(a_model(MODEL, MODEL, runtime={"allowPickle": True}, rollout=rollout(ERRORS)))
    place.wait_ready(MODEL)
    return MODEL


def rollout(*guards: Object) -> Object:
    """Half of the requests, for as long as it takes to judge them."""
    steps = [{"setWeight": 50}, {"analysis": {"duration": 5}}]
    return {
        "steps": steps,
        "analysis": QUICK | {"guards": list(guards)},
        "shadow": {"percent": 50 if SAME in guards else 0},
        "scaleDownDelaySeconds": 2,
        "abortScaleDownDelaySeconds": 2,
    }


@pytest.mark.parametrize("worse", WORSE.values(), ids=WORSE)
def test_what_is_worse_is_put_back_with_its_evidence(
    place: Place, registry: Registry, moody: str, tmp_path: Path, worse: Worse
) -> None:
    stable = place.stable_version(moody)
    place.change(moody, replicas=worse.replicas, rollout=rollout(worse.guard))
    with callers.on(place, MODEL, *worse.protocols) as seen:
        version = callers.published(registry, MODEL, worse.mood, tmp_path)
        ended = the_end(place, moody, version)

    status = place.status(moody)
    assert ended == "RolledBack", status
    [rejected] = status["rejected"]
    assert rejected["reason"] in worse.reasons, (rejected, seen)
    if rejected["reason"] == Reason.ANALYSIS_FAILED:
        assert rejected["message"].startswith(f"{worse.guard['name']}: ")
        [judged] = status["analysis"]
        assert (judged["guard"], judged["verdict"]) == (worse.guard["name"], "harm")
    assert callers.errors_of(seen) <= worse.errors, seen
    assert place.stable_version(moody) == stable
    assert place.condition(moody, "Available")["status"] == "True"
    # Until then routers may know no better, and send it requests of the next test.
    until(60, "its pods have ended", lambda: not place.pods(moody, rejected["revision"]), lambda: place.find("pods"))


def the_end(place: Place, name: str, version: str) -> str:
    """How the rollout of that version ends."""

    def outcome() -> str:
        history = place.status(name).get("history", [])
        return next((str(item["result"]) for item in history if item["modelVersion"] == version), "")

    return until(120, f"the rollout of version {version} ends", outcome, lambda: place.status(name))


def test_an_equal_version_passes_all_guards(place: Place, registry: Registry, moody: str, tmp_path: Path) -> None:
    place.change(moody, replicas=1, rollout=rollout(ERRORS, SLOW, SAME, QUALITY))
    with callers.on(place, MODEL, "http", "grpc") as seen:
        version = callers.published(registry, MODEL, "equal", tmp_path)
        ended = the_end(place, moody, version)

    status = place.status(moody)
    assert ended == "Promoted", status
    assert {item["guard"]: item["verdict"] for item in status["analysis"]}.keys() == {
        "errors",
        "slow",
        "same",
        "quality",
    }
    assert all(item["canaryRequests"] >= QUICK["minRequests"] for item in status["analysis"])
    assert {key.split(" ")[-1] for key in seen} == {"right"}, seen


def test_without_traffic_it_waits_and_says_so(place: Place, registry: Registry, moody: str, tmp_path: Path) -> None:
    place.change(moody, rollout=rollout(ERRORS))
    version = callers.published(registry, MODEL, "equal", tmp_path)
    message = until(
        90,
        "it says what it waits for",
        lambda: found if "errors: 0 of 30 requests" in (found := place.status(moody)["message"]) else "",
        lambda: place.status(moody),
    )
    assert "step 2 of 3: 50 %" in message
    canary = place.status(moody)["canary"]["revision"]
    place.command(moody, f"promote@{canary}/1")
    assert the_end(place, moody, version) == "Promoted"


@pytest.mark.parametrize("router", ["gateway", "replicas"])
def test_versions_are_judged_where_no_router_of_ours_counts(
    place: Place, gateway: Gateway, registry: Registry, tmp_path: Path, router: str
) -> None:
    """Without feedback: Traefik deals requests in turn, so most predictions went to one version and most feedback to the other one."""
    name = f"moody-by-{router}"
    callers.published(registry, name, "equal", tmp_path / "equal")
    traffic: Object = {"router": router}
    if router == "gateway":
        traffic["gateway"] = {"parentRefs": [PARENT], "hostnames": [HOST]}
    runtime, judged = {"allowPickle": True}, rollout(ERRORS, SLOW)
    place.apply(a_model(name, name, replicas=2, runtime=runtime, rollout=judged, traffic=traffic))
    place.wait_ready(name)
    entrance, host = (place, name), ""
    if router == "gateway":
        entrance, host = (gateway.place, "traefik"), HOST
        with gateway.caller(host) as caller:
            until(20, "callers are let in", lambda: caller.ask("/v2/health/ready").status == 200)

    with callers.on(*entrance, "http", host=host, feedback=False) as seen:
        worse = callers.published(registry, name, "failing", tmp_path / "failing")
        assert the_end(place, name, worse) == "RolledBack"
        [rejected] = place.status(name)["rejected"]
        equal = callers.published(registry, name, "equal again", tmp_path / "equal again")
        assert the_end(place, name, equal) == "Promoted"

    assert rejected["reason"] == Reason.ANALYSIS_FAILED
    assert rejected["message"].startswith("errors: ")
    assert callers.errors_of(seen) == {"HTTP 500"}, seen
    place.delete("mdep", name)
