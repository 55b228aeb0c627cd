"""MLflow goes away and comes back: what runs keeps running, what was missed is made up for."""

from __future__ import annotations

import time

from mlflow_in_cluster import Registry
from place import Place, a_model, until


def test_models_serve_on_while_their_registry_is_down_and_follow_it_when_it_is_back(
    place: Place, registry: Registry
) -> None:
    for _ in range(2):
        registry.copy("survivor")
    registry.set_alias("survivor", "1")
    place.apply(a_model("survivor", "survivor"))
    place.wait_ready("survivor")
    pods = [pod["metadata"]["uid"] for pod in place.pods("survivor")]

    registry.stop()
    try:
        begin = time.monotonic()
        told = place.wait_for_reason("survivor", "RegistryUnreachable", kind="ModelResolved", seconds=30)
        seconds = time.monotonic() - begin
        place.apply(a_model("newcomer", "survivor"))
        place.wait_for_reason("newcomer", "RegistryUnreachable", seconds=30)

        assert told["status"] == "Unknown"
        assert seconds < 20
        assert place.condition("survivor", "Ready")["status"] == "True"
        assert place.condition("newcomer", "Ready")["status"] == "False"
        assert not place.condition("newcomer", "Stalled")
        assert place.ask("survivor", "/v2/models/survivor")["name"] == "survivor"
        assert [pod["metadata"]["uid"] for pod in place.pods("survivor")] == pods
    finally:
        registry.start()
    registry.set_alias("survivor", "2")

    place.wait_ready("newcomer")
    until(90, "version 2 is stable", lambda: place.status("survivor")["stable"]["modelVersion"] == "2")
    assert place.condition("survivor", "ModelResolved")["status"] == "True"
