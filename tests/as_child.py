"""The operator as a child of process 1, which the kernel protects from signals of its own container: so a test can kill or stop it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

PID = Path("/tmp/operator.pid")  # noqa: S108 - a volume of this pod alone

if __name__ == "__main__":
    child = subprocess.Popen([sys.executable, "-m", "moorage_operator"], env=os.environ)
    PID.write_text(str(child.pid))
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    sys.exit(abs(child.wait()))
