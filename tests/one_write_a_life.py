"""The operator, killed by SIGKILL as soon as any of its writes is done, and started again, for ever.

Runs in the operator's own image, in place of its command. Every state that lies between two writes is thereby the one that a new
process finds. Each life is a fork of a process that has imported everything and done nothing: that is what takes seconds. It leads
without a Lease: there is never more than one life, and a Lease would cost each of them 15 s.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from moorage_operator import __main__ as operator
from moorage_operator.adapters.cluster import client

CONFIG, CHANGED = Path("/etc/moorage/config.yaml"), Path("/tmp/config.yaml")  # noqa: S108 - a volume of this pod alone


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    CHANGED.write_text(CONFIG.read_text() + "\nleaderElection: false\n")
    os.environ["MOORAGE_CONFIG"] = str(CHANGED)
    while True:
        begin = time.monotonic()
        life = os.fork()
        if life == 0:
            live()
        _, status = os.waitpid(life, 0)
        code = os.waitstatus_to_exitcode(status)
        print(f"life ended with {code} after {time.monotonic() - begin:.1f} s", flush=True)  # noqa: T201
        if code != -signal.SIGKILL:
            sys.exit(1)


def live() -> None:
    send = client.KubernetesCluster._send_once

    async def send_once(self: client.KubernetesCluster, call: Any) -> Any:
        answer = await send(self, call)
        if call.writes:
            print(f"killed after: {call.what}", flush=True)  # noqa: T201
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    client.KubernetesCluster._send_once = send_once  # type: ignore[method-assign]  # the injection
    operator.main()
    sys.exit()


if __name__ == "__main__":
    main()
