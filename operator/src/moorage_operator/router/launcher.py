"""Starts HAProxy when the agent has written what it should be, and stays beside it to stop it gently.

HAProxy takes SIGTERM, which is what ends a container, for "at once": every request that is running would be cut. So the first
process of the container is this one. On SIGTERM it waits until the pod has gone from everybody's endpoints (new connections still come
until then), and has HAProxy close its listeners and end when the last request has its answer (SIGUSR1). It decides nothing else; when
HAProxy ends by itself, so does this, and the kubelet starts the container anew.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from moorage_operator.router.settings import Settings

_LOOK_SECONDS = 0.1


def run(settings: Settings) -> int:
    """HAProxy's exit code; 0 when it was stopped."""
    layout = settings.layout
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while not layout.config_file.exists():
        time.sleep(_LOOK_SECONDS)
    # A file that is there is whole: the agent writes it last, and renames it into its place.
    command = ["haproxy", "-W", "-S", f"{layout.master_socket},mode,600", "-f", str(layout.config_file)]
    process = subprocess.Popen(command)  # noqa: S603 - a fixed program, found on the image's PATH
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop_after(settings.drain_seconds, process))
    return process.wait()


def _stop_after(seconds: int, process: subprocess.Popen[bytes]) -> None:
    """By a timer, as a signal handler must not sleep; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: process.send_signal(signal.SIGUSR1))
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
