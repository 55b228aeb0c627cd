"""A new version takes over step by step, under load, and nobody goes without an answer; a bad one is put back by itself."""

from __future__ import annotations

import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import load
import place as places
import slowed
from mlflow_in_cluster import Registry
from moorage_operator.core.reasons import Reason
from moorage_runtime.oip import inference_pb2
from place import Place, a_model, until

STEPS = [{"setWeight": 20}, {"pause": {"duration": 4}}, {"setWeight": 60}, {"pause": {"duration": 4}}]
FAST: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
SLOW = {"name": "slow", "latency": {"quantile": 0.5, "maxSeconds": 0.1}}
JUDGED = {"guards": [SLOW], "intervalSeconds": 5, "initialDelaySeconds": 1, "minRequests": 60}
COMMAND = "moorage.dev/command"
METADATA = "/inference.GRPCInferenceService/ModelMetadata"
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


@pytest.fixture(scope="module")
def slow(registry: Registry, model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another version, which gives the same answers later than a guard allows."""
    files = registry.download("digits-onnx", tmp_path_factory.mktemp("slow"))
    slowed.slow_down(files / "model.onnx")
    version = registry.publish(model, files)
    registry.set_alias(model, "1")
    return version


def weight(place: Place, name: str) -> int:
    """What all routers of a rollout hold, in percent; -1 while they do not all hold the same."""
    weights = place.status(name).get("weights", {})
    return int(weights["applied"]) if weights.get("verified") else -1


def test_versions_take_over_and_go_back_and_no_request_is_lost(
    place: Place, registry: Registry, model: str, slow: str
) -> None:
    seen = in_turn(place, registry, model, slow, times=2)
    assert {20, 60} <= set(seen)

    with load.on(place, "stepwise", "digits-onnx", pause=0.02, by_grpc=model) as running:
        _, other = takes_over(place, registry, model, seen)
        is_put_back_by_hand(place, registry, model, other)
    assert running.failed == 0, running.said
    results = [item["result"] for item in place.status("stepwise")["history"]]
    assert results == ["Aborted", "Promoted", "RolledBack", "Promoted", "RolledBack", "Promoted", "Promoted"]


@pytest.mark.long
@pytest.mark.timeout(3600, func_only=True)
def test_they_do_so_many_times(place: Place, registry: Registry, model: str, slow: str) -> None:
    for _ in range(7):
        in_turn(place, registry, model, slow, times=3)


def in_turn(place: Place, registry: Registry, model: str, slow: str, *, times: int) -> list[int]:
    """Under load, so many versions take over, and after each a slow one is put back by itself; returns the weights that were seen."""
    registry.set_alias(model, "1")
    place.apply(a_model("stepwise", model, replicas=2, rollout=FAST | {"analysis": JUDGED}))
    place.wait_ready("stepwise")
    seen: list[int] = []
    for _ in range(times):
        with load.on(place, "stepwise", "digits-onnx", pause=0.02, by_grpc=model) as running:
            version, _ = takes_over(place, registry, model, seen)
            is_put_back_for_being_slow(place, registry, model, slow)
            registry.set_alias(model, version)
            place.wait_ready("stepwise")
        assert running.failed == 0, running.said
        assert running.answered > 200
    return seen


def takes_over(place: Place, registry: Registry, model: str, seen: list[int]) -> tuple[str, str]:
    """The version that does, and another one that is not stable; adds the weights on the way to `seen`."""
    version, other = [number for number in ("1", "2", "3") if number != place.stable_version("stepwise")]
    registry.set_alias(model, version)

    def arrived() -> bool:
        seen.append(weight(place, "stepwise"))
        return place.stable_version("stepwise") == version

    until(180, f"version {version} is stable", arrived, lambda: place.status("stepwise"))
    return version, other


def is_put_back_for_being_slow(place: Place, registry: Registry, model: str, slow: str) -> None:
    """By a guard, at the first weight: before the second one it must have seen more than it needs."""
    registry.set_alias(model, slow)
    put_back = place.wait_for_reason("stepwise", "RolledBack")
    assert "took longer than 0.1 s, at stable" in put_back["message"]
    [rejected] = place.status("stepwise")["rejected"]
    assert (rejected["modelVersion"], rejected["reason"]) == (slow, Reason.ANALYSIS_FAILED)


def is_put_back_by_hand(place: Place, registry: Registry, model: str, version: str) -> None:
    registry.set_alias(model, version)
    until(120, "the next one has 20 %", lambda: weight(place, "stepwise") == 20, lambda: place.status("stepwise"))
    place.command("stepwise", f"abort@{place.status('stepwise')['canary']['revision']}")
    place.wait_for_reason("stepwise", "RolledBack")


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
        place.command("asked", f"abort@{canary}")
        place.wait_for_reason("asked", "RolledBack")
        until(60, "its pods have ended", lambda: not place.pods("asked", canary))
        place.command("asked", f"retry@{canary}")
        place.wait_for_reason("asked", "Paused")
        place.command("asked", f"promote@{canary}/1")
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
        place.command("tested", f"abort@{place.status('tested')['canary']['revision']}")
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
    place.command("shadowed", f"promote@{canary}")
    until(60, "it is stable", lambda: place.stable_version("shadowed") == "2")
    assert "shadow" not in place.status("shadowed")


def versions_at(place: Place, service: str, model: str) -> set[str]:
    """Those that answer there, by HTTP and by gRPC."""
    with place.reach(service) as url, place.reach(service, 8081) as url_of_grpc:
        with grpc.insecure_channel(urllib.parse.urlsplit(url_of_grpc).netloc) as channel:
            message = inference_pb2.ModelMetadataRequest(name=model).SerializeToString()
            answer = channel.unary_unary(METADATA)(message, timeout=10)
        described = inference_pb2.ModelMetadataResponse.FromString(answer)
        return asking(url, model)(20) | set(described.versions)


def test_blue_green_shows_the_new_version_at_the_preview_and_then_to_everybody_at_once(
    place: Place, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    rollout: dict[str, Any] = {
        "strategy": "blueGreen",
        "blueGreen": {"autoPromote": False},
        "scaleDownDelaySeconds": 20,
    }
    place.apply(a_model("coloured", model, replicas=2, rollout=rollout))
    place.wait_ready("coloured")
    blue = place.status("coloured")["stable"]["revision"]
    with load.on(place, "coloured", "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2")
        place.wait_for_reason("coloured", "Paused")
        green = place.status("coloured")["canary"]
        assert green["readyReplicas"] == 2
        assert versions_at(place, "coloured-preview", model) == {"2"}
        assert versions_at(place, "coloured", model) == {"1"}

        promoted_at = time.monotonic()
        place.command("coloured", f"promote@{green['revision']}")
        until(60, "it is stable", lambda: place.stable_version("coloured") == "2", lambda: place.status("coloured"))
        assert len(place.pods("coloured", blue)) == 2
        assert versions_at(place, "coloured", model) == {"2"}
        until(60, "the old pods have ended", lambda: not place.pods("coloured", blue))
        assert time.monotonic() - promoted_at > rollout["scaleDownDelaySeconds"]
    assert running.failed == 0, running.said
    assert running.answered > 200
    assert not place.get("service", "coloured-preview")


def test_sticky_users_keep_the_new_version_while_its_weight_rises(place: Place, registry: Registry, model: str) -> None:
    """Each question takes a new connection, which goes to one of two routers."""
    registry.set_alias(model, "1")
    steps = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]
    sticky = {"stickiness": {"header": "x-user-id"}}
    place.apply(a_model("sticky", model, rollout=FAST | {"steps": steps}, traffic=sticky))
    place.wait_ready("sticky")
    assert len(place.find("pods", "app.kubernetes.io/component=router")) == 2
    users = [f"user-{number}" for number in range(100)]
    seen: dict[str, str] = dict.fromkeys(users, "")
    with place.reach("sticky") as url:
        asked = asking(url, model)

        def has(percent: int) -> bool:
            for user in users:
                seen[user] += "".join(asked(1, x_user_id=user))
            return weight(place, "sticky") == percent

        def with_the_new_one(percent: int) -> set[str]:
            """Asked while the weight rises, and five times each when it has."""
            until(120, f"it has {percent} %", lambda: has(percent), lambda: place.status("sticky"))
            assert all(len(asked(5, x_user_id=user)) == 1 for user in users)
            return {user for user in users if asked(1, x_user_id=user) == {"2"}}

        registry.set_alias(model, "2")
        few = with_the_new_one(20)
        canary = place.status("sticky")["canary"]["revision"]
        place.command("sticky", f"promote@{canary}")
        many = with_the_new_one(60)
        place.command("sticky", f"abort@{canary}")
        place.wait_for_reason("sticky", "RolledBack")
        until(30, "all users are back", lambda: all(asked(1, x_user_id=user) == {"1"} for user in users))

    assert 8 <= len(few) <= 35
    assert 42 <= len(many) <= 77
    assert few < many
    assert [user for user, versions in seen.items() if "21" in versions] == [], "somebody went back"
