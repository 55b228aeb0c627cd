"""What the chart lets the operator do, and what it lets people do: no more than they need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import helm
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Kind

READ = {"get", "list", "watch"}
WRITE = {"create", "patch", "delete"}

Rules = dict[tuple[str, str], set[str]]


def roles(objects: list[helm.Object]) -> list[helm.Object]:
    return [item for item in objects if item["kind"] in ("Role", "ClusterRole")]


def rules_of(roles: Iterable[helm.Object]) -> Rules:
    """Verbs by API group and resource."""
    found: Rules = {}
    for rule in (rule for role in roles for rule in role["rules"]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def key(kind: Kind) -> tuple[str, str]:
    return kind.group, kind.plural


def operators(objects: list[helm.Object]) -> list[helm.Object]:
    return [role for role in roles(objects) if role["metadata"]["name"].startswith("moorage-operator")]


def test_no_role_reads_secrets_or_has_an_asterisk() -> None:
    for values in ({}, {"namespaces": ["a", "b"]}):
        rules = rules_of(roles(helm.template(values)))

        assert not [resource for _, resource in rules if resource.startswith("secrets")]
        assert not [rule for rule, verbs in rules.items() if "*" in {*rule, *verbs}]


def test_the_operator_has_just_the_verbs_that_it_needs() -> None:
    wanted: Rules = {key(kind): READ | WRITE for kind in (*kinds.CHILDREN, kinds.HTTP_ROUTE)}
    wanted |= {
        key(kinds.MODEL_DEPLOYMENT): READ,
        (kinds.MODEL_DEPLOYMENT.group, "modeldeployments/status"): {"patch"},
        (kinds.MODEL_DEPLOYMENT.group, "modeldeployments/finalizers"): {"update"},
        key(kinds.POD): {"list", "watch"},
        key(kinds.EVENT): {"create"},
        key(kinds.LEASE): {"create", "get", "patch"},
        key(kinds.CRD): {"get"},
        key(kinds.SERVICE_ACCOUNT): {"get"} | WRITE,
    }
    binding: Rules = {
        key(kinds.ROLE_BINDING): {"get"} | WRITE,
        (kinds.ROLE_BINDING.group, "clusterroles"): {"bind"},
    }

    assert rules_of(operators(helm.template())) == wanted | binding
    assert rules_of(operators(helm.template({"namespaces": ["a"]}))) == wanted


def test_a_router_reads_its_table_and_where_pods_are_and_nothing_else() -> None:
    cluster_wide = helm.one(helm.template(), "ClusterRole", "moorage-router-moorage-system")["rules"]
    listed = helm.one(helm.template({"namespaces": ["payments"]}), "Role", "moorage-router")

    assert cluster_wide == listed["rules"]
    assert listed["metadata"]["namespace"] == "payments"
    assert [(rule["resources"], rule.get("resourceNames"), set(rule["verbs"])) for rule in cluster_wide] == [
        (["configmaps"], ["moorage-router"], READ),
        (["endpointslices"], None, {"list", "watch"}),
    ]


def test_only_the_operators_own_lease_and_only_its_own_crd_are_in_reach() -> None:
    rules = [rule for role in operators(helm.template()) for rule in role["rules"]]
    named = {rule["resources"][0]: rule["resourceNames"] for rule in rules if "resourceNames" in rule}
    lease = helm.one(helm.template(), "Role", "moorage-operator-lease")

    assert named == {
        "leases": ["moorage-operator"],
        "customresourcedefinitions": ["modeldeployments.moorage.dev"],
        "clusterroles": ["moorage-router-moorage-system"],
        "rolebindings": ["moorage-router-moorage-system"],
        "serviceaccounts": ["moorage-router"],
    }
    assert lease["metadata"]["namespace"] == helm.NAMESPACE
    assert [rule["verbs"] for rule in lease["rules"] if "resourceNames" not in rule] == [["create"]]


def test_a_list_of_namespaces_gets_a_role_each_and_nothing_cluster_wide_but_the_crd() -> None:
    objects = helm.template({"namespaces": ["payments", "search"]})
    cluster = helm.one(objects, "ClusterRole", "moorage-operator-moorage-system")["rules"]
    places = {role["metadata"]["namespace"] for role in operators(objects) if role["kind"] == "Role"}

    assert [rule["resources"] for rule in cluster] == [["customresourcedefinitions"]]
    assert places == {"payments", "search", helm.NAMESPACE}


def test_every_role_of_the_operator_is_bound_to_its_service_account() -> None:
    objects = helm.template({"namespaces": ["payments"]})
    account = helm.one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    bindings = [
        item for item in objects if item["kind"].endswith("Binding") and item["metadata"]["name"] != "moorage-router"
    ]

    assert {_place(item) for item in bindings} == {_place(item) for item in operators(objects)}
    for binding in bindings:
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": helm.NAMESPACE}]


def _place(item: Any) -> tuple[str, str, str]:
    return item["kind"].removesuffix("Binding"), item["metadata"].get("namespace", ""), item["metadata"]["name"]


def test_people_with_view_may_read_and_people_with_edit_may_write_and_scale() -> None:
    objects = helm.template()
    view = helm.one(objects, "ClusterRole", "moorage-view-moorage-system")
    edit = helm.one(objects, "ClusterRole", "moorage-edit-moorage-system")
    group = kinds.MODEL_DEPLOYMENT.group

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert set().union(*rules_of([view]).values()) == READ
    assert rules_of([edit])[group, "modeldeployments"] == {"create", "update", "patch", "delete", "deletecollection"}
    assert rules_of([edit])[group, "modeldeployments/scale"] == {"update", "patch"}
    assert (group, "modeldeployments/status") not in rules_of([edit])


def test_roles_can_be_left_to_somebody_else() -> None:
    assert roles(helm.template({"rbac": {"create": False, "aggregate": False}})) == []


def test_two_releases_share_nothing_but_the_crd() -> None:
    def cluster_wide(namespace: str) -> set[tuple[str, str]]:
        objects = helm.template({}, "--namespace", namespace)
        return {(item["kind"], item["metadata"]["name"]) for item in objects if "namespace" not in item["metadata"]}

    assert cluster_wide("red") & cluster_wide("blue") == {("CustomResourceDefinition", "modeldeployments.moorage.dev")}
