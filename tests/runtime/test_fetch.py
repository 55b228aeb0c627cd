"""`fetch` against a real MLflow server: what it brings, what it refuses, and how soon it gives up."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlflow_server import MlflowServer, free_port
from moorage_runtime import artifacts, errors, fetch, manifest, registry, settings
from runtime_builders import a_model_folder
from stub_http import Reply, Request, Stub, serving

INPUTS = [{"type": "double", "name": "a", "required": True}]


@pytest.fixture(scope="session")
def a_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = a_model_folder(tmp_path_factory.mktemp("published") / "m", flavors={"onnx": {}}, inputs=INPUTS)
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "weights.bin").write_bytes(b"\0" * 3_000_000)
    (folder / "data" / "empty").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def version(mlflow_server: MlflowServer, a_model: Path) -> str:
    return mlflow_server.publish("fetched", a_model, alias="champion")


def options(server: MlflowServer | str, folder: Path, **changed: object) -> settings.Settings:
    uri = server if isinstance(server, str) else server.uri
    given = {"model_name": "fetched", "model_version": "1", "model_dir": folder, "tracking_uri": uri}
    return settings.Settings(command="fetch", **{"pinned_digest_file": folder / "no-pin", **given, **changed})  # type: ignore[arg-type]  # fields by name


def run(environment: Mapping[str, str], folder: Path) -> tuple[int, dict[str, object], float]:
    """The real program: exit code, last words, seconds."""
    words = folder / "termination-log"
    given = {
        "MOORAGE_MODEL_NAME": "fetched",
        "MOORAGE_MODEL_VERSION": "1",
        "MOORAGE_MODEL_DIR": str(folder),
        "MOORAGE_TERMINATION_LOG": str(words),
        "PATH": os.environ["PATH"],
    }
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "moorage_runtime", "fetch"], env={**given, **environment}, check=False)
    return done.returncode, json.loads(words.read_text()), time.monotonic() - started


def test_the_program_brings_every_file_and_reports_what_it_brought(
    mlflow_server: MlflowServer, version: str, a_model: Path, tmp_path: Path
) -> None:
    code, words, _ = run({**mlflow_server.environment, "MOORAGE_MODEL_VERSION": version}, tmp_path)
    assert code == 0
    saved = manifest.load(tmp_path)
    assert saved is not None
    assert {file.path for file in saved.files} == {"MLmodel", "data/deep/weights.bin", "data/empty"}
    assert (tmp_path / "artifacts/data/deep/weights.bin").read_bytes() == (
        a_model / "data/deep/weights.bin"
    ).read_bytes()
    assert set(words) == {"digest", "signature", "schema", "flavors"}
    assert words["schema"] == {"inputs": [["a", "double"]], "outputs": []}
    assert (words["digest"], words["flavors"]) == (saved.digest, ["onnx"])
    assert str(words["signature"]).startswith("sha256:")


def test_the_same_files_have_the_same_digest_as_another_version_of_another_model(
    mlflow_server: MlflowServer, version: str, a_model: Path, tmp_path: Path
) -> None:
    other = mlflow_server.publish("fetched-again", a_model)
    first = fetch.fetch(options(mlflow_server, tmp_path / "1", model_version=version))
    second = fetch.fetch(options(mlflow_server, tmp_path / "2", model_name="fetched-again", model_version=other))
    assert first == second


def test_a_second_start_needs_no_registry_if_all_is_there(
    mlflow_server: MlflowServer, version: str, tmp_path: Path
) -> None:
    first = fetch.fetch(options(mlflow_server, tmp_path, model_version=version))
    again = fetch.fetch(options(f"http://127.0.0.1:{free_port()}", tmp_path, model_version=version))
    assert again == first


def test_a_second_start_brings_only_what_is_missing_and_drops_what_is_foreign(
    mlflow_server: MlflowServer, version: str, tmp_path: Path
) -> None:
    first = fetch.fetch(options(mlflow_server, tmp_path, model_version=version))
    kept = tmp_path / "artifacts/data/deep/weights.bin"
    written_at = kept.stat().st_mtime_ns
    (tmp_path / "artifacts/MLmodel").unlink()
    (tmp_path / "artifacts/stranger.py").write_text("import os")
    assert fetch.fetch(options(mlflow_server, tmp_path, model_version=version)) == first
    assert kept.stat().st_mtime_ns == written_at
    assert not (tmp_path / "artifacts/stranger.py").exists()


def test_a_pinned_digest_that_differs_ends_the_fetch(mlflow_server: MlflowServer, version: str, tmp_path: Path) -> None:
    pin = tmp_path / "digest"
    pin.write_text("")
    fetched = fetch.fetch(options(mlflow_server, tmp_path, model_version=version, pinned_digest_file=pin))
    pin.write_text(fetched.digest + "\n")
    fetch.fetch(options(mlflow_server, tmp_path, model_version=version, pinned_digest_file=pin))
    pin.write_text("sha256:" + "0" * 64)
    with pytest.raises(errors.DigestMismatch, match="register the changed model as a new version"):
        fetch.fetch(options(mlflow_server, tmp_path, model_version=version, pinned_digest_file=pin))


def test_an_alias_is_resolved_for_a_laptop(mlflow_server: MlflowServer, version: str, tmp_path: Path) -> None:
    named = fetch.named("models:/fetched@champion", options(mlflow_server, tmp_path))
    assert (named.model_name, named.model_version) == ("fetched", version)
    assert fetch.named("models:/fetched/7", options(mlflow_server, tmp_path)).model_version == "7"


def test_a_model_that_does_not_exist_is_known_within_seconds(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(errors.ModelVersionNotFound, match="has no ghost version 1: check the name"):
        fetch.fetch(options(mlflow_server, tmp_path, model_name="ghost"))
    assert time.monotonic() - started < 3


def test_a_version_whose_files_are_gone_is_artifact_missing(
    mlflow_server: MlflowServer, a_model: Path, tmp_path: Path
) -> None:
    version = mlflow_server.publish("hollow", a_model)
    source = mlflow_server.client().get_model_version_download_uri("hollow", version)
    shutil.rmtree(mlflow_server.folder / "artifacts" / source.removeprefix("mlflow-artifacts:/"))
    with pytest.raises(errors.ArtifactMissing, match="they were deleted, or never uploaded"):
        fetch.fetch(options(mlflow_server, tmp_path, model_name="hollow", model_version=version))


def test_refused_credentials_are_known_within_seconds(mlflow_server_with_login: MlflowServer, tmp_path: Path) -> None:
    wrong = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "hunter2-wrong"}
    code, words, _ = run({"MLFLOW_TRACKING_URI": mlflow_server_with_login.uri, **wrong}, tmp_path)
    assert (code, words["reason"]) == (1, "RegistryUnauthorized")
    assert "MLFLOW_TRACKING_USERNAME" in str(words["message"])
    assert "hunter2" not in str(words["message"])


def test_the_right_credentials_from_the_environment_are_used(
    mlflow_server_with_login: MlflowServer, a_model: Path, tmp_path: Path
) -> None:
    version = mlflow_server_with_login.publish("fetched", a_model)
    environment = {**mlflow_server_with_login.environment, "MOORAGE_MODEL_VERSION": version}
    code, words, _ = run(environment, tmp_path)
    assert (code, set(words)) == (0, {"digest", "signature", "schema", "flavors"})


def test_a_registry_that_does_not_answer_is_given_up_within_ten_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(errors.RegistryUnreachable, match="check that it runs"):
        fetch.fetch(options(f"http://127.0.0.1:{free_port()}", tmp_path))
    assert time.monotonic() - started < 10


def test_mlflow_is_not_imported_because_that_takes_longer_than_the_fetch(
    mlflow_server: MlflowServer, version: str, tmp_path: Path
) -> None:
    program = "import sys, moorage_runtime.__main__ as m; sys.exit(m.run(['fetch']) or 'mlflow' in sys.modules)"
    given = {"MOORAGE_MODEL_NAME": "fetched", "MOORAGE_MODEL_VERSION": version, "MOORAGE_MODEL_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env={**mlflow_server.environment, **given}, check=False)
    assert done.returncode == 0


def test_names_of_files_are_taken_as_they_are(mlflow_server: MlflowServer, a_model: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(a_model, tmp_path / "odd")
    (odd / "a folder").mkdir()
    for name in ("50%.txt", "ünï & +=;.txt"):
        (odd / "a folder" / name).write_text(name)
    version = mlflow_server.publish("odd", odd)
    fetch.fetch(options(mlflow_server, tmp_path / "model", model_name="odd", model_version=version))
    for name in ("50%.txt", "ünï & +=;.txt"):
        assert (tmp_path / "model/artifacts/a folder" / name).read_text() == name


def test_an_alias_that_does_not_exist_is_named(mlflow_server: MlflowServer, version: str, tmp_path: Path) -> None:
    with pytest.raises(errors.ModelVersionNotFound, match="has no fetched@loser: check the name"):
        fetch.named("models:/fetched@loser", options(mlflow_server, tmp_path))


Script = dict[str, list[Reply]]


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Stub]:
    """Answers each path with the script's next reply for it, the last one again and again."""

    def answer(request: Request) -> Reply:
        replies = script[request.path]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    with serving(answer) as stub:
        yield stub


