"""What the operator knows of a model in MLflow: a question (`ModelRef`) and its answer (`ModelVersion`)."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_operator.core.signatures import Signature


@dataclass(frozen=True)
class ModelRef:
    """Which version of which registered model: exactly one of `alias` and `version` is set."""

    name: str
    alias: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}" if self.alias else f"{self.name}/{self.version}"


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version, as the registry describes it. `source` is where its artifacts lie, without credentials; `signature` is
    None of a model without one, and where only a pod can read it."""

    name: str
    version: str
    run_id: str
    source: str
    signature: Signature | None = None
