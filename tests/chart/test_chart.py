"""The chart, rendered: what an installation makes of its values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml

import helm
from moorage_operator.core.names import GROUP
from moorage_operator.settings import RouterSection, Settings

REGISTRY = {"name": "default", "trackingURI": "http://mlflow.mlflow.svc:5000", "existingSecret": "mlflow"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def deployment_of(values: helm.Object | None = None) -> Any:
    return helm.one(helm.template(values), "Deployment")["spec"]


def pod_of(values: helm.Object | None = None) -> Any:
    return deployment_of(values)["template"]["spec"]


def settings_of(values: helm.Object | None = None) -> Settings:
    text = helm.one(helm.template(values), "ConfigMap")["data"]["config.yaml"]
    return msgspec.yaml.decode(text, type=Settings)


def test_helm_lint_has_nothing_to_say() -> None:
    done = helm.run("lint", "--strict")

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_by_default_two_copies_take_turns_without_a_gap() -> None:
    spec = deployment_of()

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert helm.one(helm.template(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_one_copy_has_no_disruption_budget() -> None:
    kinds = {item["kind"] for item in helm.template({"replicas": 1})}

    assert "PodDisruptionBudget" not in kinds


def test_every_selector_finds_the_pods() -> None:
    objects = helm.template({"serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}})
    labels = helm.one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()

    assert helm.one(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    assert helm.one(objects, "Service")["spec"]["selector"].items() <= labels
    assert helm.one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert helm.one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    service = helm.one(objects, "Service")["metadata"]["labels"].items()
    assert helm.one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= service


def test_the_selector_of_the_deployment_survives_an_upgrade_of_the_chart() -> None:
    keys = deployment_of()["selector"]["matchLabels"]

    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & keys.keys()


def test_the_pod_meets_the_restricted_pod_security_standard() -> None:
    pod = pod_of({"registries": [REGISTRY]})

    assert (
        pod["securityContext"] | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        == (pod["securityContext"])
    )
    assert pod["securityContext"]["runAsUser"] == 65532
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert all(volume.keys() & {"emptyDir", "configMap", "secret"} for volume in pod["volumes"])


def test_probes_and_environment_are_those_that_the_operator_has() -> None:
    container = pod_of()["containers"][0]
    variables = {item["name"] for item in container["env"]}

    assert variables == {"MOORAGE_CONFIG", "POD_NAME", "POD_NAMESPACE"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": settings_of().port, "protocol": "TCP"}]
    assert "args" not in container


def test_the_default_configuration_says_what_the_operator_takes_as_default_anyway() -> None:
    settings = settings_of()

    assert settings == Settings(
        images=settings.images,
        router=RouterSection(
            image="moorage/operator:0.1.0",
            resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            agent_resources={"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "192Mi"}},
            cluster_role="moorage-router-moorage-system",
        ),
        fetch_resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
    )
    assert (settings.images.runtime, settings.images.runtime_gpu) == (
        "moorage/runtime:0.1.0",
        "moorage/runtime:0.1.0-gpu",
    )


def test_a_registry_reaches_the_configuration_and_its_secret_the_file_system_only() -> None:
    values = {
        "registries": [
            REGISTRY | {"caBundle": CERTIFICATE},
            {"name": "open", "trackingURI": "https://x.example", "readOnly": True},
        ]
    }
    secured, plain = settings_of(values).registries
    pod = pod_of(values)
    mounts = {item["name"]: item["mountPath"] for item in pod["containers"][0]["volumeMounts"]}
    secrets = [item["secret"]["secretName"] for item in pod["volumes"] if "secret" in item]

    assert secured.tracking_uri == REGISTRY["trackingURI"]
    assert secured.ca_bundle == CERTIFICATE
    assert secured.credentials_directory == mounts["registry-default"]
    assert (plain.credentials_directory, plain.ca_bundle) == ("", "")
    assert (secured.read_only, plain.read_only) == (False, True)
    assert secrets == ["mlflow"]


def test_what_prometheus_wants_reaches_the_configuration_and_its_secret_the_file_system_only() -> None:
    wants = {"url": "https://prometheus.example", "existingSecret": "metrics-reader", "caBundle": CERTIFICATE}
    values = {"prometheus": wants, "registries": [REGISTRY | {"name": "prometheus"}]}
    settings, pod = settings_of(values), pod_of(values)
    mounts = {item["name"]: item["mountPath"] for item in pod["containers"][0]["volumeMounts"]}
    secrets = {item["name"]: item["secret"] for item in pod["volumes"] if "secret" in item}

    assert settings.prometheus.ca_bundle == CERTIFICATE
    assert settings.prometheus.credentials_directory == mounts["prometheus"] == "/etc/moorage/prometheus"
    assert settings.registries[0].credentials_directory == mounts["registry-prometheus"]
    assert secrets["prometheus"] == {"secretName": "metrics-reader", "optional": True, "defaultMode": 0o440}
    assert secrets["registry-prometheus"]["secretName"] == "mlflow"


def test_every_setting_of_the_operator_can_be_set() -> None:
    settings = settings_of(
        {
            "namespaces": ["a", "b"],
            "policy": {"images": ["ghcr.io/us/*"], "serviceAccounts": [], "secrets": ["mlflow-*"], "allowPickle": "never"},
            "models": {"fetchResources": {"requests": {"cpu": 1}}, "drainSeconds": 7, "terminationGracePeriodSeconds": 90},
            "images": {"pullPolicy": "Always"},
            "operator": {
                "logFormat": "json", "logLevel": "debug", "workers": 3, "writesPerSecond": 50.5, "resyncSeconds": 10,
                "registryPollSeconds": 2,
            },
        }
    )  # fmt: skip

    assert settings.namespaces == ("a", "b")
    assert settings.policy.images == ("ghcr.io/us/*",)
    assert (settings.policy.service_accounts, settings.policy.secrets) == ((), ("mlflow-*",))
    assert settings.policy.allow_pickle == "never"
    assert settings.fetch_resources["requests"] == {"cpu": "1", "memory": "256Mi"}
    assert (settings.drain_seconds, settings.termination_grace_period_seconds) == (7, 90)
    assert (settings.log_format, settings.log_level, settings.workers) == ("json", "debug", 3)
    assert (settings.writes_per_second, settings.resync_seconds, settings.registry_poll_seconds) == (50.5, 10, 2)
    assert settings.images.pull_policy == "Always"


@pytest.mark.parametrize(
    ("images", "runtime", "gpu"),
    [
        ({"runtime": {"tag": "1"}}, "moorage/runtime:1", "moorage/runtime:1-gpu"),
        ({"runtime": {"repository": "r.example/m"}}, "r.example/m:0.1.0", "r.example/m:0.1.0-gpu"),
        (
            {"runtime": {"digest": f"sha256:{'a' * 64}"}},
            f"moorage/runtime@sha256:{'a' * 64}",
            "moorage/runtime:0.1.0-gpu",
        ),
        ({"runtimeGPU": {"repository": "g", "tag": "2"}}, "moorage/runtime:0.1.0", "g:2"),
    ],
)
def test_images_are_named_by_tag_or_digest(images: helm.Object, runtime: str, gpu: str) -> None:
    found = settings_of({"images": images}).images

    assert (found.runtime, found.runtime_gpu) == (runtime, gpu)


def test_a_changed_configuration_restarts_the_operator_and_another_label_does_not() -> None:
    def checksum(values: helm.Object) -> str:
        return str(deployment_of(values)["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum({}) != checksum({"registries": [REGISTRY]})
    assert checksum({}) == checksum({"podLabels": {"team": "ml"}})


def test_placement_goes_to_the_pod_as_it_is() -> None:
    placement = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "system-cluster-critical",
    }
    pod = pod_of(placement | {"images": {"pullSecrets": [{"name": "hub"}]}})

    assert {key: pod[key] for key in placement} == placement
    assert pod["imagePullSecrets"] == [{"name": "hub"}]


def test_the_network_policy_lets_out_to_dns_the_api_server_and_the_registries() -> None:
    values = {
        "networkPolicy": {"enabled": True},
        "prometheus": {"url": "http://prometheus.monitoring.svc:9090"},
        "registries": [REGISTRY, {"name": "b", "trackingURI": "https://b.example/m"}],
    }
    spec = helm.one(helm.template(values), "NetworkPolicy")["spec"]

    assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == [
        [53, 53],
        [443, 6443],
        [8404],
        [8082],
        [9090],
        [5000, 443],
    ]
    assert [[port["port"] for port in rule["ports"]] for rule in spec["ingress"]] == [["http"]]


def test_the_crd_is_a_copy_that_stays_when_the_release_goes() -> None:
    source = yaml.safe_load((helm.REPOSITORY / "crds/modeldeployments.moorage.dev.yaml").read_text())
    crd = helm.one(helm.template(), "CustomResourceDefinition", f"modeldeployments.{GROUP}")

    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert crd["spec"] == source["spec"]


def test_the_crd_can_be_left_to_somebody_else() -> None:
    kinds = {item["kind"] for item in helm.template({"crds": {"install": False}})}

    assert "CustomResourceDefinition" not in kinds


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"policy": {"allowPickel": "never"}}, "additional properties 'allowPickel' not allowed"),
        ({"policy": {"allowPickle": "always"}}, "value must be one of 'never', 'perModel'"),
        ({"registries": [{"name": "default"}]}, "missing property 'trackingURI'"),
        ({"registries": [REGISTRY | {"trackingURI": "file:///tmp"}]}, "does not match pattern"),
        ({"registries": [REGISTRY | {"trackingURI": "http://me:secret@m"}]}, "put them into a Secret and name it in existingSecret"),
        ({"prometheus": {"url": "http://me:secret@p"}}, "put them into a Secret and name it in prometheus.existingSecret"),
        ({"prometheus": {"existingSecret": "login"}}, "say how prometheus.url is asked: set it as well"),
        ({"prometheus": {"caBundle": CERTIFICATE}}, "say how prometheus.url is asked: set it as well"),
        ({"prometheus": {"url": "https://p", "caBundle": "/etc/ca.pem"}}, "does not match pattern"),
        ({"prometheus": {"url": "prometheus:9090"}}, "does not match pattern"),
        ({"prometheus": {"url": "http://prometheus?tenant=1"}}, "does not match pattern"),
        ({"prometheus": {"url": "http://prometheus/#/graph"}}, "does not match pattern"),
        ({"registries": [REGISTRY, REGISTRY]}, "give each registry a name of its own"),
        ({"registries": [REGISTRY | {"caBundle": "/etc/ca.pem"}]}, "does not match pattern"),
        ({"namespaces": "all"}, "want array"),
        ({"replicas": 0}, "minimum: got 0, want 1"),
        ({"models": {"drainSeconds": 60}}, "models.terminationGracePeriodSeconds must be larger than models.drainSeconds"),
        ({"serviceAccount": {"create": False}}, "name the ServiceAccount that the operator shall use"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_name(values: helm.Object, sentence: str) -> None:
    assert sentence in helm.refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"registries": [REGISTRY | {"trackingURI": "http://me:secret@m"}]},
        {"prometheus": {"url": "http://me:secret@p:9090/prometheus"}},
    ],
)
def test_no_password_is_shown_when_one_is_refused(values: helm.Object) -> None:
    assert "secret@" not in helm.refusal(values)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://prometheus.monitoring.svc:9090/prometheus", 9090),
        ("https://thanos.example/select/0/prometheus/", 443),
        ("http://[fd00::1]:9090", 9090),
    ],
)
def test_a_prometheus_may_live_below_a_path(url: str, port: int) -> None:
    values = {"prometheus": {"url": url}, "networkPolicy": {"enabled": True}}
    egress = helm.one(helm.template(values), "NetworkPolicy")["spec"]["egress"]

    assert settings_of(values).prometheus.url == url
    assert [{"port": port, "protocol": "TCP"}] in [rule["ports"] for rule in egress]


def test_the_schema_knows_each_value_and_no_other() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    assert _paths_of_schema(schema, schema) - {"global"} == _paths(values, schema, schema)


def _paths_of_schema(node: Any, root: Any) -> set[str]:
    found = set()
    for name, child in _resolved(node, root).get("properties", {}).items():
        nested = _paths_of_schema(child, root)
        found |= {f"{name}.{path}" for path in nested} or {name}
    return found


def _paths(values: Any, node: Any, root: Any) -> set[str]:
    """Paths of the values, as deep as the schema names properties; a map left empty stands for all of them."""
    properties = _resolved(node, root).get("properties", {})
    found = set()
    for name, value in values.items():
        inner = properties.get(name, {})
        nested = (
            _paths(value, inner, root)
            if isinstance(value, dict) and _resolved(inner, root).get("properties")
            else set()
        )
        found |= {f"{name}.{path}" for path in nested} or {name}
    return found


def _resolved(node: Any, root: Any) -> Any:
    reference = node.get("$ref", "").removeprefix("#/definitions/")
    return root["definitions"][reference] if reference else node
