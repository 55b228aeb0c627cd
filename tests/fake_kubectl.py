"""A stand-in for kubectl in front of a cluster of one namespace, which is the file `$FAKE_CLUSTER`.

It answers in kubectl's own words. The operator of that cluster hears commands at once, refuses them with what the file has as
`refuses`, or is `deaf`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

FILE = Path(os.environ.get("FAKE_CLUSTER", "/nowhere"))
KIND = "modeldeployments.moorage.dev"
Object = dict[str, Any]


def fail(text: str) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.exit(1)


def answer(cluster: Object, arguments: list[str]) -> str:
    if "--local" in arguments:
        return _read(next(item for item in arguments if item.startswith("--filename=")).partition("=")[2])
    if "down" in cluster:
        fail(cluster["down"])
    words = [item for item in arguments if not item.startswith("-")]
    options = [item for item in arguments if item.startswith("-")]
    return ANSWERS[words[0]](cluster, words[1:], options)


def _read(file: str) -> str:
    try:
        found = yaml.safe_load_all(sys.stdin.read() if file == "-" else Path(file).read_text())
        return "\n".join(json.dumps(item, indent=4) for item in found if item)
    except FileNotFoundError:
        fail(f'error: the path "{file}" does not exist')


def _get(cluster: Object, words: list[str], options: list[str]) -> str:
    if "--raw" in options:
        return "{}"
    if words[0] == "pods":
        pods = cluster.get("pods", [])
        names = "\n".join(pod["metadata"]["name"] for pod in pods)
        return names if "--output=name" in options else json.dumps({"items": pods})
    if len(words) == 1:
        return "\n".join(f"{KIND}/{name}" for name in cluster["models"])
    return json.dumps(_model(cluster, words[1]))


def _annotate(cluster: Object, words: list[str], options: list[str]) -> str:
    model, (key, _, text) = _model(cluster, words[1]), words[2].partition("=")
    model["metadata"]["annotations"] = {key: cluster.get("somebody_else_writes") or text}
    if not cluster.get("deaf"):
        model["status"]["command"] = {"text": text, "at": "2026-01-31T12:00:00Z", "refused": cluster.get("refuses", "")}
    return f"{KIND}/{words[1]} annotated"


def _patch(cluster: Object, words: list[str], options: list[str]) -> str:
    model = _model(cluster, words[1])
    model["spec"] |= json.loads(next(item for item in options if item.startswith("--patch="))[8:])["spec"]
    model["metadata"]["generation"] += 1
    if not cluster.get("deaf"):
        model["status"]["observedGeneration"] = model["metadata"]["generation"]
    return json.dumps(model)


def _apply(cluster: Object, words: list[str], options: list[str]) -> str:
    """What the API server says, by how strict it is to be."""
    validate = next(item for item in options if item.startswith("--validate="))[11:]
    if said := cluster.get("says", {}).get(validate):
        fail(said)
    return f"{KIND}/fraud"


def _model(cluster: Object, name: str) -> Object:
    if name not in cluster["models"]:
        fail(f'Error from server (NotFound): {KIND} "{name}" not found')
    return dict(cluster["models"][name])


def _logs(cluster: Object, words: list[str], options: list[str]) -> str:
    return "[pod/fraud-v7-11aa22bb-x/serve] ready"


ANSWERS = {"get": _get, "annotate": _annotate, "patch": _patch, "apply": _apply, "logs": _logs}


def main() -> None:
    cluster = json.loads(FILE.read_text())
    cluster.setdefault("asked", []).append(" ".join(sys.argv[1:]))
    FILE.write_text(json.dumps(cluster))
    said = answer(cluster, sys.argv[1:])
    FILE.write_text(json.dumps(cluster))
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
