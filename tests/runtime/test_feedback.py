"""What became of predictions: their ids, what counts as right, verdicts at any pod, and labels at the pod that remembers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

import stub_http
from moorage_runtime import errors, feedback, peers, prediction_ids, revisions, service, telemetry
from moorage_runtime.codecs import comparing
from moorage_runtime.routes import feedback as routes
from runtime_builders import a_client, a_service, an_adder

REVISION = "iris-v3-0123abcd"
CANARY = "iris-v4-89abcdef"
BODY = {"rows": [[1, 2]]}


async def ready(**options: Any) -> service.ModelService:
    served = a_service(**options)
    await served.load(an_adder)
    return served


async def predicted(client: httpx.AsyncClient, body: Any = None, **headers: str) -> str:
    answer = await client.post("/predict", json=body or BODY, headers=headers)
    return answer.headers[prediction_ids.HEADER]


def judged(served: service.ModelService, verdict: str, *, revision: str = REVISION, arm: str = "") -> float:
    labels = {"revision": revision, "arm": arm, "verdict": verdict}
    return served.metrics.registry.get_sample_value("moorage_feedback_total", labels) or 0


async def test_every_answer_has_an_id_of_its_own_that_names_revision_arm_and_pod() -> None:
    async with a_client(await ready()) as client:
        texts = [await predicted(client, **{"x-moorage-arm": "canary/match"}) for _ in range(20)]
        refused = await client.post("/predict", json={})
    parsed = [prediction_ids.parse(text) for text in texts]
    assert {(each.revision, each.arm, each.pod) for each in parsed} == {
        (REVISION, "canary/match", prediction_ids.pod_name("127.0.0.1"))
    }
    assert len(set(texts)) == 20
    assert prediction_ids.HEADER not in refused.headers


async def test_verdicts_are_counted_for_the_arm_of_the_prediction_and_once() -> None:
    served = await ready()
    async with a_client(served) as client:
        by_canary, unmarked = await predicted(client, **{"x-moorage-arm": "canary"}), await predicted(client)
        first = await client.post("/feedback", json={"id": by_canary, "correct": False})
        again = await client.post("/feedback", json={"id": by_canary, "correct": True})
        await client.post("/feedback", json={"id": unmarked, "correct": True})
    assert first.json() == {"id": by_canary, "revision": REVISION, "correct": False, "counted": True}
    assert (again.status_code, again.json()["counted"]) == (200, False)
    assert judged(served, "wrong", arm="canary") == 1
    assert judged(served, "right", arm="canary") == 0
    assert judged(served, "right") == 1


async def test_a_pod_of_another_revision_counts_a_verdict_under_the_revision_of_the_id() -> None:
    canary, stable = await ready(revision=CANARY), await ready()
    async with a_client(canary) as client:
        identifier = await predicted(client)
    async with a_client(stable) as client:
        await client.post("/feedback", json={"id": identifier, "correct": False})
    assert judged(stable, "wrong", revision=CANARY) == 1


async def test_a_score_is_kept_as_sum_and_count() -> None:
    served = await ready()
    async with a_client(served) as client:
        for score in (0, 0.25, 1):
            assert (await client.post("/feedback", json={"id": await predicted(client), "score": score})).json()[
                "counted"
            ]
    read, labels = served.metrics.registry.get_sample_value, {"revision": REVISION, "arm": ""}
    assert read("moorage_feedback_score_sum", labels) == 1.25
    assert read("moorage_feedback_score_count", labels) == 3


@pytest.mark.parametrize(("label", "verdict"), [(3, "right"), ([3.0], "right"), (3.1, "wrong"), ("3", "wrong")])
async def test_a_label_is_compared_with_the_answer(label: Any, verdict: str) -> None:
    served = await ready()
    async with a_client(served) as client:
        answer = await client.post("/feedback", json={"id": await predicted(client), "label": label})
    assert answer.json()["correct"] is (verdict == "right")
    assert judged(served, verdict) == 1


def made(revision: str = REVISION, arm: str = "") -> str:
    return prediction_ids.issue(revision, arm, "0123abcd")


def broken(text: str) -> str:
    return text.replace("0123abcd.", "0123abce.", 1)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 422, "send an object with 'id'"),
        ({"id": made()}, 422, "send an object with 'id' and one of"),
        ({"id": made(), "correct": True, "score": 1}, 422, "send an object with 'id' and one of"),
        ({"id": made(), "correct": True, "why": 1}, 422, "send an object with 'id' and one of"),
        ({"correct": True}, 422, "send an object with 'id'"),
        ({"id": made(), "correct": 1}, 422, "'correct' must be true or false"),
        ({"id": made(), "score": 1.5}, 422, "'score' must be a number from 0 to 1"),
        ({"id": made(), "score": True}, 422, "'score' must be a number from 0 to 1"),
        ({"id": made(), "label": None}, 422, "'label' must be a value"),
        ({"id": 7, "correct": True}, 422, "'id' must be the x-moorage-prediction-id"),
        ({"id": "", "correct": True}, 422, "'id' must be the x-moorage-prediction-id"),
        ({"id": made()[:-1], "correct": True}, 422, "'id' must be the x-moorage-prediction-id"),
        ({"id": broken(made()), "correct": True}, 422, "'id' must be the x-moorage-prediction-id"),
        ({"id": made("other-v3-0123abcd"), "correct": True}, 422, "another ModelDeployment's"),
        ({"id": made("iris"), "correct": True}, 422, "another ModelDeployment's"),
        ({"id": made(), "correct": True, "x": "x" * 70_000}, 413, "larger than"),
    ],
)
async def test_feedback_that_can_not_be_counted_is_told_why(body: Any, status: int, said: str) -> None:
    served = await ready()
    async with a_client(served) as client:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = await client.post("/feedback", content=content)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert judged(served, "right") == 0


def test_an_id_of_anything_else_with_a_right_check_is_refused() -> None:
    for text in ("a..b.c", f"{'a' * 64}..01234567.{'0' * 16}", f"IRIS..01234567.{'0' * 16}", "a" * 300):
        with pytest.raises(errors.InvalidInput):
            prediction_ids.parse(f"{text}.{zlib.crc32(text.encode()):08x}")


async def test_a_label_of_the_wrong_length_is_refused_and_may_be_sent_again() -> None:
    served = await ready()
    async with a_client(served) as client:
        identifier = await predicted(client, {"rows": [[1, 2], [3, 4]]})
        short = await client.post("/feedback", json={"id": identifier, "label": 3})
        right = await client.post("/feedback", json={"id": identifier, "label": [3, 7]})
    assert (short.status_code, short.json()["reason"]) == (422, "InvalidInput")
    assert right.json()["correct"] is True


@pytest.fixture
def owner() -> Iterator[stub_http.Stub]:
    with stub_http.serving(lambda _: stub_http.Reply({"counted": True})) as stub:
        yield stub


async def nobody(_: Any, __: Any, ___: Any) -> None:
    raise AssertionError("there is nothing but feedback here")


def a_pod(served: service.ModelService, *, port: int, addresses: dict[str, list[str]]) -> httpx.AsyncClient:
    app = routes.Feedback(served, nobody, port=port, resolve=lambda name: addresses.get(name, []))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://runtime")


def elsewhere() -> str:
    """The id of a prediction that the canary's pod at 127.0.0.1 made."""
    return prediction_ids.issue(CANARY, "canary", prediction_ids.pod_name("127.0.0.1"))


