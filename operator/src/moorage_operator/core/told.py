"""What a registry is told of how a rollout ended: tags of the model version, and the alias that goes back to stable's version.

    outcome in status.history ──► Pending ──► errand ──► report ──► Done, Skipped or Failed

All of it is in `status.history[].registry`: whoever takes over goes on with what is Pending, and does nothing again. An errand may
be run twice (a crash between the registry and the status), so it says what ought to be, not what to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moorage_operator.core import revisions, status
from moorage_operator.core.actions import Event
from moorage_operator.core.facts import Facts
from moorage_operator.core.notices import AliasMove, Errand, Notice, Stage, Tagging
from moorage_operator.core.platform import Platform
from moorage_operator.core.reasons import Reason
from moorage_operator.core.registry import ModelVersion
from moorage_operator.core.revisions import Owner, Revision
from moorage_operator.core.state import Outcome, Result, State

TAG = "moorage.rollout"
DEPLOYMENT_TAG, REASON_TAG, MESSAGE_TAG = (f"{TAG}.{what}" for what in ("deployment", "reason", "message"))

WORDS = {Result.PROMOTED: "promoted", Result.ROLLED_BACK: "failed", Result.ABORTED: "aborted"}
"""Values of TAG. That a version was superseded says nothing about it."""

MAX_MESSAGE = 1000
"""Characters of a tag. MLflow takes 100,000, older ones on some databases 5,000 bytes, and a person reads a sentence."""


def noted(before: State, facts: Facts, known: Mapping[str, Revision], platform: Platform) -> State:
    """The state after this pass, with a notice for each outcome that is new and with what has come of the others."""
    old = {outcome.identity for outcome in before.history}
    history: list[Outcome] = []
    for outcome in facts.state.history:
        notice = outcome.registry if outcome.identity in old else _begun(outcome, facts, known, platform)
        history.append(_with_reports(outcome.noted(notice), history, facts))
    return facts.state.changed(history=tuple(history))


def errands(state: State, owner: Owner, platform: Platform) -> tuple[Errand, ...]:
    """What is still to be done, the oldest first."""
    writable = {name for name, endpoint in platform.registries.items() if not endpoint.read_only}
    return tuple(
        errand
        for outcome in reversed(state.history)
        if outcome.registry and outcome.registry.name in writable
        for errand in _pending(outcome, outcome.registry, owner).values()
    )


def events(before: State, after: State) -> Iterator[Event]:
    """Once for each alias; that tags are refused only when they were not the last time: who has read that knows it."""
    old = {outcome.identity: outcome.registry for outcome in before.history}
    for index, outcome in enumerate(after.history):
        was, now = old.get(outcome.identity), outcome.registry
        if now is None or now == was:
            continue
        alias = f"alias {now.alias} of {now.model}"
        if now.alias_move is Stage.DONE and not (was and was.alias_move is Stage.DONE):
            version = outcome.model_version
            yield Event(Reason.ALIAS_MOVED_BACK, f"{alias} names version {now.alias_back_to} again, not {version}")
        if now.alias_move is Stage.FAILED and not (was and was.alias_move is Stage.FAILED):
            yield Event(Reason.ALIAS_NOT_MOVED, f"{alias} stays where it is: {now.problem}", warning=True)
        is_refused = now.tags is Stage.FAILED and not (was and was.tags is Stage.FAILED)
        if is_refused and not _were_tags_refused(after.history[index + 1 :], now.name):
            what = f"version {outcome.model_version} of {now.model} got no tags"
            yield Event(Reason.REGISTRY_NOT_TOLD, f"{what}: {now.problem}", warning=True)


def _begun(outcome: Outcome, facts: Facts, known: Mapping[str, Revision], platform: Platform) -> Notice | None:
    """Whom to tell: the registry that named the version. None where that is not known, or where there is nothing to tell."""
    asked, revision = status.model_of(facts), known.get(outcome.revision)
    if asked is None or revision is None or revision.model.name != asked["name"]:
        return None
    endpoint = platform.registries.get(asked["registry"])
    if endpoint is None:
        return None
    notice = Notice(asked["registry"], asked["name"])
    if outcome.result in WORDS and not endpoint.read_only:
        notice = notice.changed(tags=Stage.PENDING)
    stable = facts.state.stable
    if stable and _alias_goes_back(outcome, facts):
        move = notice.changed(alias=facts.spec.model.alias, alias_back_to=stable.model_version)
        refusal = f"the registry {notice.name} is declared with readOnly: true"
        notice = (
            move.changed(alias_move=Stage.FAILED, problem=refusal)
            if endpoint.read_only
            else move.changed(alias_move=Stage.PENDING)
        )
    return notice if notice.tags or notice.alias_move else None


def _alias_goes_back(outcome: Outcome, facts: Facts) -> bool:
    """Was it the alias that brought the version, and does the spec ask for its way back?"""
    stable, named = facts.state.stable, facts.version
    if outcome.result is not Result.ROLLED_BACK or named is None or named.version != outcome.model_version:
        return False
    return stable is not None and stable.model_version != named.version and _may_move_alias(facts)


def _may_move_alias(facts: Facts) -> bool:
    """Only if no rollout follows: with the alias at stable's version, the revision that answers has to be the wanted one."""
    spec, stable = facts.spec, facts.state.stable
    if stable is None or not (spec.rollout.rollback.move_alias_back and spec.model.alias):
        return False
    then = ModelVersion(spec.model.name, stable.model_version, run_id="", source="")
    return revisions.name_of(facts.observed.owner, spec, then) == stable.revision


