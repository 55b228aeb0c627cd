"""`moorage-runtime fetch`: brings one model version into a folder, verified. The only part that holds credentials.

ask the registry for the source → list → download what is missing → scan → compare with the pin → write the manifest.
It reads `MLmodel` as text and never imports or unpickles a model.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moorage_runtime import artifacts, errors, manifest, mlmodel, registry, schema, settings

logger = logging.getLogger(__name__)

PARTIAL = ".partial"


@dataclass(frozen=True)
class Fetched:
    """What the operator learns of the model."""

    digest: str
    signature: str
    schema: Mapping[str, schema.Fields]
    """The signature itself; empty without one, and where it is too large to be told."""
    flavors: tuple[str, ...]


def fetch(options: settings.Settings) -> Fetched:
    """Raises `errors.FetchError`; afterwards `model_dir` holds the artifacts and their manifest."""
    if not options.model_name or not options.model_version:
        raise errors.UsageError("set MOORAGE_MODEL_NAME and MOORAGE_MODEL_VERSION to the model version to fetch")
    try:
        scanned = _from_an_earlier_start(options) or _download(options)
        _compare_with_pin(scanned.digest, options.pinned_digest_file)
        manifest.save(scanned, options.model_dir)
    except OSError as error:
        raise errors.DiskFull(
            f"{options.model_dir} can't be written ({error.strerror}): is there space, and is it a writable volume?"
        ) from error
    described = mlmodel.read(options.model_dir / manifest.ARTIFACTS)
    told = schema.of(described.signature)
    return Fetched(scanned.digest, described.signature_hash, told, tuple(sorted(described.flavors)))


def named(uri: str, options: settings.Settings) -> settings.Settings:
    """The settings to fetch `models:/name@alias` or `models:/name/version` with: for a laptop, where nobody resolved it."""
    target = uri.removeprefix("models:/").strip("/")
    name, _, alias = target.partition("@")
    if alias:
        version = _registry(options).version_of_alias(name, alias)
        return replace(options, model_name=name, model_version=version)
    name, _, version = target.rpartition("/")
    if not name or not version.isdecimal():
        raise errors.UsageError(f"--model {uri}: write models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
    return replace(options, model_name=name, model_version=version)


def _from_an_earlier_start(options: settings.Settings) -> manifest.Manifest | None:
    """A container that is started again finds its volume full: nothing to ask anybody for, if all is still as it was."""
    saved = manifest.load(options.model_dir)
    if saved is None or (saved.model, saved.version) != (options.model_name, options.model_version):
        return None
    found = manifest.scan(options.model_dir / manifest.ARTIFACTS, model=saved.model, version=saved.version)
    if found != saved:
        return None
    logger.info("%s version %s is already here: %s", saved.model, saved.version, saved.digest)
    return found


def _download(options: settings.Settings) -> manifest.Manifest:
    started = time.monotonic()
    name, version = options.model_name, options.model_version
    server = _registry(options)
    store = artifacts.open_store(server.source(name, version), server)
    files = store.files()
    target = options.model_dir / manifest.ARTIFACTS
    target.mkdir(parents=True, exist_ok=True)
    _drop_strangers(target, {file.path for file in files})
    missing = [file for file in files if not _is_complete(target / file.path, file.size)]
    _download_all(store, missing, target)
    scanned = manifest.scan(target, model=name, version=version)
    seconds = time.monotonic() - started
    size = manifest.total_size(scanned.files)
    logger.info("fetched %s version %s: %d files, %d bytes in %.1f s", name, version, len(files), size, seconds)
    return scanned


def _download_all(store: artifacts.Artifacts, files: Sequence[artifacts.RemoteFile], target: Path) -> None:
    partial = target.parent / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with concurrent.futures.ThreadPoolExecutor(registry.CONNECTIONS) as pool:
        downloads = [pool.submit(_download_one, store, file, partial, target) for file in files]
        try:
            for download in concurrent.futures.as_completed(downloads):
                download.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shutil.rmtree(partial)


def _download_one(store: artifacts.Artifacts, file: artifacts.RemoteFile, partial: Path, target: Path) -> None:
    """Into another folder first: a file in `artifacts` is always a whole one, so a second start goes on from there."""
    store.download(file.path, partial)
    downloaded = partial / file.path
    if not _is_complete(downloaded, file.size):
        raise errors.FetchFailed(f"{file.path} was cut short on its way: the next start tries again")
    (target / file.path).parent.mkdir(parents=True, exist_ok=True)
    downloaded.replace(target / file.path)


def _is_complete(file: Path, size: int | None) -> bool:
    # A store that does not tell sizes gets no benefit of the doubt for a file of an earlier start.
    if size is None:
        return PARTIAL in file.parts and file.is_file()
    return file.is_file() and file.stat().st_size == size


def _drop_strangers(target: Path, wanted: set[str]) -> None:
    """What an earlier version left in the folder is not part of this model."""
    for root, _, names in os.walk(target):
        for name in names:
            file = Path(root, name)
            if file.relative_to(target).as_posix() not in wanted:
                file.unlink()


def _compare_with_pin(digest: str, pin: Path) -> None:
    pinned = pin.read_text().strip() if pin.is_file() else ""
    if pinned and pinned != digest:
        raise errors.DigestMismatch(
            f"the artifacts were changed: their digest is {digest}, this revision was made of {pinned}; "
            "register the changed model as a new version"
        )


def _registry(options: settings.Settings) -> registry.Registry:
    return registry.Registry(options.tracking_uri, environment=os.environ, ca_bundle=options.ca_bundle)
