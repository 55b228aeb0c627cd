"""MLflow said no: find out what is missing and what there is instead, for the message that the user reads."""

from __future__ import annotations

import difflib
from typing import Any

from moorage_operator import errors
from moorage_operator.adapters.registry import wording
from moorage_operator.adapters.registry.client import NotThere, RegistryClient
from moorage_operator.core.registry import ModelRef

MAX_NAMES = 200
"""How many names are compared with the one that does not exist: one page, one request."""


def missing(client: RegistryClient, model: ModelRef, *, registry: str) -> errors.RegistryError:
    """The error that names the first thing which is not there: the model, the alias, or the version."""
    try:
        found = client.get_registered_model(model.name)
    except NotThere:
        return _no_model(client, model.name, registry)
    if model.version:
        return errors.VersionNotFound(_no_version(model, found))
    return errors.AliasNotFound(_no_alias(model, found))


def other_name(asked: str, answered: str, *, registry: str) -> errors.ModelNotFound:
    """Some databases take two names that differ in case for one; what comes after may not."""
    return errors.ModelNotFound(
        f"registry '{registry}' has no model '{wording.shown(asked)}', but '{wording.shown(answered)}': write it like this"
    )


def _no_model(client: RegistryClient, name: str, registry: str) -> errors.ModelNotFound:
    close = difflib.get_close_matches(name, _some_names(client), n=1)
    hint = f"did you mean {wording.listed(close)}?" if close else "list them in MLflow's UI under Models"
    return errors.ModelNotFound(f"registry '{registry}' has no model '{wording.shown(name)}': {hint}")


def _some_names(client: RegistryClient) -> list[str]:
    try:
        return [str(model.name) for model in client.search_registered_models(max_results=MAX_NAMES)]
    except (errors.RegistryError, NotThere):
        return []  # a hint is not worth an error


def _no_version(model: ModelRef, found: Any) -> str:
    numbers = [int(latest.version) for latest in found.latest_versions if str(latest.version).isdecimal()]
    latest = f"the latest is {max(numbers)}" if numbers else "it has none"
    return f"model '{wording.shown(model.name)}' has no version {wording.shown(model.version)}: {latest}"


def _no_alias(model: ModelRef, found: Any) -> str:
    name, alias = wording.shown(model.name), wording.shown(model.alias)
    if model.alias in found.aliases:
        return f"alias '{alias}' of model '{name}' names a version that is deleted: set it again in MLflow"
    if not found.aliases:
        return f"model '{name}' has no alias '{alias}', nor any other: set it in MLflow, or name a version"
    return f"model '{name}' has no alias '{alias}'; it has {wording.listed(sorted(found.aliases))}"
