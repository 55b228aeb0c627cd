"""How errands get to a registry that is slow, down, or says no; and that none is carried out twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import simulated_time
from fake_registry import FakeRegistry
from moorage_operator import errors
from moorage_operator.core.names import Key
from moorage_operator.core.notices import AliasMove, Report, Stage, Tagging
from moorage_operator.tellers import Tellers

FRAUD, SPAM = Key("payments", "fraud"), Key("mail", "spam")
TAGS = Tagging("default", "detector", "2", (("reason", None), ("verdict", "failed")))
OTHER_TAGS = Tagging("default", "detector", "1", (("verdict", "promoted"),))
ALIAS = AliasMove("default", "detector", "champion", away_from="2", to="1")
DONE = Report(Stage.DONE)


class Scene:
    """Tellers of one registry with two versions, `champion` being the second."""

    def __init__(self) -> None:
        self.registry = FakeRegistry()
        for _ in range(2):
            self.registry.set_alias("detector", "champion", self.registry.register("detector"))
        self.woken: list[Key] = []
        self.tellers = Tellers({"default": self.registry}, wake=self.woken.append)


def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        made = Scene()
        telling = asyncio.create_task(made.tellers.run())
        await scene(made)
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling

    simulated_time.run(run())


def test_an_errand_is_carried_out_once_and_its_report_kept_until_it_is_no_longer_wanted() -> None:
    async def scene(of: Scene) -> None:
        for _ in range(3):
            of.tellers.want(FRAUD, [ALIAS, TAGS])
            await asyncio.sleep(1)
        assert of.tellers.reports(FRAUD) == {ALIAS: DONE, TAGS: DONE}
        assert of.registry.changes == [("alias", "detector", "champion", "1"), ("tag", "detector", "2", "verdict")]
        assert of.woken == [FRAUD, FRAUD]
        of.tellers.want(FRAUD, [])
        assert of.tellers.reports(FRAUD) == {}

    play(scene)


def test_a_registry_that_is_down_is_tried_by_ever_longer_waits_until_it_answers() -> None:
    async def scene(of: Scene) -> None:
        tries: list[float] = []

        async def set_tags(*_: object) -> None:
            tries.append(asyncio.get_running_loop().time())
            raise errors.RegistryUnreachable("no answer")

        real, of.registry.set_tags = of.registry.set_tags, set_tags  # type: ignore[assignment, method-assign]
        of.tellers.want(FRAUD, [TAGS])
        of.tellers.want(SPAM, [OTHER_TAGS])
        await asyncio.sleep(3600)
        assert 60 <= len(tries) <= 140, "one try at a time, at most one a minute in the end"
        assert not of.woken, "nothing has come of it"
        of.registry.set_tags = real  # type: ignore[method-assign]
        await asyncio.sleep(61)
        assert of.tellers.reports(FRAUD) == {TAGS: DONE}
        assert of.tellers.reports(SPAM) == {OTHER_TAGS: DONE}

    play(scene)


def test_one_errand_that_never_succeeds_does_not_hold_up_the_others_for_ever() -> None:
    async def scene(of: Scene) -> None:
        real = of.registry.set_tags

        async def set_tags(model: str, version: str, tags: dict[str, str | None]) -> None:
            if version == "2":
                raise ValueError("a bug")
            await real(model, version, tags)

        of.registry.set_tags = set_tags  # type: ignore[assignment, method-assign]
        of.tellers.want(FRAUD, [TAGS])
        await asyncio.sleep(600)
        of.tellers.want(SPAM, [OTHER_TAGS])
        await asyncio.sleep(121)
        assert of.tellers.reports(SPAM) == {OTHER_TAGS: DONE}

    play(scene)


def test_a_refusal_is_reported_and_not_tried_again() -> None:
    async def scene(of: Scene) -> None:
        of.registry.refusal = errors.RegistryUnauthorized("grant it EDIT")
        of.tellers.want(FRAUD, [ALIAS, TAGS])
        await asyncio.sleep(1)
        refused = Report(Stage.FAILED, "grant it EDIT")
        assert of.tellers.reports(FRAUD) == {ALIAS: refused, TAGS: refused}
        of.registry.refusal = None
        of.tellers.want(FRAUD, [ALIAS, TAGS])
        await asyncio.sleep(600)
        assert of.tellers.reports(FRAUD) == {ALIAS: refused, TAGS: refused}

    play(scene)


def test_tags_of_a_deleted_version_are_nobodys_loss_but_an_alias_can_not_go_back_to_one() -> None:
    async def scene(of: Scene) -> None:
        of.registry.delete_version("detector", "1")
        of.tellers.want(FRAUD, [ALIAS, OTHER_TAGS])
        await asyncio.sleep(1)
        reports = of.tellers.reports(FRAUD)
        assert reports[OTHER_TAGS] == Report(Stage.SKIPPED)
        assert reports[ALIAS].stage is Stage.FAILED
        assert "has no version 1" in reports[ALIAS].problem

    play(scene)


def test_an_alias_that_has_moved_on_is_left_alone() -> None:
    async def scene(of: Scene) -> None:
        of.registry.set_alias("detector", "champion", of.registry.register("detector"))
        of.tellers.want(FRAUD, [ALIAS])
        await asyncio.sleep(1)
        assert of.tellers.reports(FRAUD) == {ALIAS: Report(Stage.SKIPPED)}
        assert not of.registry.changes

    play(scene)


def test_what_is_no_longer_wanted_is_not_begun() -> None:
    async def scene(of: Scene) -> None:
        of.tellers.want(FRAUD, [ALIAS])
        of.tellers.want(FRAUD, [])
        await asyncio.sleep(1)
        assert not of.registry.changes
        assert not of.woken

    play(scene)


def test_two_who_want_the_same_are_both_told() -> None:
    async def scene(of: Scene) -> None:
        of.tellers.want(FRAUD, [ALIAS])
        of.tellers.want(SPAM, [ALIAS])
        await asyncio.sleep(1)
        assert of.tellers.reports(FRAUD) == of.tellers.reports(SPAM) == {ALIAS: DONE}
        assert len(of.registry.changes) == 1

    play(scene)


def test_an_errand_to_a_registry_that_is_not_declared_waits() -> None:
    async def scene(of: Scene) -> None:
        of.tellers.want(FRAUD, [AliasMove("gone", "detector", "champion", away_from="2", to="1")])
        await asyncio.sleep(600)
        assert of.tellers.reports(FRAUD) == {}

    play(scene)
