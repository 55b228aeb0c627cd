"""The CRD in a real API server: what is refused at `kubectl apply`, and with which sentence; what is accepted, and what it becomes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import documents
from fixtures_cluster import Api

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
CRD = REPOSITORY / "crds/modeldeployments.moorage.dev.yaml"
GPU = {"limits": {"nvidia.com/gpu": 1}}
SECRET_KEY = {"secretKeyRef": {"name": "s", "key": "k"}}
CONFIG_KEY = {"configMapKeyRef": {"name": "c", "key": "k"}}

Object = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def served_crd(api: Api) -> None:
    """That the API server takes it also proves that its rules fit into the cost budget."""
    api.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
    api.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRD}")


def a_model(name: str = "iris", **spec: Any) -> Object:
    model = {"name": "iris", "alias": "champion"}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": model} | spec,
    }


def an_autoscaled_model(**autoscaling: Any) -> Object:
    return a_model(autoscaling={"maxReplicas": 3} | autoscaling, resources={"requests": {"cpu": "1"}})


def a_model_with_variable(**variable: Any) -> Object:
    return a_model(runtime={"env": [{"name": "X"} | variable]})


def a_model_with_steps(*steps: Object, **spec: Any) -> Object:
    return a_model(rollout={"steps": list(steps)}, **spec)


def a_judged_model(*guards: Object, **analysis: Any) -> Object:
    found = [{"name": f"guard-{number}"} | guard for number, guard in enumerate(guards)]
    return a_model(rollout={"analysis": analysis | ({"guards": found} if found else {})})


AN_ARM = {"name": "challenger", "model": {"alias": "challenger"}, "weight": 10}


def a_model_with_arms(*arms: Object) -> Object:
    return a_model(experiment={"arms": [AN_ARM | arm for arm in arms]})


def kubectl(api: Api, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As `api.kubectl`, for calls that may be refused."""
    program = shutil.which("kubectl", path=api.path) or "kubectl"
    environment = os.environ | {"KUBECONFIG": api.kubeconfig}
    return subprocess.run(
        [program, *arguments], input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def dry_run(api: Api, manifest: Object) -> subprocess.CompletedProcess[str]:
    return kubectl(
        api,
        "create",
        "--dry-run=server",
        "--validate=strict",
        "--output=json",
        "--filename=-",
        stdin=json.dumps(manifest),
    )


BY_PODS = {"router": "replicas"}
PUBLIC = {"parentRefs": [{"name": "public", "namespace": "infra"}], "hostnames": ["iris.example.com"]}
BY_GATEWAY = {"router": "gateway", "gateway": PUBLIC}
TO_TESTERS = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": 'it\'s "beta", ä'}}}
REFUSED = {
    "no model": (a_model(model=None), "spec.model: Required value"),
    "no alias and no version": (a_model(model={"name": "iris"}), "set exactly one of spec.model.alias"),
    "alias and version": (
        a_model(model={"name": "iris", "alias": "a", "version": "1"}),
        "set exactly one of spec.model.alias (follows the alias when it moves) and spec.model.version (stays on that version)",
    ),
    "empty name of the model": (a_model(model={"name": "", "alias": "a"}), "should be at least 1 chars long"),
    "version as a number": (a_model(model={"name": "iris", "version": 3}), "must be of type string"),
    "alias that is to go back without an alias": (
        a_model(model={"name": "iris", "version": "3"}, rollout={"rollback": {"moveAliasBack": True}}),
        "rollout.rollback.moveAliasBack needs spec.model.alias: with spec.model.version there is no alias that could be moved back",
    ),
    "version that is none": (a_model(model={"name": "iris", "version": "latest"}), "spec.model.version in body should match"),
    "name that is too long": (a_model("i" * 41), "use at most 40 lower-case letters"),
    "name that is no Service's": (a_model("1iris"), "metadata.name becomes the name of a Service"),
    "name with a dot": (a_model("iris.v1"), "start with a letter and end with a letter or digit"),
    "misspelt field": (a_model(replica=2), 'unknown field "spec.replica"'),
    "field of a later version": (a_model(traffic={"mesh": {}}), 'unknown field "spec.traffic.mesh"'),
    "unknown engine": (a_model(runtime={"engine": "tensorrt"}), 'supported values: "auto", "onnxruntime", "torch", "pyfunc"'),
    "unknown device": (a_model(runtime={"device": "tpu"}), 'supported values: "auto", "cpu", "cuda"'),
    "pyfunc without trust": (
        a_model(runtime={"engine": "pyfunc"}),
        "engine pyfunc runs code that comes with the model: set spec.runtime.allowPickle: true if you trust it",
    ),
    "cuda without a GPU": (
        a_model(runtime={"device": "cuda"}),
        "spec.runtime.device is cuda, but no GPU is asked for: add one to spec.resources.limits, for example nvidia.com/gpu: 1",
    ),
    "variable with value and source": (
        a_model_with_variable(value="1", valueFrom=SECRET_KEY),
        "set either value or valueFrom of an environment variable",
    ),
    "variable from two sources": (
        a_model_with_variable(valueFrom=SECRET_KEY | CONFIG_KEY),
        "set exactly one of valueFrom.secretKeyRef and valueFrom.configMapKeyRef",
    ),
    "variable from no source": (
        a_model_with_variable(valueFrom={}),
        "set exactly one of valueFrom.secretKeyRef and valueFrom.configMapKeyRef",
    ),
    "variable of the operator": (
        a_model(runtime={"env": [{"name": "MOORAGE_PORT", "value": "1"}]}),
        "environment variables that start with MOORAGE_ are set by the operator",
    ),
    "variable twice": (a_model(runtime={"env": [{"name": "X"}, {"name": "X"}]}), "Duplicate value"),
    "amount that is none": (a_model(resources={"limits": {"memory": "4 GB"}}), "spec.resources.limits.memory in body should match"),
    "negative replicas": (a_model(replicas=-1), "should be greater than or equal to 0"),
    "replicas and autoscaling": (
        an_autoscaled_model() | {"spec": an_autoscaled_model()["spec"] | {"replicas": 2}},
        "set either spec.replicas or spec.autoscaling: an autoscaler owns the number of replicas",
    ),
    "autoscaling without a maximum": (a_model(autoscaling={}), "spec.autoscaling.maxReplicas: Required value"),
    "minimum above maximum": (
        an_autoscaled_model(minReplicas=4),
        "spec.autoscaling.minReplicas must not be larger than maxReplicas",
    ),
    "autoscaling by CPU without a request": (
        a_model(autoscaling={"maxReplicas": 3}),
        "autoscaling by CPU utilization needs spec.resources.requests.cpu (or limits.cpu)",
    ),
    "autoscaling by memory without a request": (
        an_autoscaled_model(targetMemoryUtilization=80),
        "autoscaling by memory utilization needs spec.resources.requests.memory (or limits.memory)",
    ),
    "metric of no known type": (an_autoscaled_model(metrics=[{"type": "Magic"}]), 'supported values: "Resource", "Pods"'),
    "label of the operator": (
        a_model(pod={"labels": {"moorage.dev/track": "x"}}),
        "labels that start with moorage.dev/ or app.kubernetes.io/ are set by the operator",
    ),
    "annotation of the operator": (
        a_model(pod={"annotations": {"app.kubernetes.io/name": "x"}}),
        "annotations that start with moorage.dev/ or app.kubernetes.io/ are set by the operator",
    ),
    "annotation of the Service": (
        a_model(service={"annotations": {"moorage.dev/x": "y"}}),
        "annotations that start with moorage.dev/ are set by the operator",
    ),
    "port out of range": (a_model(service={"port": 70000}), "should be less than or equal to 65535"),
    "Service of another type": (a_model(service={"type": "ExternalName"}), '"ClusterIP", "NodePort", "LoadBalancer"'),
    "unknown strategy": (a_model(rollout={"strategy": "blue"}), 'supported values: "canary", "blueGreen", "recreate"'),
    "step that does two things": (a_model_with_steps({"setWeight": 50, "pause": {}}), "a step does one thing: setWeight"),
    "step that does nothing": (a_model_with_steps({}), "a step does one thing: setWeight"),
    "weight above 100": (a_model_with_steps({"setWeight": 101}), "should be less than or equal to 100"),
    "alpha in percent": (a_judged_model(alpha=5), "alpha is a share, from 0.0001 to 0.5: write 0.01 for 1 %"),
    "alpha of nothing": (a_judged_model(alpha=0), "alpha is a share, from 0.0001 to 0.5"),
    "quantile in percent": (a_judged_model({"latency": {"quantile": 95}}), "write 0.95 for 95 %"),
    "quantile of all": (a_judged_model({"latency": {"quantile": 1}}), "quantile is a share of the requests"),
    "no time at all": (a_judged_model({"latency": {"maxSeconds": 0}}), "maxSeconds is a time of at least 0.001 s"),
    "safe if not worse at all": (a_judged_model({"errorRate": {"maxOddsRatio": 1}}), "maxOddsRatio has to be at least 1.01"),
    "duration that is none": (
        a_model_with_steps({"pause": {"duration": "two minutes"}}),
        "a duration is a number of seconds, or like 90s, 2m or 1h30m",
    ),
    "duration of nothing": (a_model_with_steps({"pause": {"duration": 0}}), "a duration is a number of seconds"),
    "weight that pods can't show": (
        a_model_with_steps({"setWeight": 20}, replicas=3, traffic=BY_PODS),
        "with router replicas a weight is a ratio of pods, and with spec.replicas as it is these are possible: 25, 40, 50, 75, 80 and 90 %",
    ),
    "weight of a ratio under an autoscaler": (
        an_autoscaled_model() | {"spec": an_autoscaled_model()["spec"] | {"rollout": {"steps": [{"setWeight": 50}]}, "traffic": BY_PODS}},
        "a weight is a ratio of pods, and an autoscaler changes it",
    ),
    "scale of a ratio": (
        a_model_with_steps({"setCanaryScale": {"replicas": 2}}, traffic=BY_PODS),
        "with router replicas the number of pods is the weight",
    ),
    "scale that is none": (
        a_model_with_steps({"setCanaryScale": {}}),
        "set either replicas or matchTrafficWeight: true",
    ),
    "route without a value": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"header": "x-group"}}}),
        "a match has a header or a cookie, and the value that it must have",
    ),
    "route by two things": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"header": "a", "cookie": "b", "value": "c"}}}),
        "a match has a header or a cookie, and the value that it must have",
    ),
    "route by nothing": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"value": "c"}}}),
        "a match has a header or a cookie, and the value that it must have",
    ),
    "route by a value of two lines": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"header": "a", "value": "b\nc"}}}),
        "match.value in body should match",
    ),
    "route by a header of the router itself": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"header": "X-Moorage-Arm", "value": "b"}}}),
        "headers that start with x-moorage- are set by the router itself",
    ),
    "route without a name": (a_model_with_steps({"setHeaderRoute": {}}), "setHeaderRoute.name: Required value"),
    "route without a router": (
        a_model_with_steps(TO_TESTERS, traffic=BY_PODS),
        "router replicas knows no requests, only connections: setHeaderRoute needs router haproxy or gateway",
    ),
    "shadow without a router": (
        a_model(rollout={"shadow": {"percent": 10}}, traffic=BY_PODS),
        "router replicas knows no requests, only connections: rollout.shadow needs router haproxy",
    ),
    "experiment without a router": (
        a_model(experiment={"arms": [AN_ARM]}, traffic=BY_PODS),
        "router replicas knows no requests, only connections: spec.experiment needs router haproxy",
    ),
    "gateway without a Gateway": (
        a_model(traffic={"router": "gateway"}),
        "router gateway needs spec.traffic.gateway.parentRefs: the Gateway that divides the requests",
    ),
    "Gateway without a hostname": (
        a_model(traffic={"gateway": {"parentRefs": [{"name": "public"}]}}),
        "a route without a hostname would take all requests of the Gateway: set spec.traffic.gateway.hostnames",
    ),
    "hostname that is an address": (
        a_model(traffic=BY_GATEWAY | {"gateway": PUBLIC | {"hostnames": ["https://iris.example.com"]}}),
        "hostnames[0] in body should match",
    ),
    "key with a Gateway": (
        a_model(traffic=BY_GATEWAY | {"stickiness": {"header": "x-user"}}),
        "a Gateway divides each request anew: stickiness needs router haproxy",
    ),
    "route by a cookie with a Gateway": (
        a_model_with_steps({"setHeaderRoute": {"name": "t", "match": {"cookie": "a", "value": "b"}}}, traffic=BY_GATEWAY),
        "a Gateway matches headers, not cookies: setHeaderRoute by a cookie needs router haproxy",
    ),
    "shadow with a Gateway": (
        a_model(rollout={"shadow": {"percent": 10}}, traffic=BY_GATEWAY),
        "a Gateway compares no answers: rollout.shadow needs router haproxy",
    ),
    "experiment with a Gateway": (
        a_model(experiment={"arms": [AN_ARM]}, traffic=BY_GATEWAY),
        "a Gateway keeps nobody with an arm: spec.experiment needs router haproxy",
    ),
    "experiment without an arm": (a_model(experiment={"arms": []}), "should have at least 1 items"),
    "more than four arms": (a_model_with_arms(*({"name": f"a{number}"} for number in range(5))), "must have at most 4 items"),
    "two arms of one name": (a_model_with_arms({}, {}), "Duplicate value"),
    "arms that leave nothing": (
        a_model_with_arms({"weight": 50}, {"name": "rival", "weight": 50}),
        "the weights of spec.experiment.arms add up to more than 99",
    ),
    "arm with alias and version": (
        a_model_with_arms({"model": {"alias": "a", "version": "1"}}),
        "set exactly one of alias (follows the alias when it moves) and version (stays on that version) of an arm's model",
    ),
    "arm without a model": (a_model_with_arms({"model": {}}), "set exactly one of alias"),
    "arm with the name of a role": (a_model_with_arms({"name": "canary"}), "choose another name for the arm"),
    "arm with the name of a match": (a_model_with_arms({"name": "a-match"}), "choose another name for the arm"),
    "match of an arm without a value": (
        a_model_with_arms({"match": {"header": "x-group"}}),
        "the match of an arm has a header or a cookie, and the value that it must have",
    ),
    "match of an arm by the router's header": (
        a_model_with_arms({"match": {"header": "X-Moorage-Arm", "value": "b"}}),
        "headers that start with x-moorage- are set by the router itself",
    ),
    "shadow of more than all": (a_model(rollout={"shadow": {"percent": 101}}), "should be less than or equal to 100"),
    "two keys": (
        a_model(traffic={"stickiness": {"header": "x-user", "cookie": "user"}}),
        "set either stickiness.header or stickiness.cookie",
    ),
    "key without a router": (
        a_model(traffic=BY_PODS | {"stickiness": {"header": "x-user"}}),
        "router replicas knows no requests, only connections: stickiness needs router haproxy",
    ),
    "key of the router itself": (
        a_model(traffic={"stickiness": {"header": "x-moorage-arm"}}),
        "headers that start with x-moorage- are set by the router itself",
    ),
    "key that is no header": (
        a_model(traffic={"stickiness": {"header": "x user"}}),
        "spec.traffic.stickiness.header in body should match",
    ),
    "steps of another strategy": (
        a_model(rollout={"strategy": "recreate", "steps": [{"pause": {}}]}),
        "spec.rollout.steps are those of strategy canary",
    ),
    "time that is none": (
        a_model(restartAt="now"),
        "spec.restartAt is a time like 2026-01-31T12:00:00Z: write the present time to restart all pods",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_a_sentence_that_says_what_to_write(api: Api, case: str) -> None:
    manifest, sentence = REFUSED[case]

    done = dry_run(api, manifest)

    assert done.returncode != 0, "it is accepted"
    assert sentence in done.stderr


ACCEPTED = {
    "by a Gateway": a_model_with_steps(TO_TESTERS, {"setWeight": 13}, traffic=BY_GATEWAY),
    "on a Gateway, by a router": a_model(traffic={"gateway": PUBLIC, "stickiness": {"header": "x-user"}}),
    "the smallest": a_model(),
    "a version": a_model(model={"name": "iris", "version": "12"}),
    "a version that moves no alias": a_model(model={"name": "iris", "version": "12"}, rollout={"rollback": {"moveAliasBack": False}}),
    "an alias that goes back": a_model(rollout={"rollback": {"moveAliasBack": True}}),
    "a name of one letter": a_model("i"),
    "the longest name": a_model("i" * 40),
    "a GPU": a_model(runtime={"device": "cuda"}, resources=GPU),
    "a MIG slice": a_model(runtime={"device": "cuda"}, resources={"limits": {"nvidia.com/mig-1g.5gb": "1"}}),
    "pyfunc with trust": a_model(runtime={"engine": "pyfunc", "allowPickle": True}),
    "variables": a_model_with_variable(valueFrom=CONFIG_KEY),
    "no pods": a_model(replicas=0),
    "a weight by pods": a_model_with_steps({"setWeight": 25}, replicas=3, traffic=BY_PODS),
    "a key": a_model(traffic={"stickiness": {"cookie": "session"}}),
    "a scale": a_model_with_steps({"setCanaryScale": {"replicas": 2}}, {"setCanaryScale": {"matchTrafficWeight": True}}),
    "routes that begin and end": a_model_with_steps(
        TO_TESTERS,
        {"setHeaderRoute": {"name": "staff", "match": {"cookie": "staff", "value": "yes"}}},
        {"setHeaderRoute": {"name": "testers"}},
        {"setHeaderRoute": {"name": "staff", "match": {}}},
    ),
    "as many routes as there may be": a_model_with_steps(*[TO_TESTERS] * 32),
    "an experiment": a_model_with_arms(
        {"match": {"header": "x-group", "value": "beta"}, "replicas": 1, "resources": {"limits": {"cpu": 1}}},
        {"name": "rival", "model": {"version": "3"}, "weight": 89},
    ),
    "arms for testers alone": a_model_with_arms({"weight": 0, "match": {"cookie": "staff", "value": "yes"}}),
    "a shadow": a_model(rollout={"shadow": {"percent": 10}}),
    "no shadow by pods": a_model(rollout={"shadow": {"percent": 0}}, traffic=BY_PODS),
    "steps": a_model_with_steps(
        {"setWeight": 25}, {"pause": {"duration": "1h30m"}}, {"pause": {"duration": 90}}, {"pause": {}}, replicas=3
    ),
    "all at once under an autoscaler": an_autoscaled_model()
    | {"spec": an_autoscaled_model()["spec"] | {"rollout": {"steps": [{"setWeight": 0}, {"pause": {}}]}}},
    "autoscaling by CPU": an_autoscaled_model(minReplicas=3),
    "autoscaling by the limit": a_model(autoscaling={"maxReplicas": 2}, resources={"limits": {"cpu": 2, "memory": "1Gi"}}),
    "autoscaling by a metric alone": a_model(
        autoscaling={
            "maxReplicas": 2,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5, "tolerance": "0.05"}},
        }
    ),
    "placement": a_model(
        pod={
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": [{"name": "hub"}],
        }
    ),
    "a time": a_model(restartAt="2026-01-31T12:00:00+01:00"),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_good_input_is_accepted_and_kept_as_written(api: Api, case: str) -> None:
    done = dry_run(api, ACCEPTED[case])

    assert done.returncode == 0, done.stderr
    stored = json.loads(done.stdout)["spec"]
    assert _is_part_of(ACCEPTED[case]["spec"], stored)


