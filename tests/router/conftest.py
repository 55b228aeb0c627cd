"""A running router for a test that asks for it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router_world import Router, with_pods


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    """HAProxy and agent, with a stable revision of two pods and a canary of one, at weight 0."""
    if shutil.which("haproxy") is None:
        pytest.fail("haproxy is not on PATH: hack/install")
    async with with_pods(tmp_path, canary=0) as found:
        await found.start_haproxy()
        found.start_agent()
        await found.up("fraud-v1", 2)
        await found.up("fraud-v2", 1)
        yield found
