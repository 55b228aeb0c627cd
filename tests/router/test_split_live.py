"""How requests are assigned, asked of a real HAProxy."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest

from router_traffic import Answer
from router_world import Router, a_canary, a_model

KEYS = [f"user-{number}" for number in range(4000)]
FEW = KEYS[:1000]
ALL_WEIGHTS = (0, 100, 1000, 5000, 9900, 10_000)


def takers(answers: dict[str, Answer], revision: str) -> set[str]:
    return {key for key, answer in answers.items() if answer.pod == revision}


def is_share(found: int, total: int, share: float, *, deviations: float = 4) -> bool:
    """Within so many standard deviations: four where each run draws anew."""
    return abs(found - share * total) <= deviations * math.sqrt(total * share * (1 - share))


def is_honest(found: int, total: int, weight: int) -> bool:
    """In the middle 99.9 % of the binomial distribution."""
    return is_share(found, total, weight / 10_000, deviations=3.29)


async def canary_s(router: Router, weight: int, keys: Sequence[str], *, header: str = "x-user-id") -> set[str]:
    """Whom the canary answers at this weight."""
    await router.apply(fraud=a_model(router.port, canary=a_canary(weight)))
    found: set[str] = set()
    for start in range(0, len(keys), 10_000):  # so that not all answers are in memory at once
        found |= takers(await router.ask(keys[start : start + 10_000], header=header), "fraud-v2")
    return found


def an_arm(name: str, revision: str, weight: int) -> dict[str, object]:
    return {"name": name, "revision": revision, "weight": weight}


async def unkeyed(router: Router, count: int) -> list[Answer]:
    caller = router.caller()
    return [await caller.post() for _ in range(count)]


async def rise_and_fall(router: Router, weights: Sequence[int], keys: Sequence[str]) -> dict[int, int]:
    """Each weight is kept to; raising it takes no key away, and lowering it gives back just what the rise took.

    Returns how many keys were the canary's at each weight.
    """
    rise = {weight: await canary_s(router, weight, keys) for weight in weights}
    for weight, taken in rise.items():
        assert is_honest(len(taken), len(keys), weight), (weight, len(taken))
    for lower, higher in itertools.pairwise(weights):
        assert rise[lower] < rise[higher]
    for weight in reversed(weights[:-1]):
        assert await canary_s(router, weight, keys) == rise[weight]
    return {weight: len(taken) for weight, taken in rise.items()}


async def test_a_weight_is_exact_and_no_key_changes_sides_but_for_a_change_of_it(router: Router) -> None:
    await rise_and_fall(router, (100, 1000, 5000, 9900), KEYS[:2000])


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_many_keys_are_divided_exactly_and_keep_their_sides_at_each_weight(router: Router) -> None:
    found = await rise_and_fall(router, ALL_WEIGHTS, [f"user-{number}" for number in range(100_000)])
    print(f"of 100,000 keys: {found}")  # noqa: T201 - the measurement


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_many_requests_without_a_key_are_divided_exactly_at_each_weight(router: Router) -> None:
    requests = [str(number) for number in range(100_000)]
    for weight in ALL_WEIGHTS:
        taken = len(await canary_s(router, weight, requests, header="x-no-key"))
        print(f"weight {weight / 100:g} %: {taken} of {len(requests)}")  # noqa: T201 - the measurement
        assert is_share(taken, len(requests), weight / 10_000)


async def test_nothing_and_everything_are_exact(router: Router) -> None:
    assert takers(await router.ask(FEW), "fraud-v2") == set()
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000)))
    assert takers(await router.ask(FEW), "fraud-v2") == set(FEW)


async def test_another_rollout_begins_with_other_users(router: Router) -> None:
    taken = []
    for salt in ("one", "two"):
        await router.apply(fraud=a_model(router.port, canary=a_canary(1000, salt=salt)))
        taken.append(takers(await router.ask(KEYS), "fraud-v2"))

    assert is_share(len(taken[0] & taken[1]), len(KEYS), 0.01)


async def test_without_a_key_each_request_is_random(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(5000)))

    answers = Counter(answer.pod for answer in await unkeyed(router, 1000))

    assert is_share(answers["fraud-v2"], 1000, 0.5)


async def test_arms_exclude_each_other_and_do_not_move_with_the_canary(router: Router) -> None:
    for revision in ("fraud-v3", "fraud-v4"):
        await router.add_pod(revision)
    arms = [an_arm("one", "fraud-v3", 1000), an_arm("two", "fraud-v4", 2000)]
    found = []
    for weight in (0, 5000):
        await router.apply(fraud=a_model(router.port, canary=a_canary(weight), arms=arms, salt="experiment"))
        await router.up("fraud-v4", 1)
        found.append(await router.ask(KEYS))

    for arm, share in (("fraud-v3", 0.1), ("fraud-v4", 0.2)):
        assert takers(found[0], arm) == takers(found[1], arm)
        assert is_share(len(takers(found[0], arm)), len(KEYS), share)
    assert is_share(len(takers(found[1], "fraud-v2")), len(KEYS), 0.7 * 0.5)


async def test_a_cookie_is_given_once_and_sticks_from_the_first_request(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, stickiness={"cookie": "uid"}, canary=a_canary(5000)))
    first = await unkeyed(router, 300)
    cookies = {answer.headers["set-cookie"].split(";")[0]: answer.pod for answer in first}

    again = await router.ask(cookies, header="cookie")

    assert len(cookies) == 300
    assert {cookie: answer.pod for cookie, answer in again.items()} == cookies
    assert not any("set-cookie" in answer.headers for answer in again.values())
    assert first[0].headers["set-cookie"].endswith("; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax")


async def test_a_match_decides_before_the_weights_and_is_counted_apart(router: Router) -> None:
    matches = [
        {"name": "testers", "arm": "canary", "header": "x-group", "value": 'it\'s } "beta"'},
        {"name": "tasters", "arm": "canary", "cookie": "group", "value": "beta"},
    ]
    await router.apply(fraud=a_model(router.port, canary=a_canary(0), matches=matches))
    await router.up("fraud-v2", 1)

    by_header = await router.ask(FEW[:10], **{"x-group": 'it\'s } "beta"'})
    by_cookie = await router.ask(FEW[:10], cookie="a=1; group=beta")
    others = await router.ask(FEW[:10], **{"x-group": "beta"})

    assert {(answer.pod, answer.seen["x-moorage-arm"]) for answer in [*by_header.values(), *by_cookie.values()]} == {
        ("fraud-v2", "canary/match")
    }
    assert {answer.pod for answer in others.values()} == {"fraud-v1"}
    counters = await router.counters()
    assert (counters["canary-match"]["requests"], counters["canary"]["requests"]) == (20, 0)
    told = (await router.state())["models"]["fraud"]["matches"]
    assert [(match["arm"], match["revision"], match["value"]) for match in told] == [
        ("canary", "fraud-v2", 'it\'s } "beta"'),
        ("canary", "fraud-v2", "beta"),
    ]


async def test_the_caller_s_own_marks_are_stripped(router: Router) -> None:
    marks = {"X-Moorage-Arm": "canary", "x-moorage-shadow": "fraud-v9", "x-moorage-anything": "1"}

    (answer,) = (await router.ask(["a"], **marks)).values()

    ours = {name: value for name, value in answer.seen.items() if name.startswith("x-moorage-")}
    assert ours == {"x-moorage-arm": "stable"}


async def test_a_part_of_what_stable_gets_is_shadowed(router: Router) -> None:
    shadow = {"revision": "fraud-v2", "percent": 12.5}
    matches = [{"name": "testers", "arm": "canary", "header": "x-group", "value": "beta"}]
    await router.apply(fraud=a_model(router.port, shadow=shadow, canary=a_canary(2000), matches=matches))

    answers = await router.ask(KEYS)
    shadowed = [answer for answer in answers.values() if "x-moorage-shadow" in answer.seen]

    assert {(answer.pod, answer.seen["x-moorage-shadow"]) for answer in shadowed} == {("fraud-v1", "fraud-v2")}
    assert is_share(len(shadowed), len(takers(answers, "fraud-v1")), 0.125)
    assert (await router.state())["models"]["fraud"]["shadow"] == {"revision": "fraud-v2", "weight": 1250}


async def test_a_match_to_a_canary_that_is_not_there_is_no_match(router: Router) -> None:
    matches = [{"name": "testers", "arm": "canary", "header": "x-group", "value": "beta"}]
    await router.apply(fraud=a_model(router.port, matches=matches))

    answers = await router.ask(FEW[:10], **{"x-group": "beta"})

    assert {answer.pod for answer in answers.values()} == {"fraud-v1"}
    state = (await router.state())["models"]["fraud"]
    assert not state["matches"]
    assert state["shadow"] is None


async def test_an_arm_without_a_server_is_answered_by_stable_and_counted_apart(router: Router) -> None:
    await router.apply(fraud=a_model(router.port, canary=a_canary(5000, revision="fraud-v9")))

    answers = await router.ask(FEW)

    marks = Counter(answer.seen["x-moorage-arm"] for answer in answers.values())
    assert {answer.pod for answer in answers.values()} == {"fraud-v1"}
    assert set(marks) == {"stable", "fallback"}
    for role in ("stable", "fallback", "canary"):
        await router.counted(role, requests=marks[role])
    assert is_share(marks["fallback"], len(FEW), 0.5)
    assert (await router.state())["models"]["fraud"]["problem"] == "no server of fraud-v9 can be reached"


async def test_paths_queries_and_bodies_pass_unchanged(router: Router) -> None:
    caller = router.caller()
    answers = [await caller.post(body=b"x" * size, path="/v2/models/a%20b/infer?q=1") for size in (0, 1, 1_000_000)]

    assert [answer.seen["content-length"] for answer in answers] == ["0", "1", "1000000"]
    assert {answer.status for answer in answers} == {200}


async def test_two_models_have_their_own_splits(router: Router) -> None:
    await router.add_pod("iris-v1")
    iris = a_model(router.second_port, stable="iris-v1", stickiness=None)
    iris.pop("stickiness")
    await router.apply(fraud=a_model(router.port, canary=a_canary(10_000)), iris=iris)
    await router.up("iris-v1", 1, model="iris")

    answers = await asyncio.gather(router.caller().post(), router.caller(router.second_port).post())

    assert [answer.pod for answer in answers] == ["fraud-v2", "iris-v1"]
