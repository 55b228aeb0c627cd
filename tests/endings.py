"""How long a rollout may stay at its step, and for whom it may wait for ever: by the spec alone, whatever the operator makes of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from moorage_operator.core.kinds import Manifest

LOOKS = timedelta(seconds=60)
"""For the counters to be looked at until enough has been seen after a step's time was up."""


def steps_of(spec: Manifest, status: Manifest) -> list[Manifest]:
    """Those that the present canary has to go through, taking over everything included."""
    rollout, everything = spec.get("rollout", {}), {"setWeight": 100}
    if status["canary"].get("isBack") or status.get("capacity", {}).get("stableEnded") or "stable" not in status:
        return [everything]
    strategy = rollout.get("strategy", "canary")
    if strategy == "blueGreen" and not rollout.get("blueGreen", {}).get("autoPromote", True):
        return [{"setWeight": 0}, {"pause": {}}, everything]
    return [*(rollout.get("steps", []) if strategy == "canary" else []), everything]


def may_wait_for_a_person(spec: Manifest, status: Manifest, now: datetime) -> bool:
    """Does it say that it does, for a reason that a person has to deal with?"""
    if status["phase"] != "Paused":
        return False
    if spec.get("suspend") or status.get("paused") or _step(spec, status).get("pause") == {}:
        return True
    if _reason(status, "TrafficProgrammed") == "SampleRatioMismatch":
        return True
    asks = _analysis(spec).get("onInconclusive", "pause") == "pause"
    return asks and "inconclusive: " in status["message"] and now >= _judged_until(spec, status)


def overstays(spec: Manifest, status: Manifest, now: datetime) -> bool:
    """Is it at its step for longer than machines, the clock and the traffic may take, and for nobody who may?"""
    if not {"stable", "canary"} <= status.keys() or may_wait_for_a_person(spec, status, now):
        return False
    return now >= _latest_end_of_step(spec, status)


def longest(spec: Manifest, status: Manifest, begun: datetime) -> timedelta:
    """Of the whole rollout, where no person is asked and all machines do their part at once."""
    taken = sum((_dwell(step) + _timeout(spec) + LOOKS for step in steps_of(spec, status)), timedelta())
    return max([begun, *_departures(status)]) - begun + taken


def _latest_end_of_step(spec: Manifest, status: Manifest) -> datetime:
    """The machines' part ends at the deadline, or with a rollback; that of leaving pods when they go."""
    deadline = timedelta(seconds=spec.get("rollout", {}).get("progressDeadlineSeconds", 600))
    step = _step(spec, status)
    by_machines = [] if "pause" in step or "analysis" in step else [_started(status) + deadline, *_departures(status)]
    return max([_judged_until(spec, status), *by_machines])


def _judged_until(spec: Manifest, status: Manifest) -> datetime:
    return _started(status) + _dwell(_step(spec, status)) + _timeout(spec)


def _step(spec: Manifest, status: Manifest) -> Manifest:
    return steps_of(spec, status)[status["currentStepIndex"]]


def _started(status: Manifest) -> datetime:
    return datetime.fromisoformat(status["stepStartedAt"])


def _departures(status: Manifest) -> list[datetime]:
    return [datetime.fromisoformat(role["scaleDownAt"]) for role in status.get("leaving", ())]


def _dwell(step: Manifest) -> timedelta:
    """How long it takes at least. Durations are whole seconds here."""
    timed: dict[str, Any] = step.get("pause") or step.get("analysis") or {}
    return timedelta(seconds=timed.get("duration", 0))


def _timeout(spec: Manifest) -> timedelta:
    return timedelta(seconds=_analysis(spec).get("timeoutSeconds", 3600 if _analysis(spec) else 0))


def _analysis(spec: Manifest) -> Manifest:
    """Without one nobody waits for requests."""
    found: Manifest = spec.get("rollout", {}).get("analysis", {})
    return found


def _reason(status: Manifest, kind: str) -> str:
    return next((str(item["reason"]) for item in status["conditions"] if item["type"] == kind), "")
