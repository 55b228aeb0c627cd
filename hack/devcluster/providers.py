"""Whose cluster a command is about: one that the user named, one that we made before, or the kind that this machine can make."""

import os
import pathlib
from typing import Protocol

from devcluster import console, existing, kind, node, paths, requirements, settings, tools


class Cluster(Protocol):
    """What every command needs of a cluster, whoever runs it."""

    def up(self, *, audit: bool | None, gpus: int | None) -> None: ...
    def down(self) -> None: ...
    def delete(self) -> None: ...
    def kubeconfig(self) -> pathlib.Path: ...
    def clients(self) -> tuple[tools.Tool, ...]:
        """What is to be built for kubectl and helm to be on PATH."""
        ...

    def load_image(self, image: str) -> str: ...
    def own_image(self, tool: tools.Tool, *, public: str) -> str:
        """Its image's name for a pod: made from the program that is built here, where nothing can be pulled, else the public one."""
        ...

    def status(self) -> list[str]: ...
    def log_files(self) -> dict[str, pathlib.Path]: ...


def choose(state: paths.State, *, name: str, context: str | None, provider: str | None) -> Cluster:
    if context:
        return existing.Existing(os.environ.get("KUBECONFIG"), context)
    named = foreign_kubeconfig()
    if named:
        return existing.Existing(named, None)
    known = settings.load(state)
    if known and provider and provider != known.provider:
        raise console.Failure(
            f"{name} was made with --provider {known.provider}; delete it first, or choose another --name."
        )
    match known.provider if known else provider or _possible():
        case "kind":
            return kind.Kind(state, name)
        case _:
            return node.Node(state, name)


def exported() -> tuple[str, paths.State] | None:
    """Name and state of the cluster of ours that KUBECONFIG belongs to."""
    value = os.environ.get("KUBECONFIG")
    state = paths.State(pathlib.Path(value).absolute().parent) if value else None
    known = settings.load(state) if state else None
    return (known.name, state) if known and state else None


def foreign_kubeconfig() -> str | None:
    """KUBECONFIG, unless it is the file that `hack/cluster env` exported."""
    value = os.environ.get("KUBECONFIG")
    if not value:
        return None
    path = pathlib.Path(value).absolute()
    deleted = not path.exists() and path.is_relative_to(paths.state_root())
    return None if deleted or exported() else value


def _possible() -> str:
    docker, has_kind = requirements.has_docker(), requirements.has_kind()
    if docker and has_kind:
        return "kind"
    if requirements.can_have_node():
        return "node"
    lacking = [
        *([] if docker else ["a Docker engine that answers (`docker info`)"]),
        *([] if has_kind else ["kind (https://kind.sigs.k8s.io, or `go install sigs.k8s.io/kind@latest`)"]),
    ]
    raise console.Failure(
        f"No cluster can be made here. Install {' and '.join(lacking)}; or run this as root on Linux; "
        "or name a cluster that you have, with --context NAME or KUBECONFIG."
    )
