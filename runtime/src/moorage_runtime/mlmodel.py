"""Reads a model's `MLmodel` file as plain YAML: flavours, signature, where the example is. Imports nothing of the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moorage_runtime import errors

FILE = "MLmodel"


@dataclass(frozen=True)
class MLmodel:
    """What a model says of itself. `signature` holds `inputs` and `outputs` as parsed JSON, or is None."""

    flavors: Mapping[str, Mapping[str, Any]]
    signature: Mapping[str, Any] | None
    example_file: str

    @property
    def signature_hash(self) -> str:
        """Equal for equal signatures, however their YAML is laid out; empty without one."""
        if self.signature is None:
            return ""
        canonical = json.dumps(self.signature, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def read(folder: Path) -> MLmodel:
    """Raises `ArtifactMissing` without the file and `UnsupportedFlavor` where it is no MLmodel file."""
    try:
        body = yaml.safe_load((folder / FILE).read_text())
    except FileNotFoundError as error:
        raise errors.ArtifactMissing(
            f"there is no {FILE} file among the artifacts: log the model with mlflow.<flavor>.log_model"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise errors.UnsupportedFlavor(f"the {FILE} file is not YAML: log the model again") from error
    if not isinstance(body, dict) or not isinstance(body.get("flavors"), dict):
        raise errors.UnsupportedFlavor(f"the {FILE} file lists no flavors: log the model again")
    flavors = {str(name): settings if isinstance(settings, dict) else {} for name, settings in body["flavors"].items()}
    example = body.get("saved_input_example_info")
    example_file = str(example.get("serving_input_path") or "") if isinstance(example, dict) else ""
    return MLmodel(flavors, _signature(body.get("signature")), example_file)


def _signature(raw: Any) -> Mapping[str, Any] | None:
    if not isinstance(raw, dict) or not raw.get("inputs"):
        return None
    try:
        return {part: json.loads(raw[part]) if raw.get(part) else None for part in ("inputs", "outputs", "params")}
    except (TypeError, ValueError) as error:
        raise errors.UnsupportedFlavor(f"the signature in the {FILE} file is not JSON: log the model again") from error
