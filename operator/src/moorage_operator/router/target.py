"""Everything that HAProxy should be, computed once from the table and the endpoints. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from moorage_operator.router import config, pools, split
from moorage_operator.router.endpoints import Endpoints
from moorage_operator.router.files import Files
from moorage_operator.router.pools import Pools
from moorage_operator.router.settings import Layout
from moorage_operator.router.table import Table


@dataclass(frozen=True)
class Source:
    """A table that could be read, and the resource version of the ConfigMap that it was in."""

    table: Table
    resource_version: str


@dataclass(frozen=True)
class Target:
    source: Source
    pools: Pools
    splits: Mapping[str, str]
    structure: str
    files: Files


def make(source: Source, endpoints: Endpoints, layout: Layout) -> Target:
    servers = pools.make(source.table, endpoints)
    return Target(
        source=source,
        pools=servers,
        splits={name: split.encode(model) for name, model in source.table.models.items()},
        structure=config.structure(source.table, layout),
        files=_files(source.table, servers, layout),
    )


def trial(target: Target, layout: Layout) -> tuple[Layout, Files]:
    """The same in a folder beside, for HAProxy to look at before anything is replaced."""
    beside = dataclasses.replace(layout, folder=layout.folder / "trial")
    return beside, _files(target.source.table, target.pools, beside)


def _files(table: Table, servers: Pools, layout: Layout) -> Files:
    return Files(config.render(table, servers, layout), config.render_map(table))
