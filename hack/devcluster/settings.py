"""What a cluster was made with, kept in its state as cluster.json."""

import dataclasses
import json
import re
import shutil

from devcluster import console, paths

NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    provider: str  # "node" or "kind"
    audit: bool = False
    gpus: int = 0
    block: int = 0  # of network.BLOCKS; the node's only


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise console.Failure(
            f"{name!r} can't name a cluster: use up to 32 lower-case letters, digits and dashes, a letter first."
        )
    return name


def save(state: paths.State, settings: Settings) -> None:
    scratch = state.record.with_suffix(".new")
    scratch.write_text(json.dumps(dataclasses.asdict(settings)) + "\n")
    scratch.rename(state.record)


def load(state: paths.State) -> Settings | None:
    """None when there is no such cluster."""
    try:
        return Settings(**json.loads(state.record.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise console.Failure(
            f"{state.record} can't be read ({error}); delete {state.folder} and start again."
        ) from error


def change(known: Settings, *, audit: bool | None, gpus: int | None) -> Settings:
    """What was asked for now, over what the cluster was made with; None asks for nothing."""
    return dataclasses.replace(
        known,
        audit=known.audit if audit is None else audit,
        gpus=known.gpus if gpus is None else gpus,
    )


def forget(state: paths.State) -> None:
    """Remove the cluster's folder; only one that holds a cluster's record is."""
    if state.record.exists():
        shutil.rmtree(state.folder)
    state.lock.unlink(missing_ok=True)
