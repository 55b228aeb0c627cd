"""An operator reduced to its election, as a process of its own that a test can kill or freeze.

Prints one JSON line when it first saw the Lease, and whenever it is allowed to write or no longer is; exits with 3 when it lost the Lease.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from moorage_operator import errors
from moorage_operator.adapters import cluster
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Ref
from moorage_operator.election import Candidate, Election, Timing

LOST = 3
LEASE = "contenders"


async def main(kubeconfig: str, namespace: str, identity: str, timing: Timing) -> None:
    lease = Ref(kinds.LEASE, namespace, LEASE)
    candidate = Candidate(lease, identity, timing=timing)
    election = Election(
        candidate,
        lambda: cluster.connect(kubeconfig),
        on_lost=exit_at_once,
    )
    election.start()
    while not candidate._seen:
        await asyncio.sleep(0.01)
    say("saw the lease")
    await election.acquired()
    said = ""
    while True:
        now = verdict(election)
        if now != said:
            say(now)
            said = now
        await asyncio.sleep(0.01)


def exit_at_once() -> None:
    say("lost")
    os._exit(LOST)


def verdict(election: Election) -> str:
    try:
        election.check()
    except errors.LeadershipLost:
        return "refused"
    return "may write"


def say(what: str) -> None:
    """In one piece: two threads say something at the same moment."""
    os.write(sys.stdout.fileno(), (json.dumps({"what": what, "at": time.monotonic()}) + "\n").encode())


if __name__ == "__main__":
    kubeconfig, namespace, identity, lease, deadline, retry = sys.argv[1:]
    asyncio.run(main(kubeconfig, namespace, identity, Timing(int(lease), float(deadline), float(retry))))
