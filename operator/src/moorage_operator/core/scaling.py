"""What the autoscaler of the newest revision says, as a condition."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from moorage_operator.core import checks
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import AUTOSCALER, Manifest
from moorage_operator.core.observed import Observed
from moorage_operator.core.reasons import Reason
from moorage_operator.core.state import State

METRICS_PATIENCE = timedelta(seconds=60)
"""How long new pods may go without metrics: metrics-server measures every 15 s, and needs two measurements."""


def scaling_active(facts: Facts) -> Condition:
    autoscaler = _autoscaler(facts.observed, facts.state)
    for kind in ("AbleToScale", "ScalingActive"):
        said = checks.condition_of(autoscaler or {}, kind)
        if said.get("status") == "False" and said.get("reason") != "ScalingDisabled":
            metrics = _lacks_metrics(said)
            due = metrics_due_at(facts.observed, facts.state)
            if metrics and due and facts.now < due:
                message = "the autoscaler waits for the first metrics of new pods"
                return Condition("ScalingActive", "Unknown", Reason.PENDING, message)
            reason = Reason.AUTOSCALER_WITHOUT_METRICS if metrics else Reason.AUTOSCALER_FAILED
            return Condition("ScalingActive", "False", reason, str(said.get("message", ""))[: checks.MAX_MESSAGE])
    if checks.condition_of(autoscaler or {}, "ScalingActive").get("status") == "True":
        return Condition("ScalingActive", "True", Reason.SCALING, "the autoscaler has its metrics")
    return Condition("ScalingActive", "Unknown", Reason.PENDING, "the autoscaler has not looked yet")


def metrics_due_at(observed: Observed, state: State) -> datetime | None:
    """When an autoscaler without metrics becomes a problem; None while it has them."""
    said = checks.condition_of(_autoscaler(observed, state) or {}, "ScalingActive")
    if said.get("status") != "False" or not _lacks_metrics(said):
        return None
    return msgspec.convert(said["lastTransitionTime"], datetime) + METRICS_PATIENCE


def _autoscaler(observed: Observed, state: State) -> Manifest | None:
    return observed.child(AUTOSCALER, state.newest.revision) if state.newest else None


def _lacks_metrics(said: dict[str, Any]) -> bool:
    """Of an autoscaler's condition."""
    reason = str(said.get("reason", ""))
    return reason.startswith("FailedGet") or reason == "InvalidMetricSourceType"
