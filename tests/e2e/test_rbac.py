"""The operator has the rights that it uses, and no others: read from the API server's audit log, and by taking rights away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import audit
from fixtures_cluster import Api
from gateways import PARENT, Gateway
from installation import OPERATOR, Installation
from place import CHILDREN, Object, Place, a_model, until

ROUTES = "gateway.networking.k8s.io/httproutes"
INTERNAL = {
    ("moorage.dev/modeldeployments/finalizers", "update"): "asked by admission, for blockOwnerDeletion of a child",
    ("apps/deployments", "create"): "asked within an apply (PATCH) that makes the object",
    ("apps/controllerrevisions", "create"): "the same",
    ("/services", "create"): "the same",
    ("/configmaps", "create"): "the same",
    ("autoscaling/horizontalpodautoscalers", "create"): "the same",
    ("policy/poddisruptionbudgets", "create"): "the same",
    (ROUTES, "create"): "the same",
    ("coordination.k8s.io/leases", "create"): "used once, by the very first leader",
}
"""Rights that no line of an audit log shows, or that are used before the test begins. Those of children are proven below."""

PROVEN = [right for right in INTERNAL if "leases" not in right[0]]

RBAC = "rbac.authorization.k8s.io"
OF_ROUTERS = {
    ("/serviceaccounts", "create"): "asked within an apply (PATCH) that makes the object",
    (f"{RBAC}/rolebindings", "create"): "the same",
    (f"{RBAC}/clusterroles", "bind"): "asked when the role is bound",
    ("/serviceaccounts", "delete"): "asked by admission, for a change of the owners",
    (f"{RBAC}/rolebindings", "delete"): "the same",
}
"""The same, of what each namespace's router needs."""


def on_a_gateway(name: str, router: str = "gateway") -> Object:
    return {"router": router, "gateway": {"parentRefs": [PARENT], "hostnames": [f"{name}.example.org"]}}


def granted(operator: Installation) -> set[tuple[str, str]]:
    """(group/resource, verb) of all rules that are bound to the operator."""
    roles = [operator.place.get("role", f"{OPERATOR}-lease"), cluster_role(operator)]
    return {
        (f"{group}/{resource}", verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def cluster_role(operator: Installation) -> Object:
    return operator.place.get("clusterrole", f"{OPERATOR}-{operator.namespace}")


def live_a_full_life(place: Place, operator: Installation) -> None:
    """Everything that makes the operator call the API server in another way."""
    operator.restart()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}}
    place.apply(service, a_model("taken", autoscaling={"minReplicas": 2, "maxReplicas": 3}))
    place.wait_for_reason("taken", "NameConflict")
    # While one name is taken, the others are looked at before they are made again.
    until(60, "all children are there", lambda: len({item["kind"] for item in place.children("taken")}) == 6)
    before = {item["metadata"]["uid"] for item in place.children("taken")}
    place.kubectl("delete", CHILDREN, "--selector=moorage.dev/deployment=taken")
    until(60, "others are made", lambda: len({item["kind"] for item in place.children("taken")}) == 6)
    assert not before & {item["metadata"]["uid"] for item in place.children("taken")}
    place.apply(a_model("full", autoscaling={"minReplicas": 2, "maxReplicas": 3}, revisionHistoryLimit=0))
    place.wait_ready("full")
    revision = place.status("full")["stable"]["revision"]
    mark = {"metadata": {"annotations": {"team": "search"}}}
    place.patch("deployment", revision, {"spec": {"template": mark}})
    until(30, "the template is restored", lambda: "team" not in template_annotations(place, revision))
    place.change(
        "full", replicas=1, autoscaling=None, rollout={"scaleDownDelaySeconds": 0}, pod={"labels": {"team": "search"}}
    )
    place.wait_ready("full")
    until(
        60,
        "all of the first revision is gone",
        lambda: not [item for item in place.children("full") if item["metadata"]["name"] == revision],
    )

    publish_and_take_back(place)


