"""One behaviour of `ports.Registry`, held by the registry in memory and by `MlflowRegistry` with a real MLflow server."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import requests

from fake_registry import SOURCE, FakeRegistry
from mlflow_server import MlflowServer
from moorage_operator import errors, ports
from moorage_operator.adapters.access import Access
from moorage_operator.adapters.registry import MlflowRegistry, RegistryDeclaration
from moorage_operator.core.registry import ModelRef, ModelVersion

pytestmark = pytest.mark.timeout(300)  # the first test that needs a server waits for its start


MLMODEL = """
flavors: {python_function: {loader_module: mlflow.sklearn}}
signature:
  inputs: '[{"type": "double", "name": "amount", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
  params: null
"""


class Publisher(Protocol):
    """What a data scientist does with MLflow, who is a `FakeRegistry` or a `RealPublisher` here."""

    def register(self, name: str, *, status: str = "READY", source: str = SOURCE) -> str: ...
    def upload(self, source: str, described: str) -> None: ...
    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def delete_alias(self, name: str, alias: str) -> None: ...
    def delete_version(self, name: str, version: str) -> None: ...
    def set_tag(self, name: str, version: str, key: str, value: str) -> None: ...
    def tags_of(self, name: str, version: str) -> dict[str, str]: ...


class RealPublisher:
    """Publishes with MLflow's own client; what no client can do is done in the server's database."""

    def __init__(self, server: MlflowServer) -> None:
        self._client: Any = server.client()
        self._proxy = f"{server.uri}/api/2.0/mlflow-artifacts/artifacts"
        self._login = (server.username, server.password) if server.username else None
        self._database = server.folder / "mlflow.db"

    def register(self, name: str, *, status: str = "READY", source: str = SOURCE) -> str:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        version = str(self._client.create_model_version(name, "s3://bucket/replaced-below").version)
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as database, database:
            change = "UPDATE model_versions SET status = ?, storage_location = ? WHERE name = ? AND version = ?"
            assert database.execute(change, (status, source, name, version)).rowcount == 1
        return version

    def upload(self, source: str, described: str) -> None:
        url = f"{self._proxy}/{urlsplit(source).path.strip('/')}/MLmodel"
        requests.put(url, data=described.encode(), auth=self._login, timeout=30).raise_for_status()

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._client.set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        self._client.delete_registered_model_alias(name, alias)

    def delete_version(self, name: str, version: str) -> None:
        self._client.delete_model_version(name, version)

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._client.set_model_version_tag(name, version, key, value)

    def tags_of(self, name: str, version: str) -> dict[str, str]:
        return dict(self._client.get_model_version(name, version).tags)


@dataclass(frozen=True)
class World:
    """A registry, someone who publishes to it, and a model name that nobody else uses."""

    registry: ports.Registry
    publisher: Publisher
    name: str

    def alias(self, alias: str) -> ModelRef:
        return ModelRef(self.name, alias=alias)

    def version(self, version: str) -> ModelRef:
        return ModelRef(self.name, version=version)

    async def error(self, ref: ModelRef) -> errors.RegistryError:
        with pytest.raises(errors.RegistryError) as raised:
            await self.registry.resolve(ref)
        return raised.value


@contextlib.contextmanager
def connected(server: MlflowServer, *, credentials: Path | None = None) -> Iterator[MlflowRegistry]:
    registry = MlflowRegistry(RegistryDeclaration("lab", server.uri, Access(credentials)))
    try:
        yield registry
    finally:
        registry.close()


def a_name() -> str:
    return f"iris-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["memory", "mlflow"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        fake = FakeRegistry()
        yield World(fake, fake, a_name())
        return
    server = request.getfixturevalue("mlflow_server")
    with connected(server) as registry:
        yield World(registry, RealPublisher(server), a_name())


async def test_an_alias_is_answered_with_the_version_that_it_names(world: World) -> None:
    world.publisher.register(world.name)
    world.publisher.register(world.name)
    world.publisher.set_alias(world.name, "champion", "1")
    assert await world.registry.resolve(world.alias("champion")) == ModelVersion(world.name, "1", "", SOURCE)


async def test_an_alias_that_moves_is_followed(world: World) -> None:
    for version in ("1", "2"):
        assert world.publisher.register(world.name) == version
        world.publisher.set_alias(world.name, "champion", version)
        assert (await world.registry.resolve(world.alias("champion"))).version == version


async def test_a_version_is_answered_with_itself(world: World) -> None:
    world.publisher.register(world.name)
    world.publisher.register(world.name, source="s3://bucket/iris/2")
    answer = await world.registry.resolve(world.version("2"))
    assert answer == ModelVersion(world.name, "2", "", "s3://bucket/iris/2")


async def test_a_model_that_does_not_exist_is_named(world: World) -> None:
    for ref in (world.alias("champion"), world.version("1")):
        error = await world.error(ref)
        assert isinstance(error, errors.ModelNotFound)
        assert f"has no model '{world.name}'" in str(error)


async def test_an_alias_that_does_not_exist_is_answered_with_those_that_do(world: World) -> None:
    world.publisher.register(world.name)
    for alias in ("champion", "challenger"):
        world.publisher.set_alias(world.name, alias, "1")
    error = await world.error(world.alias("chamption"))
    assert isinstance(error, errors.AliasNotFound)
    assert "has no alias 'chamption'; it has 'challenger', 'champion'" in str(error)


async def test_a_version_that_does_not_exist_is_answered_with_the_latest(world: World) -> None:
    for _ in range(3):
        world.publisher.register(world.name)
    error = await world.error(world.version("7"))
    assert isinstance(error, errors.VersionNotFound)
    assert "has no version 7: the latest is 3" in str(error)


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "latest", "9" * 30, "1 OR 1=1"])
async def test_what_can_not_be_a_version_does_not_exist(world: World, version: str) -> None:
    world.publisher.register(world.name)
    assert isinstance(await world.error(world.version(version)), errors.VersionNotFound)


async def test_an_alias_of_a_deleted_version_does_not_exist_any_more(world: World) -> None:
    world.publisher.register(world.name)
    world.publisher.set_alias(world.name, "champion", "1")
    await world.registry.resolve(world.alias("champion"))
    world.publisher.delete_version(world.name, "1")
    assert isinstance(await world.error(world.alias("champion")), errors.AliasNotFound)
    assert isinstance(await world.error(world.version("1")), errors.VersionNotFound)


async def test_an_alias_that_is_set_later_heals_the_question(world: World) -> None:
    world.publisher.register(world.name)
    await world.error(world.alias("champion"))
    world.publisher.set_alias(world.name, "champion", "1")
    assert (await world.registry.resolve(world.alias("champion"))).version == "1"
    world.publisher.delete_alias(world.name, "champion")
    assert isinstance(await world.error(world.alias("champion")), errors.AliasNotFound)


@pytest.mark.parametrize("status", ["PENDING_REGISTRATION", "FAILED_REGISTRATION"])
async def test_only_a_version_that_is_ready_is_an_answer(world: World, status: str) -> None:
    world.publisher.register(world.name, status=status)
    world.publisher.set_alias(world.name, "champion", "1")
    for ref in (world.alias("champion"), world.version("1")):
        error = await world.error(ref)
        assert isinstance(error, errors.VersionNotReady)
        assert "version 1" in str(error)


async def test_artifacts_in_a_local_path_are_refused(world: World) -> None:
    world.publisher.register(world.name, source="file:///mlruns/1")
    error = await world.error(world.version("1"))
    assert isinstance(error, errors.SourceRefused)
    assert "local path" in str(error)


@pytest.mark.parametrize("alias", ["champion", ""], ids=["by its alias", "by its number"])
async def test_a_version_comes_with_its_signature(world: World, alias: str) -> None:
    source = f"mlflow-artifacts:/{world.name}/models/m 1/artifacts"
    world.publisher.register(world.name, source=source)
    world.publisher.upload(source, MLMODEL)
    world.publisher.set_alias(world.name, "champion", "1")
    found = await world.registry.resolve(ModelRef(world.name, alias=alias, version="" if alias else "1"))
    assert found.signature
    assert (found.signature.inputs, found.signature.outputs) == ((("amount", "double"),), (("", "float64[-1]"),))


@pytest.mark.parametrize("source", ["s3://bucket/{}", "mlflow-artifacts:/{}/nothing/there"])
async def test_where_the_server_has_no_such_file_the_version_is_answered_all_the_same(
    world: World, source: str
) -> None:
    world.publisher.register(world.name, source=source.format(world.name))
    assert (await world.registry.resolve(world.version("1"))).signature is None


async def test_a_model_without_signature_has_none(world: World) -> None:
    source = f"mlflow-artifacts:/{world.name}"
    world.publisher.register(world.name, source=source)
    world.publisher.upload(source, "flavors: {}\n")
    assert (await world.registry.resolve(world.version("1"))).signature is None


async def test_a_name_with_unusual_letters_is_found(world: World) -> None:
    name = f'{world.name} "ümlaut" & 100% #1?'
    world.publisher.register(name)
    world.publisher.set_alias(name, "champion", "1")
    assert (await world.registry.resolve(ModelRef(name, alias="champion"))).name == name


# --- what it is told


async def test_tags_are_set_and_removed_and_others_stay(world: World) -> None:
    world.publisher.register(world.name)
    for key, value in (("team", "fraud"), ("verdict", "failed"), ("reason", "Slow"), ("same", "1")):
        world.publisher.set_tag(world.name, "1", key, value)
    told = {
        "reason": None,
        "never there": None,
        "same": "1",
        "message": 'it was "slow", ümlaut\n' * 40,
        "verdict": "promoted",
    }
    for _ in range(2):
        await world.registry.set_tags(world.name, "1", told)
        assert world.publisher.tags_of(world.name, "1") == {
            "team": "fraud", "verdict": "promoted", "same": "1", "message": told["message"]
        }  # fmt: skip


async def test_tags_of_what_is_not_there_are_refused_by_name(world: World) -> None:
    with pytest.raises(errors.ModelNotFound):
        await world.registry.set_tags(world.name, "1", {"verdict": "promoted"})
    for version in (world.publisher.register(world.name), world.publisher.register(world.name)):
        world.publisher.delete_version(world.name, version)
        with pytest.raises(errors.VersionNotFound):
            await world.registry.set_tags(world.name, version, {"verdict": "promoted"})


async def test_an_alias_is_moved_away_from_one_version_only(world: World) -> None:
    for _ in range(3):
        world.publisher.register(world.name)
    world.publisher.set_alias(world.name, "champion", "2")
    assert await world.registry.move_alias(world.name, "champion", away_from="2", to="1")
    assert (await world.registry.resolve(world.alias("champion"))).version == "1"
    assert await world.registry.move_alias(world.name, "champion", away_from="2", to="1"), "it is there already"
    world.publisher.set_alias(world.name, "champion", "3")
    assert not await world.registry.move_alias(world.name, "champion", away_from="2", to="1")
    assert (await world.registry.resolve(world.alias("champion"))).version == "3"


async def test_an_alias_that_is_gone_is_not_made_again(world: World) -> None:
    assert not await world.registry.move_alias(world.name, "champion", away_from="2", to="1")
    world.publisher.register(world.name)
    assert not await world.registry.move_alias(world.name, "champion", away_from="2", to="1")
    assert isinstance(await world.error(world.alias("champion")), errors.AliasNotFound)


async def test_an_alias_is_not_moved_to_a_version_that_is_deleted(world: World) -> None:
    for _ in range(2):
        world.publisher.register(world.name)
    world.publisher.set_alias(world.name, "champion", "2")
    world.publisher.delete_version(world.name, "1")
    with pytest.raises(errors.VersionNotFound):
        await world.registry.move_alias(world.name, "champion", away_from="2", to="1")
    assert (await world.registry.resolve(world.alias("champion"))).version == "2"


# --- the real server only


async def test_a_misspelt_model_is_answered_with_the_closest_name(mlflow_server: MlflowServer) -> None:
    name = a_name()
    RealPublisher(mlflow_server).register(name)
    with connected(mlflow_server) as registry, pytest.raises(errors.ModelNotFound, match=f"did you mean '{name}'"):
        await registry.resolve(ModelRef(name.replace("iris", "irsi"), alias="champion"))


async def test_a_source_that_is_a_logged_model_is_answered_with_its_artifacts(mlflow_server: MlflowServer) -> None:
    client, name = mlflow_server.client(), a_name()
    client.create_registered_model(name)
    logged = client.create_logged_model("0", name="iris")
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_model_version(name, f"models:/{logged.model_id}", model_id=logged.model_id)
    with connected(mlflow_server) as registry:
        answer = await registry.resolve(ModelRef(name, version="1"))
    assert answer.source == logged.artifact_location
    assert answer.source.startswith("mlflow-artifacts:/")


def a_secret(folder: Path, server: MlflowServer, *, password: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "username").write_text(server.username)
    (folder / "password").write_text(password or server.password)
    return folder


async def test_two_registries_answer_with_their_own_credentials_at_once(
    mlflow_server: MlflowServer, mlflow_server_with_login: MlflowServer, tmp_path: Path
) -> None:
    name = a_name()
    for server, versions in ((mlflow_server, 1), (mlflow_server_with_login, 2)):
        for _ in range(versions):
            RealPublisher(server).register(name)
        server.client().set_registered_model_alias(name, "champion", versions)
    secret = a_secret(tmp_path, mlflow_server_with_login)
    with connected(mlflow_server) as ours, connected(mlflow_server_with_login, credentials=secret) as theirs:
        for registry, version in ((ours, "1"), (theirs, "2"), (ours, "1")):
            assert (await registry.resolve(ModelRef(name, alias="champion"))).version == version


async def test_the_signature_is_read_with_the_credentials_of_its_registry(
    mlflow_server_with_login: MlflowServer, tmp_path: Path
) -> None:
    publisher, name = RealPublisher(mlflow_server_with_login), a_name()
    publisher.register(name, source=f"mlflow-artifacts:/{name}")
    publisher.upload(f"mlflow-artifacts:/{name}", MLMODEL)
    with connected(mlflow_server_with_login, credentials=a_secret(tmp_path, mlflow_server_with_login)) as registry:
        assert (await registry.resolve(ModelRef(name, version="1"))).signature


async def test_wrong_or_missing_credentials_are_said_and_heal_without_a_restart(
    mlflow_server_with_login: MlflowServer, tmp_path: Path
) -> None:
    name = a_name()
    RealPublisher(mlflow_server_with_login).register(name)
    ref = ModelRef(name, version="1")
    with connected(mlflow_server_with_login) as registry, pytest.raises(errors.RegistryUnauthorized):
        await registry.resolve(ref)
    secret = a_secret(tmp_path / "secret", mlflow_server_with_login, password="a wrong password")
    with connected(mlflow_server_with_login, credentials=secret) as registry:
        with pytest.raises(errors.RegistryUnauthorized, match="check the keys of its existingSecret"):
            await registry.resolve(ref)
        a_secret(secret, mlflow_server_with_login)
        assert (await registry.resolve(ref)).version == "1"


def make_user(server: MlflowServer, name: str) -> None:
    """With the administrator's password, and the permission that everybody has: READ."""
    url, login = f"{server.uri}/api/2.0/mlflow/users/create", (server.username, server.password)
    body = {"username": name, "password": server.password}
    requests.post(url, json=body, auth=login, timeout=30).raise_for_status()


