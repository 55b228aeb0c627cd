"""What a router pod is told by its environment (docs/router.md), and where its two containers find each other's files.

Nothing but the standard library: the process that starts HAProxy stays beside it and should weigh little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "MOORAGE_ROUTER_"


@dataclass(frozen=True)
class Layout:
    """Where HAProxy finds its files and sockets, and how much it may take."""

    folder: Path
    bind: str = "*"
    metrics_port: int = 8405
    max_connections: int = 8000
    threads: int = 2

    @property
    def config_file(self) -> Path:
        return self.folder / "haproxy.cfg"

    @property
    def map_file(self) -> Path:
        return self.folder / "splits.map"

    @property
    def admin_socket(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def master_socket(self) -> Path:
        return self.folder / "master.sock"

    def listen(self, port: int) -> str:
        """HAProxy's `bind`; IPv6's any-address takes IPv4, too."""
        return f"bind [{self.bind}]:{port} v4v6" if ":" in self.bind else f"bind {self.bind}:{port}"


@dataclass(frozen=True)
class Settings:
    layout: Layout
    namespace: str = "default"
    port: int = 8404
    drain_seconds: int = 5
    log_format: str = "text"
    log_level: str = "info"

    @property
    def own_ports(self) -> frozenset[int]:
        return frozenset({self.port, self.layout.metrics_port})


def load(environment: Mapping[str, str]) -> Settings:
    """`SystemExit` with one clear line for what can't be used."""
    defaults = Settings(Layout(Path("/run/moorage-router")))
    layout = defaults.layout
    return Settings(
        Layout(
            folder=Path(environment.get(f"{PREFIX}FOLDER", str(layout.folder))),
            bind=environment.get(f"{PREFIX}BIND", layout.bind),
            metrics_port=_number(environment, "METRICS_PORT", layout.metrics_port),
            max_connections=_number(environment, "MAX_CONNECTIONS", layout.max_connections),
            threads=_number(environment, "THREADS", layout.threads),
        ),
        namespace=environment.get("POD_NAMESPACE") or defaults.namespace,
        port=_number(environment, "PORT", defaults.port),
        drain_seconds=_number(environment, "DRAIN_SECONDS", defaults.drain_seconds),
        log_format=environment.get(f"{PREFIX}LOG_FORMAT", defaults.log_format),
        log_level=environment.get(f"{PREFIX}LOG_LEVEL", defaults.log_level),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(f"{PREFIX}{name}", str(default))
    if not text.isdecimal():
        raise SystemExit(f"moorage-router: {PREFIX}{name} has to be a whole number, not {text!r}")
    return int(text)