SOURCE = "/api/2.0/mlflow/model-versions/get-download-uri"
LISTING = "/api/2.0/mlflow-artifacts/artifacts"
MODEL = f"{LISTING}/0/MLmodel"
TEXT = b"flavors: {onnx: {}}\n"


def a_good_script() -> Script:
    listing = {"files": [{"path": "MLmodel", "is_dir": False, "file_size": len(TEXT)}]}
    return {
        SOURCE: [Reply({"artifact_uri": "mlflow-artifacts:/0"})],
        LISTING: [Reply(listing)],
        MODEL: [Reply(TEXT)],
    }


def test_what_breaks_once_is_tried_again(tmp_path: Path) -> None:
    script = a_good_script()
    script[SOURCE].insert(0, Reply(b"busy", 503))
    script[LISTING].insert(0, Reply(b"busy", 502))
    script[MODEL].insert(0, Reply(TEXT, headers={"Content-Length": "1000"}))  # and then the connection ends
    with scripted(script) as stub:
        assert fetch.fetch(options(stub.url, tmp_path)).flavors == ("onnx",)


def test_a_slow_registry_is_waited_for(tmp_path: Path) -> None:
    with scripted(a_good_script()) as stub:
        quick = stub.answer

        def slow(request: Request) -> Reply:
            time.sleep(3.5 if request.path == SOURCE else 0)
            return quick(request)

        stub.answer = slow
        fetch.fetch(options(stub.url, tmp_path))
    assert len(stub.requests) == 3, "each is asked once"