async def test_a_label_goes_to_the_pod_that_remembers_and_its_answer_comes_back(owner: stub_http.Stub) -> None:
    stable = await ready(address="10.0.0.1")
    port = int(owner.url.rpartition(":")[2])
    async with a_pod(stable, port=port, addresses={CANARY: ["10.0.0.9", "127.0.0.1"]}) as client:
        answer = await client.post("/feedback", json={"id": elsewhere(), "label": 3})
    assert (answer.status_code, answer.json()) == (200, {"counted": True})
    assert [(asked.path, asked.headers[routes.FORWARDED]) for asked in owner.requests] == [("/feedback", "1")]
    assert judged(stable, "right", revision=CANARY, arm="canary") == 0


@pytest.mark.parametrize(
    ("headers", "addresses"),
    [({}, {}), ({}, {CANARY: ["10.0.0.9"]}), ({routes.FORWARDED: "1"}, {CANARY: ["127.0.0.1"]})],
    ids=["no such Service", "the pod is gone", "it was passed on already"],
)
async def test_a_label_that_nobody_can_compare_is_gone(
    owner: stub_http.Stub, headers: dict[str, str], addresses: dict[str, list[str]]
) -> None:
    port = int(owner.url.rpartition(":")[2])
    async with a_pod(await ready(address="10.0.0.1"), port=port, addresses=addresses) as client:
        answer = await client.post("/feedback", json={"id": elsewhere(), "label": 3}, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (410, "Gone")
    assert owner.requests == []


async def test_an_owner_that_does_not_answer_is_gone() -> None:
    async with a_pod(await ready(address="10.0.0.1"), port=1, addresses={CANARY: ["127.0.0.1"]}) as client:
        answer = await client.post("/feedback", json={"id": elsewhere(), "label": 3})
    assert answer.status_code == 410


async def test_an_answer_that_was_forgotten_is_gone() -> None:
    async with a_client(await ready()) as client:
        text = prediction_ids.issue(REVISION, "", prediction_ids.pod_name("127.0.0.1"))
        answer = await client.post("/feedback", json={"id": text, "label": 3})
    assert answer.status_code == 410
    assert "no longer remembers" in answer.json()["error"]


def test_only_so_many_small_answers_are_remembered() -> None:
    answers = feedback.Answers()
    answers.keep("large", "predict", b"x" * (feedback.MAX_ANSWER_BYTES + 1))
    assert answers.get("large") is None
    for number in range(feedback.MAX_ANSWERS + 1):
        answers.keep(str(number), "predict", b"x")
    assert answers.get("0") is None
    assert answers.get("1") is not None
    for number in range(5000):
        answers.keep(f"kilobyte {number}", "predict", b"x" * 1024)
        answers.keep_shadow(f"kilobyte {number}", CANARY, b"x" * 1024)
    remembered = list(answers._answers.values())
    assert sum(answer.size for answer in remembered) == answers._bytes <= feedback.MAX_BYTES


def test_a_second_verdict_is_known_as_such_for_so_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "MAX_SEEN", 2)
    judge = a_service().feedback
    reports = [judge.report({"id": made(), "correct": True}) for _ in range(3)]
    assert [judge.count(report)["counted"] for report in [*reports, reports[2], reports[0]]] == [True] * 3 + [
        False,
        True,
    ]


