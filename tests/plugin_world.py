"""Worlds for the kubectl plugin: ModelDeployments in the middle of a rollout, and a cluster that only `fake_kubectl` knows."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_kubectl

REPOSITORY = Path(__file__).parent.parent
PLUGIN = REPOSITORY / "cli/kubectl_moorage.py"
STABLE, CANARY, BEFORE = "fraud-v7-11aa22bb", "fraud-v8-99aa77ee", "fraud-v6-33cc44dd"
Object = dict[str, Any]

MODEL: Object = {
    "metadata": {"name": "fraud", "namespace": "shop", "generation": 4},
    "spec": {
        "model": {"name": "fraud-detector", "alias": "champion"},
        "rollout": {
            "strategy": "canary",
            "steps": [{"setWeight": 20}, {"pause": {}}, {"setCanaryScale": {"replicas": 3}}, {"pause": {"duration": "10m"}}],
        },
    },
    "status": {
        "observedGeneration": 4,
        "replicas": 4,
        "phase": "Healthy",
        "message": "version 7 answers",
        "url": "http://fraud.shop.svc",
        "model": {"name": "fraud-detector", "alias": "champion", "version": "7"},
        "stable": {"revision": STABLE, "modelVersion": "7", "readyReplicas": 4},
        "history": [
            {"revision": STABLE, "modelVersion": "7", "result": "Promoted", "at": "2026-01-30T09:00:00Z"},
            {"revision": BEFORE, "modelVersion": "6", "result": "Promoted", "at": "2026-01-29T09:00:00Z"},
        ],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": "version 7 answers"}],
    },
}  # fmt: skip

ROLLOUT = {
    "phase": "Paused",
    "message": "step 2 of 5: 20 % to version 8, the rest to version 7; paused until somebody promotes it",
    "model": {"name": "fraud-detector", "alias": "champion", "version": "8"},
    "canary": {"revision": CANARY, "modelVersion": "8", "readyReplicas": 1, "replicas": 2},
    "weights": {"desired": 20, "applied": 20, "verified": True},
    "currentStepIndex": 1,
    "stepStartedAt": "2026-01-31T11:52:55Z",
    "conditions": [{"type": "Ready", "status": "False", "reason": "Paused", "message": "…"}],
}

REJECTED = {"revision": CANARY, "modelVersion": "8", "reason": "CanaryCrashes", "message": "pods crash again and again"}


def a_model(*, spec: Object | None = None, **status: Any) -> Object:
    """A healthy one, changed; None takes a field of the status away."""
    model = copy.deepcopy(MODEL)
    model["spec"] |= spec or {}
    model["status"] = {name: value for name, value in (model["status"] | status).items() if value is not None}
    return model


def a_rollout(*, spec: Object | None = None, **status: Any) -> Object:
    """One with a canary at a pause that somebody has to end."""
    return a_model(spec=spec, **(copy.deepcopy(ROLLOUT) | status))


def a_pod(revision: str, number: int = 0, *, ready: bool = True, **status: Any) -> Object:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": f"{revision}-{number}", "labels": {"moorage.dev/revision": revision}},
        "status": {"phase": "Running", "conditions": [condition]} | status,
    }


@dataclass(frozen=True)
class Cluster:
    """What `fake_kubectl` knows, and the plugin in front of it."""

    folder: Path

    def __post_init__(self) -> None:
        program = self.folder / "bin/kubectl"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake_kubectl.__file__}" "$@"\n')
        program.chmod(0o755)
        self.has(a_model())

    @property
    def file(self) -> Path:
        return self.folder / "cluster.json"

    def has(self, *models: Object, **more: Any) -> None:
        self.file.write_text(json.dumps({"models": {item["metadata"]["name"]: item for item in models}} | more))

    @property
    def asked(self) -> list[str]:
        """All that kubectl was started with."""
        return list(json.loads(self.file.read_text()).get("asked", []))

    @property
    def written(self) -> str:
        """The command in the annotation."""
        model = json.loads(self.file.read_text())["models"]["fraud"]
        return str(model["metadata"].get("annotations", {}).get("moorage.dev/command", ""))

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The plugin as a person calls it."""
        return subprocess.run(
            [sys.executable, str(PLUGIN), *arguments], env=self.environment(), input=stdin, capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": str(self.folder / "bin"), "FAKE_CLUSTER": str(self.file), "PYTHONUTF8": "1"}