@pytest.mark.parametrize(
    ("path", "reply", "error"),
    [
        (SOURCE, Reply(b"<html>Please log in</html>"), errors.FetchFailed),
        (SOURCE, Reply(b'{"artifact_uri": null}'), errors.FetchFailed),
        (SOURCE, Reply(b"[]"), errors.FetchFailed),
        (SOURCE, Reply(status=403), errors.RegistryUnauthorized),
        (LISTING, Reply(b'{"files": 1}'), errors.FetchFailed),
        (LISTING, Reply(b'{"files": [{"path": "../x", "is_dir": true}]}'), errors.SourceRefused),
        (LISTING, Reply(status=403), errors.ArtifactUnauthorized),
        (LISTING, Reply(status=503), errors.RegistryUnreachable),
        (MODEL, Reply(status=404), errors.ArtifactMissing),
        (MODEL, Reply(status=500), errors.RegistryUnreachable),
    ],
)
def test_each_bad_answer_has_its_reason(
    path: str, reply: Reply, error: type[errors.FetchError], tmp_path: Path
) -> None:
    with scripted({**a_good_script(), path: [reply]}) as stub, pytest.raises(error):
        fetch.fetch(options(stub.url, tmp_path))


def test_a_token_goes_to_the_registry_and_nowhere_that_it_redirects_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    with scripted({"/elsewhere": [Reply(TEXT)]}) as elsewhere:
        away = elsewhere.url.replace("127.0.0.1", "localhost") + "/elsewhere"
        with scripted({**a_good_script(), MODEL: [Reply(status=302, headers={"Location": away})]}) as own:
            fetch.fetch(options(own.url, tmp_path))
    assert [request.path for request in own.requests] == [SOURCE, LISTING, MODEL]
    assert own.authorizations() == ["Bearer hunter2"] * 3
    assert [request.path for request in elsewhere.requests] == ["/elsewhere"]
    assert elsewhere.authorizations() == [None]


