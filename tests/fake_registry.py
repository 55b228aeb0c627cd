"""MLflow's registry in memory, for tests: held to the real one's behaviour by `tests/contract/test_registry.py`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moorage_operator import errors
from moorage_operator.adapters.registry import mlmodel
from moorage_operator.core.registry import ModelRef, ModelVersion

SOURCE = "mlflow-artifacts:/1/models/m-1/artifacts"


@dataclass
class FakeModel:
    """One registered model."""

    versions: dict[str, tuple[ModelVersion, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By version."""
    latest: int = 0


class FakeRegistry:
    """`ports.Registry`. `failure` and `failures` make it fail, `delay` makes it slow, `questions` is what it was asked;
    `refusal` is what it says to all that would change it, and `changes` are those that it took.
    """

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.questions: list[ModelRef] = []
        self.failure: Exception | None = None
        self.failures: dict[ModelRef, Exception] = {}
        self.refusal: Exception | None = None
        self.changes: list[tuple[str, ...]] = []
        self.delay: dict[ModelRef, float] = defaultdict(float)
        self.files: dict[str, str] = {}
        """MLmodel files, by the source of their version."""

    def register(self, name: str, *, status: str = "READY", source: str = SOURCE, run_id: str = "") -> str:
        """A new version of a model, which may be new as well."""
        model = self.models.setdefault(name, FakeModel())
        model.latest += 1
        version = ModelVersion(name, str(model.latest), run_id, source)
        model.versions[version.version] = (version, status)
        return version.version

    def upload(self, source: str, described: str) -> None:
        """An MLmodel file, to where the artifacts of a version lie."""
        self.files[source] = described

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias name this version from now on."""
        self.models[name].aliases[alias] = version

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove one alias."""
        del self.models[name].aliases[alias]

    def delete_version(self, name: str, version: str) -> None:
        """Remove one version, and with it the aliases that name it, as MLflow does."""
        model = self.models[name]
        del model.versions[version]
        model.aliases = {alias: named for alias, named in model.aliases.items() if named != version}

    async def resolve(self, model: ModelRef) -> ModelVersion:
        """See `ports.Registry`."""
        self.questions.append(model)
        await asyncio.sleep(self.delay[model])
        failure = self.failure or self.failures.get(model)
        if failure:
            raise failure
        return self._find(model)

    def tags_of(self, name: str, version: str) -> dict[str, str]:
        return dict(self.models[name].tags[version])

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.models[name].tags[version][key] = value

    async def set_tags(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """See `ports.Registry`."""
        self._check_there(model, version)
        present = self.models[model].tags[version]
        for key, value in tags.items():
            if present.get(key) == value:
                continue
            self._change("tag", model, version, key)
            if value is None:
                del present[key]
            else:
                present[key] = value

    async def move_alias(self, model: str, alias: str, *, away_from: str, to: str) -> bool:
        """See `ports.Registry`."""
        if self.failure:
            raise self.failure
        named = self.models[model].aliases.get(alias) if model in self.models else None
        if named != away_from:
            return named == to
        self._check_there(model, to)
        self._change("alias", model, alias, to)
        self.set_alias(model, alias, to)
        return True

    def _check_there(self, model: str, version: str) -> None:
        if self.failure:
            raise self.failure
        if model not in self.models:
            raise errors.ModelNotFound(f"registry 'fake' has no model '{model}'")
        if version not in self.models[model].versions:
            raise errors.VersionNotFound(f"model '{model}' has no version {version}")

    def _change(self, *what: str) -> None:
        if self.refusal:
            raise self.refusal
        self.changes.append(what)

    def _find(self, ref: ModelRef) -> ModelVersion:
        model = self.models.get(ref.name)
        if model is None:
            raise errors.ModelNotFound(f"registry 'fake' has no model '{ref.name}'")
        number = ref.version or model.aliases.get(ref.alias, "")
        if not number:
            others = ", ".join(f"'{alias}'" for alias in sorted(model.aliases))
            raise errors.AliasNotFound(f"model '{ref.name}' has no alias '{ref.alias}'; it has {others}")
        if number not in model.versions:
            latest = max(model.versions, key=int, default="none")
            raise errors.VersionNotFound(f"model '{ref.name}' has no version {number}: the latest is {latest}")
        version, status = model.versions[number]
        if status != "READY":
            raise errors.VersionNotReady(f"version {number} of model '{ref.name}' is {status}")
        if version.source.partition(":")[0] not in {"mlflow-artifacts", "s3"}:
            raise errors.SourceRefused(f"the artifacts of model '{ref.name}' version {number} lie in a local path")
        described = self.files.get(version.source, "") if version.source.startswith("mlflow-artifacts:") else ""
        return replace(version, signature=mlmodel.signature(described.encode()))