def publish_and_take_back(place: Place) -> None:
    route = "httproutes.gateway.networking.k8s.io"
    place.apply(a_model("published", traffic=on_a_gateway("published"), rollout={"scaleDownDelaySeconds": 0}))
    place.wait_ready("published")
    place.change("published", pod={"labels": {"team": "search"}})
    place.wait_ready("published")
    place.change("published", traffic={"router": "replicas", "gateway": {"parentRefs": []}})
    until(60, "the route is gone", lambda: not place.get(route, "published"))


def template_annotations(place: Place, deployment: str) -> Object:
    return dict(place.get("deployment", deployment)["spec"]["template"]["metadata"].get("annotations", {}))


def test_every_right_is_used_and_none_is_missing(
    api: Api, gateway: Gateway, place: Place, operator: Installation
) -> None:
    since = audit.now()
    live_a_full_life(place, operator)
    seen = audit.requests(api, audit.service_account(operator.namespace), since)

    here = {place.name, operator.namespace, ""}  # in a namespace that is being deleted, everything is forbidden
    refused = [item for item in seen if item.code in (401, 403) and item.namespace in here]
    used = {(item.resource, item.verb) for item in seen}
    assert refused == []
    assert granted(operator) - used == {*INTERNAL, *OF_ROUTERS}


@contextlib.contextmanager
def without(operator: Installation, resource: str, verb: str) -> Iterator[None]:
    """The operator's ClusterRole lacks one verb on one resource for the time of the block."""
    role = cluster_role(operator)
    before = role["rules"]
    group, _, plural = resource.partition("/")
    rules = []
    for rule in before:
        if rule["apiGroups"] == [group] and plural in rule["resources"]:
            others = [item for item in rule["resources"] if item != plural]
            rules += [rule | {"resources": others}] if others else []
            rules.append(rule | {"resources": [plural], "verbs": [item for item in rule["verbs"] if item != verb]})
        else:
            rules.append(rule)
    name = role["metadata"]["name"]
    operator.place.patch("clusterrole", name, {"rules": [rule for rule in rules if rule["verbs"]]})
    try:
        yield
    finally:
        operator.place.patch("clusterrole", name, {"rules": before})


@pytest.mark.parametrize(("resource", "verb"), PROVEN)
def test_a_right_that_no_audit_log_shows_is_needed_all_the_same(
    gateway: Gateway, place: Place, operator: Installation, resource: str, verb: str
) -> None:
    name = "without-" + resource.partition("/")[2].partition("/")[0]
    traffic = on_a_gateway(name, "replicas") if resource == ROUTES else {}
    reason, kind = ("GatewayRefused", "TrafficProgrammed") if traffic else ("ChildRefused", "RuntimeAvailable")
    with without(operator, resource, verb):
        place.apply(a_model(name, autoscaling={"minReplicas": 2, "maxReplicas": 3}, traffic=traffic))
        told = place.wait_for_reason(name, reason, seconds=60, kind=kind)
        assert "forbidden" in told["message"] or "cannot" in told["message"]

    place.wait_ready(name)


@pytest.mark.parametrize(("resource", "verb"), OF_ROUTERS)
def test_a_right_for_routers_that_no_audit_log_shows_is_needed_all_the_same(
    api: Api, place: Place, operator: Installation, resource: str, verb: str
) -> None:
    """Its object is lost, or gets another owner, while the right is missing: refused; and made when it is back."""
    plural = "rolebindings" if resource.startswith(RBAC) else "serviceaccounts"
    name, theirs = f"owner-{verb}-{plural[0]}", "moorage-router"
    if plural == "rolebindings":
        theirs = f"{theirs}-{operator.namespace}"

    def refused() -> bool:
        seen = audit.requests(api, audit.service_account(operator.namespace), since)
        return any(item.code == 403 and item.namespace == place.name and plural in item.resource for item in seen)

    with without(operator, resource, verb):
        since = audit.now()
        if verb == "delete":
            place.apply(a_model(name))
        else:
            place.delete(plural, theirs)
        until(60, "it is refused", refused)

    until(60, "it is there", lambda: place.get(plural, theirs))
    if verb == "delete":
        until(120, "it has its new owner", lambda: name in owners_of(place, plural, theirs))


def owners_of(place: Place, plural: str, name: str) -> list[str]:
    found = place.get(plural, name).get("metadata", {}).get("ownerReferences", [])
    return [owner["name"] for owner in found]