async def test_a_user_who_may_only_read_is_told_what_to_grant(
    mlflow_server_with_login: MlflowServer, tmp_path: Path
) -> None:
    server, name, reader = mlflow_server_with_login, a_name(), f"reader-{uuid.uuid4().hex[:8]}"
    for _ in range(2):
        RealPublisher(server).register(name)
    RealPublisher(server).set_alias(name, "champion", "2")
    make_user(server, reader)
    secret = a_secret(tmp_path, server)
    (secret / "username").write_text(reader)
    with connected(server, credentials=secret) as registry:
        assert (await registry.resolve(ModelRef(name, alias="champion"))).version == "2"
        with pytest.raises(errors.RegistryUnauthorized, match="to change this model: grant it EDIT"):
            await registry.set_tags(name, "2", {"verdict": "failed"})
        with pytest.raises(errors.RegistryUnauthorized, match="to change this model: grant it EDIT"):
            await registry.move_alias(name, "champion", away_from="2", to="1")
        assert (await registry.resolve(ModelRef(name, alias="champion"))).version == "2"
    secret = a_secret(tmp_path, server)
    with connected(server, credentials=secret) as registry:
        await registry.set_tags(name, "2", {"verdict": "failed"})
        assert await registry.move_alias(name, "champion", away_from="2", to="1")
    assert RealPublisher(server).tags_of(name, "2") == {"verdict": "failed"}
