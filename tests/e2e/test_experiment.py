"""Versions answer side by side: each user keeps one, testers get theirs, counts are as the weights say, and no request is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import callers
import load
import place as places
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

ARMS: list[dict[str, Any]] = [
    {"name": "challenger", "model": {"alias": "challenger"}, "weight": 20, "match": {"header": "x-group", "value": "beta"}},
    {"name": "rival", "model": {"version": "3"}, "weight": 30},
]  # fmt: skip
STICKY = {"stickiness": {"header": "x-user-id"}}
FAST = {"scaleDownDelaySeconds": 2}


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With four versions of the same files: the first is `champion`, the second `challenger`."""
    for _ in range(4):
        registry.copy("tried")
    registry.set_alias("tried", "1")
    registry.set_alias("tried", "2", "challenger")
    return "tried"


def weights(place: Place, name: str) -> dict[str, int]:
    """Percent of each arm that all routers hold; only of those that they hold as the spec says."""
    found = place.status(name).get("weights", {}).get("arms", [])
    return {item["name"]: item["applied"] for item in found if item["verified"]}


def wait_for(place: Place, name: str, wanted: dict[str, int]) -> None:
    until(180, f"the routers hold {wanted}", lambda: weights(place, name) == wanted, lambda: place.status(name))


class Callers:
    """Users who ask the address, each on a new connection."""

    def __init__(self, url: str, model: str) -> None:
        self.url = f"{url}/v2/models/{model}"
        found = until(20, "the address answers", lambda: places.ask(self.url))
        self.tensor = found["inputs"][0] | {"shape": [1, 64], "data": [0.0] * 64}

    def ask(self, **headers: str) -> str:
        """The version that answered."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = places.ask(f"{self.url}/infer", {"inputs": [self.tensor]}, headers=named)
        assert answer, "nobody answers"
        return str(answer["model_version"])


def test_users_keep_their_version_and_testers_get_theirs(place: Place, registry: Registry, model: str) -> None:
    place.apply(a_model("tried", model, traffic=STICKY, rollout=FAST, experiment={"arms": ARMS}))
    place.wait_ready("tried")
    wait_for(place, "tried", {"challenger": 20, "rival": 30})
    with place.reach("tried") as url:
        callers = Callers(url, model)
        versions = {f"user-{number}": callers.ask(x_user_id=f"user-{number}") for number in range(300)}
        for user, version in list(versions.items())[:60]:
            assert {callers.ask(x_user_id=user) for _ in range(3)} == {version}
        assert {callers.ask(x_user_id=user, x_group="beta") for user in list(versions)[:30]} == {"2"}
    counted = Counter(versions.values())
    assert 30 <= counted["2"] <= 95, counted
    assert 55 <= counted["3"] <= 130, counted
    assert counted.total() == 300
    arms = until(
        180,
        "the requests of both arms are counted",
        lambda: [arm for arm in place.status("tried")["experiment"]["arms"] if arm["readyReplicas"]],
    )
    assert {arm["name"]: arm["modelVersion"] for arm in arms} == {"challenger": "2", "rival": "3"}


def test_the_counts_of_each_arm_are_as_the_weights_say(place: Place, registry: Registry, model: str) -> None:
    place.apply(a_model("counted", model, rollout=FAST, experiment={"arms": ARMS}))
    place.wait_ready("counted")
    wait_for(place, "counted", {"challenger": 20, "rival": 30})

    def counted() -> dict[str, int]:
        return {arm["name"]: arm.get("requests", 0) for arm in place.status("counted")["experiment"]["arms"]}

    with load.on(place, "counted", "digits-onnx", pause=0.02) as running:
        until(300, "both arms have enough requests", lambda: min(counted().values()) > 200, counted, every=5)
        found = counted()
    assert running.failed == 0, running.said
    assert 1.1 < found["rival"] / found["challenger"] < 2.0, found
    assert all(arm.get("errors", 0) == 0 for arm in place.status("counted")["experiment"]["arms"])


def test_an_alias_that_moves_and_a_rollout_lose_no_request(place: Place, registry: Registry, model: str) -> None:
    registry.set_alias(model, "2", "challenger")
    place.apply(a_model("moving", model, rollout=FAST, experiment={"arms": ARMS}))
    place.wait_ready("moving")
    wait_for(place, "moving", {"challenger": 20, "rival": 30})

    def of_challenger() -> str:
        return str(place.status("moving")["experiment"]["arms"][0]["modelVersion"])

    with load.on(place, "moving", "digits-onnx", pause=0.02) as running:
        registry.set_alias(model, "4", "challenger")
        until(180, "the arm has version 4", lambda: of_challenger() == "4", lambda: place.status("moving"))
        place.change("moving", model={"alias": None, "version": "2"})
        until(180, "version 2 is stable", lambda: place.stable_version("moving") == "2", lambda: place.status("moving"))
        wait_for(place, "moving", {"challenger": 20, "rival": 30})
    assert running.failed == 0, running.said
    registry.set_alias(model, "2", "challenger")


def test_the_end_of_an_experiment_loses_no_request(place: Place, registry: Registry, model: str) -> None:
    place.apply(a_model("ending", model, rollout=FAST, experiment={"arms": ARMS}))
    place.wait_ready("ending")
    wait_for(place, "ending", {"challenger": 20, "rival": 30})
    revisions = [arm["revision"] for arm in place.status("ending")["experiment"]["arms"]]
    with load.on(place, "ending", "digits-onnx", pause=0.02) as running:
        place.change("ending", experiment={"arms": ARMS[1:]})
        wait_for(place, "ending", {"rival": 30})
        place.change("ending", experiment=None)
        until(120, "their pods have ended", lambda: not any(place.pods("ending", name) for name in revisions))
    assert running.failed == 0, running.said
    assert "experiment" not in place.status("ending")
    with place.reach("ending") as url:
        callers = Callers(url, model)
        assert {callers.ask(x_group="beta") for _ in range(20)} == {"1"}


def test_an_arm_that_cannot_be_found_holds_up_nobody(place: Place, registry: Registry, model: str) -> None:
    lost = {"name": "lost", "model": {"alias": "nobody"}, "weight": 40}
    place.apply(a_model("lost", model, rollout=FAST, experiment={"arms": [lost, ARMS[1]]}))
    place.wait_ready("lost")
    wait_for(place, "lost", {"rival": 30})
    problem = place.status("lost")["experiment"]["arms"][0]["problem"]
    assert "nobody" in problem


def is_better(place: Place, name: str, metric: str) -> Object:
    """What is shown of the only arm; empty as long as it is not that, or a bound is not known."""
    [arm] = place.status(name)["experiment"]["arms"]
    found: Object = next((item for item in arm.get("verdicts", []) if item["metric"] == metric), {})
    return found if found.get("verdict") == "better" and {"low", "high"} <= found.keys() else {}


@pytest.mark.long
def test_an_arm_that_is_better_wins_by_what_callers_told_and_takes_over(
    place: Place, registry: Registry, tmp_path: Path
) -> None:
    """A rollout is judged meanwhile, for then somebody looks every five seconds, and not once a minute; no arm wins before it is over."""
    name = "contest"
    moods = ("seldom wrong", "wrong")
    versions = {mood: callers.published(registry, name, mood, tmp_path / mood.replace(" ", "-")) for mood in moods}
    waiting = [{"setWeight": 10}, {"pause": {}}]
    looking = {"intervalSeconds": 5, "initialDelaySeconds": 1, "guards": [{"name": "errors", "errorRate": {}}]}
    experiment = {
        "winner": "promote",
        "arms": [{"name": "better", "model": {"version": versions["seldom wrong"]}, "weight": 50}],
    }
    rollout = FAST | {"steps": waiting, "analysis": looking, "abortScaleDownDelaySeconds": 2}
    place.apply(a_model(name, name, runtime={"allowPickle": True}, rollout=rollout, experiment=experiment))
    place.wait_ready(name)
    wait_for(place, name, {"better": 50})
    with callers.on(place, name, "http", "grpc") as seen:
        callers.published(registry, name, "equal", tmp_path / "equal")
        place.wait_for_reason(name, "Paused")
        shown = until(240, "the arm is better", lambda: is_better(place, name, "wrong"), lambda: place.status(name))
        assert place.stable_version(name) == versions["wrong"]
        assert "winner" not in place.status(name)["experiment"]
        registry.set_alias(name, versions["wrong"])
        until(60, "it has won", lambda: "winner" in place.status(name)["experiment"], lambda: place.status(name))
        until(60, "it is on its way", lambda: "canary" in place.status(name), lambda: place.status(name))
        won = place.status(name)
        place.command(name, f"promoteFull@{won['canary']['revision']}")
        until(90, "it is stable", lambda: place.stable_version(name) == versions["seldom wrong"])

    print(shown, dict(seen))  # noqa: T201
    assert 0 < shown["low"] <= shown["estimate"] <= shown["high"] < 1
    assert won["experiment"]["winner"]["arm"] == "better"
    assert won["canary"]["modelVersion"] == versions["seldom wrong"]
    assert callers.errors_of(seen) == set(), seen
    assert seen["gRPC right"] > 0 < seen["gRPC wrong"]
