"""The whole product on a real cluster: images, MLflow with trained models, the operator as its chart installs it.

Made once for all tests of this folder, removed after them. Every module of tests gets a namespace of its own, in which only
restricted pods may run.
"""

from __future__ import annotations

import concurrent.futures
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gateways
import mlflow_in_cluster
import wishes
from fixtures_cluster import Api
from gateways import Gateway
from installation import Installation
from mlflow_in_cluster import LOGIN, PORT, Registry
from place import Place, a_namespace, until
from wishes import Wishes

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests wait for an autoscaler. What the first one is given takes longer: images that were never built."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900, func_only=True))


@pytest.fixture(scope="session")
def load_image(api: Api) -> Callable[[str, str], None]:
    """Gives the cluster an image, from the sources as they are. A cluster of the user's own has to have all of them already."""
    if api.is_users_own:
        return lambda variant, tag: None

    def load(variant: str, tag: str) -> None:
        api.hack("images", "build", "--variant", variant)
        api.hack("images", "load", "--variant", variant, *(["--tag", tag] if tag else []))

    return load


@pytest.fixture(scope="session")
def images(load_image: Callable[[str, str], None]) -> None:
    for variant in ("operator", "runtime", "mlflow", "runtime-gpu"):
        load_image(variant, "")


@pytest.fixture(scope="session")
def registry(api: Api, images: None) -> Iterator[Registry]:
    """With version 1 of iris and of digits-onnx, both `champion`."""
    with a_namespace(api, f"moorage-e2e-mlflow-{uuid.uuid4().hex[:6]}") as place:
        place.apply(*mlflow_in_cluster.manifests(place))
        place.wait_rolled_out("mlflow")
        with place.reach("mlflow", PORT) as url:
            until(30, "MLflow answers", lambda: mlflow_in_cluster.is_up(url))
            found = Registry(place, url)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(found.train, ("iris", "digits-onnx")))
            place.wait_rolled_out(LOGIN)
            yield found
        found.in_pod("find", "/data", "-mindepth", "1", "-delete")
        place.kubectl("delete", "persistentvolume", f"{place.name}-mlflow", "--wait=false")


@pytest.fixture(scope="session")
def operator(api: Api, registry: Registry) -> Iterator[Installation]:
    """Two copies, for the whole cluster, with short intervals: what they wait for takes minutes otherwise."""
    found = Installation(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}")
    found.install(found.values(registry))
    yield found
    found.remove()


@pytest.fixture(scope="session")
def gateway(api: Api) -> Iterator[Gateway]:
    with gateways.running(api) as found:
        yield found


@pytest.fixture(scope="module")
def place(api: Api, operator: Installation) -> Iterator[Place]:
    """A namespace in which the operator works."""
    with a_namespace(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}") as found:
        yield found


@pytest.fixture
def wished(place: Place) -> Iterator[Wishes]:
    """What an autoscaler there is to want."""
    with wishes.served(place) as found:
        yield found
