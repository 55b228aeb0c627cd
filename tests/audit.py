"""What the API server wrote down about who did what (`hack/cluster --name test up --audit`)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures_cluster import Api

REPOSITORY = Path(__file__).parent.parent
READS = {"get", "list", "watch"}


@dataclass(frozen=True)
class Request:
    """One request and its answer; `resource` has its group before it and a subresource behind it: `apps/deployments`."""

    at: datetime
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    pod: str
    """Of the ServiceAccount; empty where the token is bound to none."""


def now() -> datetime:
    """Requests that arrive later are `since` this moment: the API server runs on this machine's clock."""
    return datetime.now(UTC)


def requests(api: Api, user: str, since: datetime) -> list[Request]:
    """All answered requests of a user, in their order. Skips the test where the cluster writes no audit log."""
    return list(_requests(api, user, since))


def writes(api: Api, user: str, since: datetime, *, apart_from: Collection[str] = ()) -> list[Request]:
    """Without those to the Lease, which is renewed for ever, and those in some namespaces."""
    return [
        item
        for item in requests(api, user, since)
        if item.verb not in READS and not item.resource.endswith("leases") and item.namespace not in apart_from
    ]


def is_calm(api: Api, users: list[str], seconds: float, *, apart_from: Collection[str] = ()) -> bool:
    """None of them wrote anything in the last seconds."""
    since = now() - timedelta(seconds=seconds)
    return not any(writes(api, user, since, apart_from=apart_from) for user in users)


def service_account(namespace: str, name: str = "moorage-operator") -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def _requests(api: Api, user: str, since: datetime) -> Iterator[Request]:
    for line in _lines(api, since):
        if f'"{user}"' in line:
            found = _request(json.loads(line))
            if found and found.at >= since:
                yield found


def _lines(api: Api, since: datetime) -> list[str]:
    """The end of the log, from before that moment: a cluster that lived through many tests has written gigabytes."""
    count = 10_000
    while True:
        lines = _tail(api, count)
        # A line is written when its request ends; the longest that matter take seconds.
        if len(lines) < count or _time(lines[0]) < since - timedelta(minutes=1):
            return lines
        count *= 4


def _tail(api: Api, count: int) -> list[str]:
    command = ["hack/cluster", "logs", "audit", f"--tail={count}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=api.environment(), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        pytest.skip("the cluster writes no audit log: hack/cluster --name test up --audit")
    return done.stdout.splitlines()


def _time(line: str) -> datetime:
    return datetime.fromisoformat(json.loads(line)["stageTimestamp"])


def _request(entry: dict[str, object]) -> Request | None:
    target = entry.get("objectRef")
    # A watch is complete when it ends, which may be in hours.
    stage = "ResponseStarted" if entry["verb"] == "watch" else "ResponseComplete"
    if entry["stage"] != stage or not isinstance(target, dict):
        return None
    response = entry.get("responseStatus")
    user: Any = entry["user"]
    pods = user.get("extra", {}).get("authentication.kubernetes.io/pod-name", [])
    group, subresource = target.get("apiGroup", ""), target.get("subresource", "")
    return Request(
        at=datetime.fromisoformat(str(entry["requestReceivedTimestamp"])),
        verb=str(entry["verb"]),
        resource=f"{group}/{target['resource']}" + (f"/{subresource}" if subresource else ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=int(response["code"]) if isinstance(response, dict) else 0,
        pod=str(next(iter(pods), "")),
    )
