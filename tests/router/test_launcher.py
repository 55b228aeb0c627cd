"""The process beside HAProxy, and what a router pod reads from its environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from moorage_operator.router import settings
from router_traffic import until
from router_world import Router


async def test_it_waits_for_a_configuration_and_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    environment = os.environ | {"MOORAGE_ROUTER_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "moorage_operator.router", "haproxy"]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    await until(lambda: handles(process.pid, signal.SIGTERM), "it handles SIGTERM")
    process.send_signal(signal.SIGTERM)

    assert await asyncio.wait_for(process.wait(), 10) == 0


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(mask >> (number - 1) & 1)


async def test_it_ends_with_haproxy_and_says_how(router: Router) -> None:
    await router.kill_worker_and_wait()

    assert router.process
    assert router.process.returncode not in {0, None}


async def test_nothing_heavy_is_in_memory_beside_haproxy() -> None:
    heavy = ["asyncio", "aiohttp", "msgspec", "kubernetes"]
    code = f"import sys, moorage_operator.router.__main__; print([name for name in {heavy} if name in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()

    assert output == b"[]\n"


def test_the_environment_is_read_and_the_rest_has_defaults() -> None:
    found = settings.load({"POD_NAMESPACE": "models", "MOORAGE_ROUTER_BIND": "::", "MOORAGE_ROUTER_THREADS": "4"})

    assert (found.namespace, found.layout.threads, sorted(found.own_ports)) == ("models", 4, [8404, 8405])
    assert found.layout.listen(10001) == "bind [::]:10001 v4v6"


def test_a_number_that_is_none_is_one_clear_line() -> None:
    with pytest.raises(SystemExit, match="MOORAGE_ROUTER_PORT has to be a whole number, not 'x'"):
        settings.load({"MOORAGE_ROUTER_PORT": "x"})