def test_more_revisions_than_there_can_be_are_one_label() -> None:
    metrics = telemetry.Metrics(model="iris", version="3", revision=REVISION)
    for number in range(1000):
        metrics.judged(f"iris-v{number}-0123abcd", "", is_right=True)
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith("moorage_feedback_total{")]
    assert len(lines) == telemetry.MAX_REVISIONS + 1
    assert any('revision="other"' in line for line in lines)


def test_a_shadows_answer_is_not_remembered() -> None:
    judge = a_service().feedback
    assert judge.answers.get(judge.issue("shadow", "predict", b"{}")) is None
    assert judge.answers.get(judge.issue("", "predict", b"{}")) is not None


@pytest.mark.parametrize(
    ("stable", "canary", "outcome"),
    [(0, 0, "both_right"), (0, 1, "canary_wrong"), (1, 0, "stable_wrong"), (1, 2, "both_wrong")],
)
def test_a_label_of_a_shadowed_request_makes_a_pair(stable: int, canary: int, outcome: str) -> None:
    served = a_service()
    judge = served.feedback
    text = judge.issue("", "predict", orjson.dumps({"predictions": [stable]}))
    judge.answers.keep_shadow(text, CANARY, orjson.dumps({"predictions": [canary]}))
    judge.count(judge.report({"id": text, "label": 0}))
    read = served.metrics.registry.get_sample_value
    assert read("moorage_feedback_pairs_total", {"revision": CANARY, "outcome": outcome}) == 1


