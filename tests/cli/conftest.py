"""A cluster that exists in a file only."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin_world import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """With one healthy ModelDeployment, fraud."""
    return Cluster(tmp_path)