def _is_part_of(part: Any, whole: Any) -> bool:
    """Whether all that was written is there still; the API server may have added defaults."""
    if isinstance(part, dict):
        return all(key in whole and _is_part_of(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_is_part_of, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize("manifest", documents.model_deployments(), ids=lambda item: item.place)
def test_each_example_and_each_snippet_of_the_documents_is_accepted(api: Api, manifest: documents.Snippet) -> None:
    done = dry_run(api, yaml.safe_load(manifest.text) | {"metadata": {"name": "snippet"}})

    assert done.returncode == 0, done.stderr


@pytest.fixture
def stored(api: Api, namespace: str) -> Iterator[str]:
    """A ModelDeployment in the cluster."""
    name = "scaled"
    yield name
    kubectl(api, "--namespace", namespace, "delete", "mdep", name, "--ignore-not-found")


def create(api: Api, namespace: str, manifest: Object) -> Object:
    created: Object = json.loads(
        api.kubectl("--namespace", namespace, "create", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
    )
    return created


def test_a_new_one_is_of_no_observed_generation(api: Api, namespace: str, stored: str) -> None:
    created = create(api, namespace, a_model(stored))

    assert created["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize("replicas", [{}, {"replicas": 2}], ids=["without replicas", "with replicas"])
def test_kubectl_scale_sets_the_replicas(api: Api, namespace: str, stored: str, replicas: Object) -> None:
    create(api, namespace, a_model(stored, **replicas))

    api.kubectl("--namespace", namespace, "scale", f"mdep/{stored}", "--replicas=5")

    found = api.kubectl("--namespace", namespace, "get", "mdep", stored, "-o", "jsonpath={.spec.replicas}")
    assert found == "5"


def test_kubectl_scale_is_refused_where_an_autoscaler_owns_the_number(api: Api, namespace: str, stored: str) -> None:
    create(api, namespace, an_autoscaled_model() | {"metadata": {"name": stored}})

    done = kubectl(api, "--namespace", namespace, "scale", f"mdep/{stored}", "--replicas=5")

    assert "an autoscaler owns the number of replicas" in done.stderr


def test_columns_are_those_that_people_look_for(api: Api, namespace: str, stored: str) -> None:
    create(api, namespace, a_model(stored))

    header = api.kubectl("--namespace", namespace, "get", "mdep").splitlines()[0].split()
    assert header == ["NAME", "READY", "PHASE", "STABLE", "CANARY", "WEIGHT", "URL", "AGE"]
