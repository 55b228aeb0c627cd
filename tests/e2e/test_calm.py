"""Once everything is as it ought to be, the operator writes nothing: not at a resync, and not for what is written in other units."""

from __future__ import annotations

import time

import audit
from fixtures_cluster import Api
from installation import RESYNC_SECONDS, SETTLED_SECONDS, Installation
from place import Place, a_model, ending_namespaces, until

UNUSUAL = {"requests": {"cpu": "0.05", "memory": "196608Ki"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}}


def test_nothing_is_written_over_two_resyncs(api: Api, place: Place, operator: Installation) -> None:
    ending = ending_namespaces(api)
    place.apply(
        a_model("fixed", resources=UNUSUAL, replicas=2, runtime={"env": [{"name": "EMPTY", "value": ""}]}),
        a_model("scaled", resources=UNUSUAL, autoscaling={"maxReplicas": 2, "targetCPUUtilization": 1000}),
        a_model("failing", alias="nobody"),
        a_model("waiting", pod={"nodeSelector": {"no": "node"}}),
        a_model("asleep", suspend=True),
    )
    place.wait_ready("fixed", "scaled")
    place.wait_for_reason("waiting", "Unschedulable")
    place.wait_for_reason("failing", "AliasNotFound")
    place.wait_for_reason("scaled", "Scaling", kind="ScalingActive")
    user = audit.service_account(operator.namespace)

    def is_calm() -> bool:
        return audit.is_calm(api, [user], SETTLED_SECONDS, apart_from=ending)

    until(180, "the last write is some time ago", is_calm, every=2)

    since = audit.now()
    time.sleep(2.5 * RESYNC_SECONDS)  # the time over which nothing may happen, not a wait

    seen = audit.requests(api, user, since)
    lists = [item for item in seen if item.verb == "list" and item.resource == "moorage.dev/modeldeployments"]
    assert len(lists) >= 2, "two resyncs fell into this time"
    assert audit.writes(api, user, since, apart_from=ending) == []
