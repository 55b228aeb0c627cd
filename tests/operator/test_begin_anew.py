"""What loses its Lease is a new program under its old number, whichever thread says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import threading, time
from moorage_operator import __main__ as program
threading.Thread(target=program._begin_anew).start()
time.sleep(60)
"""


def test_the_program_begins_anew(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"MOORAGE_CONFIG": str(config)}, stderr=subprocess.PIPE,
        text=True, timeout=30, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (
        1, f"moorage-operator: can't read {config}: No such file or directory; set MOORAGE_CONFIG\n"
    )  # fmt: skip
