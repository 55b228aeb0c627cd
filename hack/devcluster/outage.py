"""Trouble on purpose, for a while: a component that does nothing, or pods that can't reach the API server."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

from devcluster import console, network, processes

PODS_TO_API = "pods-to-api"
MOST_SECONDS = 900.0
TABLE = "moorage_outage"


def frozen(node: processes.Process, component: str, seconds: float) -> None:
    """Stop it in the middle of what it does, and let it go on: its connections stay open and nobody answers."""
    found = next((child for child in node.children() if child.program() == component), None)
    if found is None:
        known = ", ".join(sorted(child.program() for child in node.children()))
        raise console.Failure(f"There is no component {component!r}; there are {known}, and {PODS_TO_API}.")
    os.kill(found.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(found.pid, signal.SIGCONT)


def cut(inside: Sequence[str], block: network.Block, seconds: float) -> None:
    """Drop what pods send to the API server. `inside` is how a command is run in the node's network."""
    rules = (
        f"add table inet {TABLE}; "
        f"add chain inet {TABLE} input {{ type filter hook input priority -10; }}; "
        f"add rule inet {TABLE} input ip saddr {block.pods} tcp dport 6443 drop"
    )
    with _table(inside, rules):
        time.sleep(seconds)


@contextlib.contextmanager
def _table(inside: Sequence[str], rules: str) -> Iterator[None]:
    subprocess.run([*inside, "nft", rules], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "nft", f"delete table inet {TABLE}"], check=True)
