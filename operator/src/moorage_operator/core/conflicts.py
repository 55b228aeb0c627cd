"""How a fight over a child is told: in the condition that it bears upon, which stays as true as it is, and once as an event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from moorage_operator.core import names, routing
from moorage_operator.core.actions import Event
from moorage_operator.core.facts import Condition, Facts
from moorage_operator.core.kinds import AUTOSCALER, HTTP_ROUTE, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, Ref
from moorage_operator.core.reasons import Reason


def marked(condition: Condition, facts: Facts) -> Condition:
    """With the fights over what it speaks of. What is wrong already stays the reason."""
    refs = [ref for ref in _fought_over(facts) if _type_of(ref, facts) == condition.type]
    if not refs:
        return condition
    told = "; ".join([condition.message, *(_words(ref, facts) for ref in refs)])
    if condition.status == "False":
        return replace(condition, message=told)
    misleads = condition.type == "TrafficProgrammed" and any(_misleads(ref, facts) for ref in refs)
    status = "False" if misleads else condition.status
    return replace(condition, status=status, reason=Reason.FIELD_CONFLICT, message=told)


def events(facts: Facts) -> Iterator[Event]:
    """Once for each fight."""
    before = [item["message"] for item in facts.observed.status.get("conditions", [])]
    for words in (_words(ref, facts) for ref in _fought_over(facts)):
        if not any(words in message for message in before):
            yield Event(Reason.FIELD_CONFLICT, words, warning=True)


def _fought_over(facts: Facts) -> list[Ref]:
    found = (ref for ref, contest in facts.observed.contests.items() if contest.is_on)
    return sorted((ref for ref in found if facts.spec.traffic.by_haproxy or not _is_of_router(ref)), key=str)


def _words(ref: Ref, facts: Facts) -> str:
    return facts.observed.contests[ref].words(ref)


def _type_of(ref: Ref, facts: Facts) -> str:
    owner = facts.observed.owner.name
    if _is_of_router(ref) or ref.name in (owner, names.preview(owner)):
        return "TrafficProgrammed"
    return "ScalingActive" if ref.kind is AUTOSCALER and facts.spec.autoscaling else "RuntimeAvailable"


def _misleads(ref: Ref, facts: Facts) -> bool:
    """Does it say where callers get to, and perhaps not what we would have it say?"""
    is_address = ref.kind in (SERVICE, HTTP_ROUTE) and ref.name == facts.observed.owner.name
    return is_address and facts.observed.contests[ref].is_about_the_spec


def _is_of_router(ref: Ref) -> bool:
    return ref.name == routing.NAME or ref.kind in (SERVICE_ACCOUNT, ROLE_BINDING)
