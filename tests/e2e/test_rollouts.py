"""A new version takes over step by step, under load, and nobody goes without an answer; a bad one is put back by itself."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import load
import place as places
from mlflow_in_cluster import Registry
from place import Place, a_model, until

STEPS = [{"setWeight": 20}, {"pause": {"duration": 4}}, {"setWeight": 60}, {"pause": {"duration": 4}}]
FAST: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
COMMAND = "moorage.dev/command"
TO_TESTERS = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}}
METRICS = "from urllib import request; print(request.urlopen('http://127.0.0.1:8082/metrics').read().decode())"
COPIES = re.compile(r'^moorage_shadow_total\{outcome="(\w+)",revision="([^"]+)"\} ([0-9.]+)', re.MULTILINE)


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With four versions of the same files; `champion` is the first."""
    for _ in range(4):
        registry.copy("rolled")
    registry.set_alias("rolled", "1")
    return "rolled"


def weight(place: Place, name: str) -> int:
    """What all routers of a rollout hold, in percent; -1 while they do not all hold the same."""
    weights = place.status(name).get("weights", {})
    return int(weights["applied"]) if weights.get("verified") else -1


def command(place: Place, name: str, text: str) -> None:
    place.kubectl("annotate", "--overwrite", "mdep", name, f"{COMMAND}={text}")


def test_versions_take_over_and_go_back_and_no_request_is_lost(place: Place, registry: Registry, model: str) -> None:
    seen = in_turn(place, registry, model, times=3)

    assert {20, 60} <= set(seen)
    history = place.status("stepwise")["history"]
    assert [item["result"] for item in history] == ["Aborted", "Promoted"] * 3 + ["Promoted"]


@pytest.mark.long
@pytest.mark.timeout(3600, func_only=True)
def test_they_do_so_many_times(place: Place, registry: Registry, model: str) -> None:
    for _ in range(7):
        in_turn(place, registry, model, times=3)


def in_turn(place: Place, registry: Registry, model: str, *, times: int) -> list[int]:
    """Under load, so many versions take over, each followed by one that is put back from 20 %; returns the weights that were seen."""
    registry.set_alias(model, "1")
    place.apply(a_model("stepwise", model, replicas=2, rollout=FAST))
    place.wait_ready("stepwise")
    seen: list[int] = []
    for _ in range(times):
        with load.on(place, "stepwise", "digits-onnx", pause=0.02, by_grpc=model) as running:
            there_and_back(place, registry, model, seen)
        assert running.failed == 0, running.said
        assert running.answered > 200
    return seen


def there_and_back(place: Place, registry: Registry, model: str, seen: list[int]) -> None:
    before = place.stable_version("stepwise")
    version, worse = [number for number in ("1", "2", "3") if number != before]
    registry.set_alias(model, version)

    def arrived() -> bool:
        seen.append(weight(place, "stepwise"))
        return place.stable_version("stepwise") == version

    until(180, f"version {version} is stable", arrived, lambda: place.status("stepwise"))
    registry.set_alias(model, worse)
    until(120, "the next one has 20 %", lambda: weight(place, "stepwise") == 20, lambda: place.status("stepwise"))
    canary = place.status("stepwise")["canary"]["revision"]
    command(place, "stepwise", f"abort@{canary}.{time.time_ns()}")  # the same was said before, of another rollout
    place.wait_for_reason("stepwise", "RolledBack")
    registry.set_alias(model, version)
    place.wait_ready("stepwise")