@pytest.fixture
def tls_registry(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a server with a certificate of its own, and that certificate as PEM."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    nothing_here = Reply({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}, 404)
    with serving(lambda _: nothing_here, tls=context) as stub:
        yield stub.url.replace("127.0.0.1", "localhost"), certificate.read_text()


def test_a_registry_with_a_ca_of_its_own_is_trusted_by_its_bundle_only(
    tls_registry: tuple[str, str], tmp_path: Path
) -> None:
    uri, pem = tls_registry
    _, words, _ = run({"MLFLOW_TRACKING_URI": uri, "MOORAGE_CA_BUNDLE": pem}, tmp_path)
    assert words["reason"] == "ModelVersionNotFound"
    _, words, _ = run({"MLFLOW_TRACKING_URI": uri}, tmp_path)
    assert words["reason"] == "RegistryUnreachable"
    assert "caBundle" in str(words["message"])


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc",
        "/etc",
        "http://metadata.internal/latest/",
        "https://elsewhere.example/api/2.0/mlflow-artifacts/artifacts/1",
        "mlflow-artifacts://elsewhere.example/0/models",
        "mlflow-artifacts:/0/../../etc",
        "mlflow-artifacts:/0/%2e%2e/etc",
        "mlflow-artifacts:/0/%252e%252e/etc",
        "s3://bucket/model?x=y",
        "dbfs:/models",
        "ftp://files.example/model",
    ],
)
def test_a_source_outside_of_the_allowed_places_is_refused(source: str) -> None:
    with pytest.raises(errors.SourceRefused, match="may not send a pod"):
        registry.Registry("http://registry.example:5000", environment={})._allowed(source)


@pytest.mark.parametrize(
    "source",
    [
        "mlflow-artifacts:/0/models/m-1/artifacts",
        "mlflow-artifacts://registry.example:5000/0/models",
        "http://registry.example:5000/api/2.0/mlflow-artifacts/artifacts/0",
        "s3://bucket/model",
        "gs://bucket/model",
        "abfss://container@account.dfs.core.windows.net/model",
    ],
)
def test_the_artifact_proxy_and_object_stores_are_allowed(source: str) -> None:
    assert registry.Registry("http://registry.example:5000/", environment={})._allowed(source) == source


def test_a_version_registered_from_another_model_is_followed(
    mlflow_server: MlflowServer, version: str, tmp_path: Path
) -> None:
    client = mlflow_server.client()
    client.create_registered_model("copied")
    client.copy_model_version(f"models:/fetched/{version}", "copied")
    original = fetch.fetch(options(mlflow_server, tmp_path / "1", model_version=version))
    assert fetch.fetch(options(mlflow_server, tmp_path / "2", model_name="copied")) == original


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "", "a//b", "./a", "a\0b"])
def test_a_listed_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(errors.SourceRefused):
        manifest.refuse_unsafe_path(path)


def test_links_are_no_part_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(errors.SourceRefused, match="is a link"):
        manifest.scan(tmp_path / "model")


def test_a_full_volume_says_so(mlflow_server: MlflowServer, version: str) -> None:
    with pytest.raises(errors.DiskFull, match="can't be written"):
        fetch.fetch(options(mlflow_server, Path("/proc/no-folder"), model_version=version))


def test_an_object_store_without_its_client_says_what_to_do(mlflow_server: MlflowServer) -> None:
    with pytest.raises(
        errors.FetchFailed, match="no client for s3://bucket/model: use the MLflow server's artifact proxy"
    ):
        artifacts.open_store("s3://bucket/model", registry.Registry(mlflow_server.uri, environment={})).files()


def test_credentials_in_a_uri_are_not_shown() -> None:
    assert registry.shown("s3://key:secret@bucket/model?token=1") == "s3://bucket/model"


def test_progress_is_one_line_a_decision(
    mlflow_server: MlflowServer, version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="moorage_runtime"):
        fetch.fetch(options(mlflow_server, tmp_path, model_version=version))
    assert [record.message.split(":")[0] for record in caplog.records] == [f"fetched fetched version {version}"]
