"""Of what objects the router of a namespace consists."""

from __future__ import annotations

import re

from moorage_operator.core import routing
from moorage_operator.core.actions import Apply
from moorage_operator.core.kinds import DEPLOYMENT, DISRUPTION_BUDGET, Kind, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.platform import RouterSettings
from moorage_operator.core.revisions import Owner
from moorage_operator.core.router_plan import RouterPlan
from moorage_operator.router import config, settings, table

FRAUD = Owner("payments", "fraud", "uid-of-fraud")
A_ROUTER = {"app.kubernetes.io/component": "router", "app.kubernetes.io/managed-by": "moorage"}


def made(kind: Kind, made_by: RouterSettings) -> Manifest | None:
    """What is written of a kind where there is nothing yet, but for its content's hash."""
    nothing = Observed(owner=Owner("payments", routing.NAME, ""), generation=0)
    plan = RouterPlan("payments", [FRAUD], made_by, nothing)
    actions = plan.actions(routing.data(routing.Ports(), {}), may_roll=True)
    found = [action.manifest for action in actions if isinstance(action, Apply) and action.ref.kind is kind]
    return found[0] if found else None


def test_a_node_that_ends_or_an_upgrade_takes_one_router_pod_at_most() -> None:
    deployment = made(DEPLOYMENT, RouterSettings("moorage/operator:1"))
    budget = made(DISRUPTION_BUDGET, RouterSettings("moorage/operator:1"))
    assert deployment
    assert budget

    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    (apart,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert budget["spec"]["maxUnavailable"] == 1
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (spec["selector"], apart["podAffinityTerm"]["labelSelector"], budget["spec"]["selector"]):
        assert selector == {"matchLabels": A_ROUTER}
        assert A_ROUTER.items() <= labels.items()


def test_a_router_pod_that_ends_has_the_time_that_its_requests_need() -> None:
    """HAProxy takes SIGTERM for "at once": the first process of its container is ours, and there is no hook that could be late."""
    deployment = made(DEPLOYMENT, RouterSettings("moorage/operator:1"))
    assert deployment
    pod = deployment["spec"]["template"]["spec"]
    haproxy = next(item for item in pod["containers"] if item["name"] == "haproxy")

    assert haproxy["command"] == ["moorage-router", "haproxy"]
    assert "lifecycle" not in haproxy
    assert pod["terminationGracePeriodSeconds"] >= settings.load({}).drain_seconds + hard_stop_seconds()


def hard_stop_seconds() -> int:
    """After which HAProxy ends at last, as the agent writes it for what the operator tells it."""
    models: dict[str, Manifest] = {
        "fraud": {"port": 10000, "stable": "fraud-v1", "timeoutSeconds": routing.TIMEOUT_SECONDS}
    }
    told = table.parse(routing.data(routing.Ports(), models)[routing.TABLE])
    found = re.search(r"hard-stop-after (\d+)s", config.render(told, {}, settings.load({}).layout))
    assert found
    return int(found[1])


def test_a_single_router_pod_may_be_drained() -> None:
    assert made(DISRUPTION_BUDGET, RouterSettings("moorage/operator:1", replicas=1)) is None
