"""Ends HAProxy so that it still can be told what to do until its last answer.

HAProxy's own soft stop (SIGUSR1) stops its backends, too: the admin socket is closed, and no server can be brought up any more, not even
through the master. Requests on kept connections would then go where they were to go when the end began. To shut down the frontends
alone means the same for callers (no new connection, `Connection: close` with the next answer), and the agent goes on as ever.
So SIGUSR1 comes last, when no connection is left. Nothing but the standard library, see `settings`.
"""

from __future__ import annotations

import csv
import signal
import socket
import subprocess
from dataclasses import dataclass

from moorage_operator.router.settings import Layout

_ANSWER_SECONDS = 2
_FRONTENDS = "show stat -1 1 -1"


@dataclass(frozen=True)
class _Frontend:
    name: str
    closed: bool
    connections: int


def step(layout: Layout, process: subprocess.Popen[bytes]) -> None:
    """To be called again and again: a reload opens frontends anew, and a signal that meets a master which starts itself anew is lost."""
    try:
        frontends = _frontends(layout)
        for frontend in frontends:
            if not frontend.closed:
                # Shut down alone it would keep its socket for the next worker, and callers would wait there for nobody.
                _ask(layout, f"disable frontend {frontend.name};shutdown frontend {frontend.name}")
    except TimeoutError:
        return  # one that hangs would not hear a signal either
    except OSError:
        frontends = []  # nobody there that could be told anything
    if all(frontend.closed and not frontend.connections for frontend in frontends):
        process.send_signal(signal.SIGUSR1)


def _frontends(layout: Layout) -> list[_Frontend]:
    rows = csv.DictReader(_ask(layout, _FRONTENDS).removeprefix("# ").splitlines())
    return [_Frontend(row["pxname"], row["status"] == "STOP", int(row["scur"])) for row in rows]


def _ask(layout: Layout, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(str(layout.admin_socket))
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
