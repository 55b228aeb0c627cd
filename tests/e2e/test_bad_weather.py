"""An API server that answers with errors for a while, to the operator alone: it says so, and does then what was asked meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bad_weather
import load
from installation import LEADS_NO_MORE, Installation
from mlflow_in_cluster import Registry
from place import Place, a_model, until

SCRIPT = Path(__file__).parents[1] / "bad_weather.py"
NAME = "sheltered"
MODEL = "digits-sheltered"
ROLLOUT = {"steps": [{"setWeight": 20}, {"pause": {"duration": 1}}, {"setWeight": 60}], "scaleDownDelaySeconds": 1}
TOLD_SECONDS = 30
RECOVERY_SECONDS = 30
IN_HALF_THE_ANSWERS_SECONDS = 120
"""For a whole rollout, most of which are the operator's starts if it can't renew its Lease for long enough, by bad luck."""

A_WHILE = [("503", 10), ("403", 40), ("cut", 40)]
LONG = [(weather, seconds) for weather in ("500", "503", "403", "cut") for seconds in (75, 600)]


@pytest.fixture(scope="module")
def sheltered(place: Place, operator: Installation, registry: Registry) -> Iterator[Installation]:
    """One copy, behind the proxy, and a model with two versions, the first of which answers."""
    for _ in range(2):
        registry.copy(MODEL)
    registry.set_alias(MODEL, "1")
    place.apply(a_model(NAME, MODEL, replicas=1, rollout=ROLLOUT))
    with operator.running("python", "/script/bad_weather.py", script=SCRIPT, copies=1):
        place.wait_ready(NAME)
        yield operator


def only_pod(operator: Installation) -> str:
    [pod] = operator.pods()
    return str(pod["metadata"]["name"])


@contextmanager
def the_weather(operator: Installation, weather: str) -> Iterator[None]:
    def change(code: str) -> None:
        until(
            30, "its container runs", lambda: operator.run_in(only_pod(operator), code).returncode == 0, operator.logs
        )

    change(f"open('/tmp/weather', 'w').write('{weather}')")
    try:
        yield
    finally:
        change("import pathlib; pathlib.Path('/tmp/weather').unlink(missing_ok=True)")


def readiness(operator: Installation) -> str:
    return operator.answer(only_pod(operator), "/readyz")


def restarts(operator: Installation) -> int:
    """Of the program, whether its process ended or not."""
    log = operator.place.kubectl("logs", "deployment/moorage-operator", "--tail=-1")
    return log.count(bad_weather.ENDED) + log.count(LEADS_NO_MORE)


def wanted_pods(place: Place) -> int:
    stable = place.status(NAME)["stable"]["revision"]
    return int(place.get("deployment", stable)["spec"]["replicas"])


@pytest.mark.parametrize(("weather", "seconds"), A_WHILE)
def test_an_api_server_that_fails_for_a_while_is_told_of_and_waited_for(
    place: Place, sheltered: Installation, weather: str, seconds: int
) -> None:
    endure(place, sheltered, weather, seconds)


@pytest.mark.long
@pytest.mark.timeout(1200, func_only=True)
@pytest.mark.parametrize(("weather", "seconds"), LONG)
def test_an_api_server_that_fails_for_long_is_told_of_and_waited_for(
    place: Place, sheltered: Installation, weather: str, seconds: int
) -> None:
    endure(place, sheltered, weather, seconds)


def endure(place: Place, operator: Installation, weather: str, seconds: int) -> None:
    before, wanted = restarts(operator), 3 - wanted_pods(place)
    with load.on(place, NAME, "digits-onnx", pause=0.05, most_seconds=seconds + 300) as running:
        with the_weather(operator, weather):
            begin = time.monotonic()
            place.change(NAME, replicas=wanted)
            if seconds > TOLD_SECONDS:
                until(TOLD_SECONDS, "it is not ready", lambda: readiness(operator).startswith("503"))
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            assert wanted_pods(place) != wanted, "the weather was not bad"
        begin = time.monotonic()
        until(RECOVERY_SECONDS, "what was asked is done", lambda: wanted_pods(place) == wanted, operator.logs)
        done = time.monotonic() - begin
        until(RECOVERY_SECONDS, "it is ready", lambda: readiness(operator).startswith("200"), operator.logs)
        place.wait_ready(NAME)
    again = restarts(operator) - before
    print(f"{weather} for {seconds} s: done {done:.0f} s later, {again} restarts, {running.answered} answered")  # noqa: T201
    assert running.failed == 0, running.said
    assert again <= 1


def test_a_version_takes_over_while_every_other_answer_is_an_error(
    place: Place, sheltered: Installation, registry: Registry
) -> None:
    """Nobody waits for better weather."""
    wanted = "2" if place.stable_version(NAME) == "1" else "1"
    with load.on(place, NAME, "digits-onnx", pause=0.05) as running:
        with the_weather(sheltered, "half"):
            begin = time.monotonic()
            registry.set_alias(MODEL, wanted)
            until(
                IN_HALF_THE_ANSWERS_SECONDS, "the new version", lambda: place.stable_version(NAME) == wanted,
                lambda: [place.status(NAME), sheltered.logs()],
            )  # fmt: skip
            took = time.monotonic() - begin
        place.wait_ready(NAME)
    print(f"after {took:.0f} s, {running.answered} answered")  # noqa: T201
    assert running.failed == 0, running.said
