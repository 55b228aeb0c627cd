"""The operator, killed by SIGKILL at one of its writes, and started again, for ever.

Runs in the operator's own image, in place of its command. By itself, it dies after any of its writes: every state that lies between two
writes is thereby the one that a new process finds. With "anywhere", as chance has it: before a write, after it, while nobody knows
whether it was carried out, or at a later one. With the name of a ModelDeployment, after each status that first shows a step of its
rollout, or its end.

Each life is a fork of a process that has imported everything and done nothing: that is what takes seconds. There is never more than
one. After each write it would cost too long to wait for the Lease of the dead: those lives lead without one. After each step they do
wait, for a short one.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moorage_operator import __main__ as operator
from moorage_operator import election
from moorage_operator.adapters.cluster import client

CONFIG, CHANGED = Path("/etc/moorage/config.yaml"), Path("/tmp/config.yaml")  # noqa: S108 - a volume of this pod alone
STEPS = Path("/tmp/steps")  # noqa: S108 - the same

ANYWHERE = "anywhere"

IsLast = Callable[[Any, Any], str]
"""Of a write and its answer: words for what is to be the last of a life; empty if it goes on."""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    is_last = prepare(sys.argv[1] if len(sys.argv) > 1 else "")
    while True:
        begin = time.monotonic()
        life = os.fork()
        if life == 0:
            live(is_last)
        _, status = os.waitpid(life, 0)
        code = os.waitstatus_to_exitcode(status)
        print(f"life ended with {code} after {time.monotonic() - begin:.1f} s", flush=True)  # noqa: T201
        if code != -signal.SIGKILL:
            sys.exit(1)


def prepare(model: str) -> IsLast:
    if model not in ("", ANYWHERE):
        quick = functools.partial(election.Timing, lease=6, renew_deadline=4.5, retry=0.5)
        election.Timing = quick  # type: ignore[assignment,misc]  # the injection
        return functools.partial(step, model)
    CHANGED.write_text(CONFIG.read_text() + "\nleaderElection: false\n")
    os.environ["MOORAGE_CONFIG"] = str(CHANGED)
    return lambda call, answer: "" if model and random.random() < 0.7 else call.what


def step(model: str, call: Any, answer: Any) -> str:
    """What the status says for the first time in all lives."""
    if not isinstance(answer, dict) or answer.get("kind") != "ModelDeployment" or answer["metadata"]["name"] != model:
        return ""
    status, before = answer.get("status", {}), STEPS.read_text().splitlines() if STEPS.exists() else []
    if "canary" not in status and not before:
        return ""
    now = f"step {status['currentStepIndex']}" if "canary" in status else f"version {status['stable']['modelVersion']}"
    if now in before:
        return ""
    STEPS.write_text("\n".join([*before, now]))
    return now


def die(when: str, what: str) -> None:
    print(f"killed {when}: {what}", flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def live(is_last: IsLast) -> None:
    send = client.KubernetesCluster._send_once
    random.seed()
    has_written = False

    async def send_once(self: client.KubernetesCluster, call: Any) -> Any:
        nonlocal has_written
        if call.writes and ANYWHERE in sys.argv:
            # A life that dies before its first write would bring nobody on.
            if has_written and random.random() < 0.3:
                die("before", call.what)
            if random.random() < 0.3:
                _ = asyncio.create_task(send(self, call))  # noqa: RUF006 - it outlives nobody
                await asyncio.sleep(random.uniform(0, 0.01))
                die("within", call.what)
        answer = await send(self, call)
        has_written |= call.writes
        if call.writes and (words := is_last(call, answer)):
            die("after", words)
        return answer

    client.KubernetesCluster._send_once = send_once  # type: ignore[method-assign]  # the injection
    operator.main()
    sys.exit()


if __name__ == "__main__":
    main()