def test_without_a_label_there_is_no_pair() -> None:
    served = a_service()
    judge = served.feedback
    text = judge.issue("", "predict", b'{"predictions":[0]}')
    judge.answers.keep_shadow(text, CANARY, b'{"predictions":[1]}')
    judge.count(judge.report({"id": text, "correct": True}))
    assert b"moorage_feedback_pairs_total{" not in served.metrics.exposition()


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        ("fraud-v8-99aa77ee", "fraud"),
        ("fraud-set-99aa77ee", "fraud"),
        ("fraud-v1-00000000-v2-99aa77ee", "fraud-v1-00000000"),
        ("fraud", ""),
        ("fraud-v8-99aa77e", ""),
        ("fraud-v8-99aa77eg", ""),
        ("evil.example.com-v8-99aa77ee", ""),
        ("fraud-v8-99aa77ee.", ""),
        ("127.0.0.1", ""),
    ],
)
def test_a_revision_belongs_to_the_deployment_that_its_name_says(name: str, deployment: str) -> None:
    assert revisions.deployment_of(name) == deployment
    assert revisions.is_sibling(name, "fraud-v7-00000000") is (deployment == "fraud")
    assert not revisions.is_sibling(name, "")
    assert not revisions.is_sibling(name, "a-laptop")


LABELS = {"predictions": [{"label": 0, "probability": 0.9}, {"label": 1, "probability": 0.8}]}
OTHER_LABELS = {"predictions": [{"label": 0, "probability": 0.1}, {"label": 1, "probability": 0.2}]}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"predictions": [0, 1]}, {"predictions": [0, 1]}, True),
        ({"predictions": [0, 1]}, {"predictions": [0, 2]}, False),
        ({"predictions": ["a"]}, {"predictions": ["b"]}, False),
        ({"predictions": [0]}, {"predictions": [0, 0]}, False),
        (LABELS, OTHER_LABELS, True),
        ({"predictions": [1.0]}, {"predictions": [1.0009]}, True),
        ({"predictions": [1.0]}, {"predictions": [1.0011]}, False),
        ({"predictions": [0.0]}, {"predictions": [1e-7]}, True),
        ({"predictions": [[0.7, 0.3]]}, {"predictions": [[0.6, 0.4]]}, True),
        ({"predictions": [[0.7, 0.3]]}, {"predictions": [[0.4, 0.6]]}, False),
        ({"predictions": [[0.7, 0.4]]}, {"predictions": [[0.6, 0.4]]}, False),
        ({"predictions": [None]}, {"predictions": [None]}, True),
        ({"predictions": {"y": [1.0]}}, {"predictions": {"z": [1.0]}}, False),
        ({"predictions": [[1], [0]]}, {"predictions": [1, 0]}, True),
    ],
)
def test_answers_agree_in_their_classes_or_within_the_tolerance(one: Any, other: Any, same: bool) -> None:
    first, second = (comparing.outputs("predict", orjson.dumps(body)) for body in (one, other))
    assert comparing.agree(first, second) is comparing.agree(second, first) is same


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"predictions": [{"a": 1}, {"b": 2}]}', b'{"outputs": [1]}'])
@pytest.mark.parametrize("protocol", ["predict", "v2", "grpc"])
def test_what_is_no_answer_is_told_apart(protocol: str, body: bytes) -> None:
    if protocol == "grpc" and not body:
        return  # an empty message is a message
    with pytest.raises(comparing.NoAnswer):
        comparing.outputs(protocol, body)


def test_an_owner_is_found_by_what_its_ids_call_it() -> None:
    name = prediction_ids.pod_name("10.0.0.2")
    assert peers.owner(name, ["10.0.0.1", "10.0.0.2"]) == "10.0.0.2"
    assert peers.owner(name, ["10.0.0.1"]) == ""
    assert peers.by_dns("no-such-name-anywhere.invalid") == []
