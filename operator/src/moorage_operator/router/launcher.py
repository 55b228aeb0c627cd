"""Starts HAProxy when the agent has written what it should be, and stays beside it to stop it gently.

HAProxy takes SIGTERM, which is what ends a container, for "at once": every request that is running would be cut. So the first
process of the container is this one. On SIGTERM it waits until the pod has gone from everybody's endpoints (new connections still come
until then), and has HAProxy close its listeners and end when the last connection has (`soft_stop`). It decides nothing else; when
HAProxy ends by itself, so does this, and the kubelet starts the container anew.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from moorage_operator.router import soft_stop
from moorage_operator.router.settings import Layout, Settings

_LOOK_SECONDS = 0.1
_STEP_SECONDS = 0.5


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
        signal.signal(number, lambda *_: _stop_after(settings.drain_seconds, layout, process))
    return process.wait()


def _stop_after(seconds: int, layout: Layout, process: subprocess.Popen[bytes]) -> None:
    """By a timer, as a signal handler must not sleep; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: _step(layout, process))
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


def _step(layout: Layout, process: subprocess.Popen[bytes]) -> None:
    """The next one is timed when this one has ended: else one that waits for HAProxy would be interrupted by itself."""
    soft_stop.step(layout, process)
    signal.setitimer(signal.ITIMER_REAL, _STEP_SECONDS)