def _with_reports(outcome: Outcome, newer: list[Outcome], facts: Facts) -> Outcome:
    """With what has come of its errands, and without those that make no sense any more."""
    notice = outcome.registry
    if notice is None:
        return outcome
    for field, errand in _pending(outcome, notice, facts.observed.owner).items():
        report = facts.observed.reports.get(errand)
        if report:
            notice = notice.changed(**{field: report.stage, "problem": report.problem or notice.problem})
        elif _is_outdated(errand, newer, facts):
            notice = notice.changed(**{field: Stage.SKIPPED})
    return outcome.noted(notice)


def _pending(outcome: Outcome, notice: Notice, owner: Owner) -> dict[str, Errand]:
    """By the field of the notice that has their stage. The alias first: others follow it."""
    found: dict[str, Errand] = {}
    if notice.alias_move is Stage.PENDING:
        versions = (outcome.model_version, notice.alias_back_to)
        found["alias_move"] = AliasMove(notice.name, notice.model, notice.alias, *versions)
    if notice.tags is Stage.PENDING:
        found["tags"] = Tagging(notice.name, notice.model, outcome.model_version, _tags(outcome, owner))
    return found


def _tags(outcome: Outcome, owner: Owner) -> tuple[tuple[str, str | None], ...]:
    """The verdict last: who sees it finds the reason, too. What an earlier verdict left behind goes."""
    has_failed = outcome.result is Result.ROLLED_BACK
    return (
        (DEPLOYMENT_TAG, str(owner)),
        (REASON_TAG, outcome.reason or None if has_failed else None),
        (MESSAGE_TAG, _shortened(outcome.message) or None if has_failed else None),
        (TAG, WORDS[outcome.result]),
    )


def _is_outdated(errand: Errand, newer: list[Outcome], facts: Facts) -> bool:
    stable, canary = facts.state.stable, facts.state.canary
    if isinstance(errand, AliasMove):
        is_tried_again = canary is not None and canary.model_version == errand.away_from
        same = stable is not None and (facts.spec.model.alias, stable.model_version) == (errand.alias, errand.to)
        return is_tried_again or not same or not _may_move_alias(facts)
    told = {(item.registry.name, item.registry.model, item.model_version) for item in newer if item.registry}
    return (errand.registry, errand.model, errand.version) in told


def _were_tags_refused(older: tuple[Outcome, ...], registry: str) -> bool:
    """The last time that this registry took tags, or refused them."""
    settled = [item.registry.tags for item in older if item.registry and item.registry.name == registry]
    return next((stage for stage in settled if stage in (Stage.DONE, Stage.FAILED)), None) is Stage.FAILED


def _shortened(message: str) -> str:
    """Pods' own words may be in it: a tag holds nothing that a terminal would obey."""
    text = "".join(letter if letter.isprintable() else " " for letter in message)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