def test_a_version_that_does_not_load_is_put_back_and_its_reason_told(
    place: Place, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    rollout = FAST | {"progressDeadlineSeconds": 20}
    place.apply(a_model("careful", model, rollout=rollout))
    place.wait_ready("careful")
    with load.on(place, "careful", "digits-onnx", pause=0.02) as running:
        place.change("careful", model={"name": "iris"})  # pyfunc, which nobody has allowed
        place.wait_for_reason("careful", "RolledBack", seconds=90)
    assert running.failed == 0, running.said
    status = place.status("careful")
    assert status["history"][0]["result"] == "RolledBack"
    assert place.condition("careful", "Available")["status"] == "True"


def test_a_pause_waits_for_a_command_and_abort_goes_back(place: Place, registry: Registry, model: str) -> None:
    registry.set_alias(model, "1")
    rollout = FAST | {"steps": [{"setWeight": 50}, {"pause": {}}]}
    place.apply(a_model("asked", model, rollout=rollout))
    place.wait_ready("asked")
    with load.on(place, "asked", "digits-onnx", pause=0.02) as running:
        registry.set_alias(model, "2")
        place.wait_for_reason("asked", "Paused")
        canary = place.status("asked")["canary"]["revision"]
        command(place, "asked", f"abort@{canary}")
        place.wait_for_reason("asked", "RolledBack")
        until(60, "its pods have ended", lambda: not place.pods("asked", canary))
        command(place, "asked", f"retry@{canary}")
        place.wait_for_reason("asked", "Paused")
        command(place, "asked", f"promote@{canary}/1")
        until(60, "it is stable", lambda: place.stable_version("asked") == "2")
    assert running.failed == 0, running.said


Answer = Callable[..., set[str]]


def asking(url: str, model: str) -> Answer:
    """`asked(20, header=value)` asks 20 times, each on a new connection, and tells which versions have answered."""
    found = until(20, "the address answers", lambda: places.ask(f"{url}/v2/models/{model}"))
    tensor = found["inputs"][0] | {"shape": [1, 64], "data": [0.0] * 64}

    def once(headers: dict[str, str]) -> str:
        answer = places.ask(f"{url}/v2/models/{model}/infer", {"inputs": [tensor]}, headers=headers)
        assert answer, "nobody answers"
        return str(answer["model_version"])

    return lambda times, **headers: {
        once({name.replace("_", "-"): headers[name] for name in headers}) for _ in range(times)
    }


def test_testers_get_the_new_version_at_weight_0_and_nobody_else_does(
    place: Place, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    place.apply(a_model("tested", model, rollout=FAST | {"steps": [TO_TESTERS, {"pause": {}}]}))
    place.wait_ready("tested")
    with place.reach("tested") as url:
        asked = asking(url, model)
        assert asked(5, x_group="beta") == {"1"}
        registry.set_alias(model, "2")
        place.wait_for_reason("tested", "Paused")
        assert weight(place, "tested") == 0
        assert asked(20, x_group="beta") == {"2"}
        assert asked(20) | asked(20, x_group="alpha") == {"1"}
        command(place, "tested", f"abort@{place.status('tested')['canary']['revision']}")
        place.wait_for_reason("tested", "RolledBack")
        until(30, "testers get the stable version again", lambda: asked(5, x_group="beta") == {"1"})
    assert "headerRoutes" not in place.status("tested")


def test_copies_go_to_the_new_version_and_callers_get_the_stable_one_alone(
    place: Place, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    rollout = FAST | {"steps": [{"pause": {}}], "shadow": {"percent": 100}}
    place.apply(a_model("shadowed", model, rollout=rollout))
    place.wait_ready("shadowed")
    registry.set_alias(model, "2")
    until(
        120,
        "the routers mark requests for copies",
        lambda: place.status("shadowed").get("shadow") == {"percent": 100, "verified": True},
        lambda: place.status("shadowed"),
    )
    stable, canary = (place.status("shadowed")[role]["revision"] for role in ("stable", "canary"))
    with place.reach("shadowed") as url:
        assert asking(url, model)(40) == {"1"}

    def copies() -> Counter[str]:
        """By outcome, as stable's pods count them."""
        counted: Counter[str] = Counter()
        for pod in place.pods("shadowed", stable):
            text = place.kubectl("exec", pod["metadata"]["name"], "--", "python", "-c", METRICS)
            counted.update({outcome: int(float(n)) for outcome, of, n in COPIES.findall(text) if of == canary})
        return counted

    until(30, "the copies were answered, and the same", lambda: copies()["agree"] >= 20, copies)
    assert copies()["disagree"] == 0
    command(place, "shadowed", f"promote@{canary}")
    until(60, "it is stable", lambda: place.stable_version("shadowed") == "2")
    assert "shadow" not in place.status("shadowed")
