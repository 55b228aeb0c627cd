"""`adapters.cluster` against a server that answers as no real one does on demand: failures, rotation, expiry."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import certificates
import simulated_time
from moorage_operator import errors
from moorage_operator.adapters import cluster
from moorage_operator.adapters.cluster.budget import Budget
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Manifest, Ref
from moorage_operator.ports import Selection
from stub_api import ApiServer

REF = Ref(kinds.CONFIG_MAP, "models", "iris")
MANIFEST: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "models", "name": "iris"}}
TOKEN = "the-secret-token"

Handler = Callable[[web.Request], Awaitable[web.Response]]


def kubeconfig(folder: Path, url: str, **user: str) -> str:
    file = folder / "kubeconfig"
    settings = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": user or {"token": TOKEN}}],
    }
    file.write_text(json.dumps(settings))
    return str(file)


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@asynccontextmanager
async def client_of(handler: Handler, folder: Path, **settings: Any) -> AsyncIterator[cluster.KubernetesCluster]:
    async with served(handler) as url, cluster.connect(kubeconfig(folder, url), **settings) as client:
        yield client


def always(status: int, body: Any = None, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(
            body or {"kind": "Status", "message": "said the server"}, status=status, headers=headers
        )

    return answer


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.Invalid),
        (401, errors.Forbidden),
        (403, errors.Forbidden),
        (404, errors.Invalid),
        (409, errors.Conflict),
        (413, errors.Invalid),
        (422, errors.Invalid),
        (500, errors.Unreachable),
        (503, errors.Unreachable),
        (504, errors.Unreachable),
    ],
)
async def test_each_refusal_has_its_error(status: int, expected: type[errors.ClusterError], tmp_path: Path) -> None:
    async with client_of(always(status), tmp_path) as client:
        with pytest.raises(errors.ClusterError) as caught:
            await client.apply(MANIFEST)

    assert type(caught.value) is expected
    assert caught.value.status == status
    assert str(caught.value) == "apply ConfigMap models/iris: said the server"


async def test_a_namespace_that_is_gone_is_no_refusal_of_the_child(tmp_path: Path) -> None:
    body = {"message": 'namespaces "models" not found', "details": {"name": "models", "kind": "namespaces"}}
    async with client_of(always(404, body), tmp_path) as client:
        with pytest.raises(errors.NamespaceTerminating):
            await client.apply(MANIFEST)


async def test_a_full_server_says_when_to_come_back(tmp_path: Path) -> None:
    async with client_of(always(429, **{"Retry-After": "7"}), tmp_path) as client:
        with pytest.raises(errors.Throttled) as caught:
            await client.get(REF)

    assert caught.value.retry_after == 7


async def test_an_error_page_of_a_proxy_is_not_shown(tmp_path: Path) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=502, text=f"<html>{request.headers['Authorization']}</html>")

    async with client_of(page, tmp_path) as client:
        with pytest.raises(errors.Unreachable) as caught:
            await client.get(REF)

    assert str(caught.value) == "get ConfigMap models/iris: Bad Gateway"


async def test_a_long_refusal_is_cut(tmp_path: Path) -> None:
    async with client_of(always(422, {"message": "x" * 100_000}), tmp_path) as client:
        with pytest.raises(errors.Invalid) as caught:
            await client.apply(MANIFEST)

    assert len(str(caught.value)) < 1100


async def test_an_answer_that_is_not_json_is_unreachable(tmp_path: Path) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>log in first</html>")

    async with client_of(page, tmp_path) as client:
        with pytest.raises(errors.Unreachable, match="not JSON"):
            await client.get(REF)


async def test_a_closed_port_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    async with cluster.connect(kubeconfig(tmp_path, address)) as client:
        with pytest.raises(errors.Unreachable) as caught:
            await client.get(REF)

    assert TOKEN not in str(caught.value)


async def test_a_socket_that_never_answers_is_unreachable_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with cluster.connect(kubeconfig(tmp_path, address), timeout_seconds=0.3) as client:
            began = time.monotonic()
            with pytest.raises(errors.Unreachable, match="did not answer in time"):
                await client.get(REF)

    assert time.monotonic() - began < 3


async def test_an_answer_that_stalls_halfway_is_unreachable_in_time(tmp_path: Path) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"kind":')
        await asyncio.Event().wait()
        return response

    async with client_of(stall, tmp_path, timeout_seconds=0.3) as client:  # type: ignore[arg-type]  # a stream too
        with pytest.raises(errors.Unreachable, match="did not answer in time"):
            await client.get(REF)


async def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    async def answer(request: web.Request) -> web.Response:
        valid = request.headers["Authorization"] == "Bearer new"
        return web.json_response(MANIFEST if valid else {"message": "Unauthorized"}, status=200 if valid else 401)

    async with (
        served(answer) as url,
        cluster.connect(kubeconfig(tmp_path, url, tokenFile=str(file))) as client,
    ):
        file.write_text("new")
        assert await client.apply(MANIFEST) == MANIFEST


async def test_an_authority_that_is_replaced_is_trusted_by_the_next_connection(tmp_path: Path) -> None:
    old, new = (certificates.make(tmp_path / name, name, "IP:127.0.0.1") for name in ("old", "new"))
    bundle, file, server = tmp_path / "ca.crt", tmp_path / "kubeconfig", ApiServer()
    bundle.write_text(old[0].read_text())
    server.certificate = old
    await server.start()
    file.write_text(json.dumps(server.kubeconfig_with({"certificate-authority": str(bundle)})))
    async with cluster.connect(str(file)) as client:
        await client.snapshot(SLICES)
        await server.stop()
        server.certificate = new
        await server.start()
        with pytest.raises(errors.Unreachable, match="certificate"):
            await client.snapshot(SLICES)
        bundle.write_text("nonsense")
        with pytest.raises(errors.Unreachable, match="certificate"):
            await client.snapshot(SLICES)
        bundle.write_text(new[0].read_text())
        await client.snapshot(SLICES)
    await server.stop()


@pytest.mark.parametrize("content", [None, "", "nonsense", "{}", '{"current-context": "x"}'])
async def test_a_kubeconfig_that_is_none_gets_one_sentence(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)

    with pytest.raises(errors.Unreachable, match=r"kubeconfig .* can't be used: set KUBECONFIG"):
        async with cluster.connect(str(file)):
            pass


async def test_a_kubeconfig_that_is_gone_when_the_token_expires_is_unreachable(tmp_path: Path) -> None:
    async with client_of(always(401), tmp_path) as client:
        (tmp_path / "kubeconfig").unlink()
        with pytest.raises(errors.Unreachable, match="kubeconfig"):
            await client.get(REF)


async def test_a_list_whose_snapshot_expired_between_two_pages_starts_over_without_pages(tmp_path: Path) -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        if "continue" in request.query:
            return web.json_response({"message": "The provided continue parameter is too old"}, status=410)
        first = {"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}}]}
        whole = {"metadata": {}, "items": [{"metadata": {"name": name}} for name in "ab"]}
        return web.json_response(first if request.query["limit"] == "100" else whole)

    async with client_of(answer, tmp_path) as client:
        found = [item async for item in client.list(kinds.CONFIG_MAP, labels={"a": "b"})]

    assert [item["metadata"]["name"] for item in found] == ["a", "a", "b"]
    assert [query["limit"] for query in seen] == ["100", "100", "0"]
    assert {query["labelSelector"] for query in seen} == {"a=b"}


async def test_after_the_fence_closed_no_write_leaves_the_process_and_reads_still_do(tmp_path: Path) -> None:
    methods = []

    async def answer(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.json_response(MANIFEST)

    def fence() -> None:
        raise errors.LeadershipLost("gone")

    async with client_of(answer, tmp_path, fence=fence) as client:
        writes: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.apply(MANIFEST),
            lambda: client.create(MANIFEST),
            lambda: client.patch(REF, []),
            lambda: client.delete(REF, uid="1", resource_version="1"),
        ]
        for write in writes:
            with pytest.raises(errors.LeadershipLost):
                await write()
        await client.get(REF)

    assert methods == ["GET"]


async def test_each_request_is_observed_with_its_answer(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    def observe(*request: str) -> None:
        verb, resource, code = request
        seen.append((verb, resource, code))

    async with client_of(always(200, MANIFEST), tmp_path, observe=observe) as client:
        await client.get(REF)
        await client.apply(MANIFEST)
    async with client_of(always(409), tmp_path, observe=observe) as client:
        with pytest.raises(errors.AlreadyExists):
            await client.create(MANIFEST)

    assert seen == [("get", "configmaps", "200"), ("apply", "configmaps", "200"), ("create", "configmaps", "409")]


async def test_a_request_without_an_answer_is_observed_without_a_code(tmp_path: Path) -> None:
    seen: list[str] = []
    async with served(always(200)) as url:
        address = url
    async with cluster.connect(
        kubeconfig(tmp_path, address), observe=lambda *request: seen.append(request[2])
    ) as client:
        with pytest.raises(errors.Unreachable):
            await client.get(REF)

    assert set(seen) == {""}


def read(client: cluster.KubernetesCluster) -> Awaitable[object]:
    return client.get(REF)


def write(client: cluster.KubernetesCluster) -> Awaitable[object]:
    return client.apply(MANIFEST)


@pytest.mark.parametrize("call", [read, write])
@pytest.mark.parametrize(("failures", "is_answered"), [(4, True), (5, False)])
async def test_a_call_outlives_an_api_server_of_several_that_is_down(
    call: Callable[[cluster.KubernetesCluster], Awaitable[object]], failures: int, is_answered: bool, tmp_path: Path
) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"kind": "ConfigMap"}, status=503 if asked <= failures else 200)

    async with client_of(answer, tmp_path) as client:
        if is_answered:
            assert await call(client) == {"kind": "ConfigMap"}
        else:
            with pytest.raises(errors.Unreachable):
                await call(client)
    assert asked == 5


async def test_each_time_that_a_write_is_sent_the_fence_is_asked(tmp_path: Path) -> None:
    sent = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal sent
        sent += 1
        return web.json_response({}, status=503)

    def fence() -> None:
        if sent == 2:
            raise errors.LeadershipLost

    async with client_of(answer, tmp_path, fence=fence) as client:
        with pytest.raises(errors.LeadershipLost):
            await client.delete(REF, uid="any", resource_version="1")
    assert sent == 2


async def test_the_fence_is_asked_after_the_wait_for_the_budget(tmp_path: Path) -> None:
    asked = []
    async with client_of(
        always(200, MANIFEST),
        tmp_path,
        fence=lambda: asked.append(time.monotonic()),
        writes_per_second=5,
        write_burst=1,
    ) as client:
        for _ in range(3):
            await client.apply(MANIFEST)

    assert asked[-1] - asked[0] > 0.3


def test_the_budget_lets_a_burst_pass_and_then_so_many_a_second() -> None:
    async def scenario() -> None:
        budget, moments = Budget(10, 5), []

        async def writer() -> None:
            await budget.take()
            moments.append(round(asyncio.get_running_loop().time(), 6))

        await asyncio.sleep(100)
        await asyncio.gather(*(writer() for _ in range(8)))
        assert moments == [100, 100, 100, 100, 100, 100.1, 100.2, 100.3]

        await asyncio.sleep(0.2)
        moments.clear()
        await asyncio.gather(*(writer() for _ in range(3)))
        assert moments == [100.5, 100.5, 100.6]

    simulated_time.run(scenario())


SLICES = Selection(kinds.ENDPOINT_SLICE, "models", labels={"a": "b"})


def a_watch(*events: dict[str, Any], stall: bool = False) -> Handler:
    """An API server that answers a watch with these events, and ends it, or says no more."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        if stall:
            await asyncio.Event().wait()
        return response

    return answer  # type: ignore[return-value]  # a stream is a response, too


def an_event(happening: str, version: str) -> dict[str, Any]:
    return {"type": happening, "object": {"metadata": {"name": "a", "resourceVersion": version}}}


async def test_a_watch_tells_each_change_and_ends_when_the_server_ends_it(tmp_path: Path) -> None:
    async with client_of(a_watch(an_event("ADDED", "5"), an_event("BOOKMARK", "9")), tmp_path) as client:
        seen = [change async for change in client.follow(SLICES, since="4")]

    assert [(change.happening, change.resource_version) for change in seen] == [("ADDED", "5"), ("BOOKMARK", "9")]


async def test_a_watch_asks_for_bookmarks_and_for_its_own_end(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.Response()

    async with client_of(answer, tmp_path, watch_seconds=45) as client:
        assert [change async for change in client.follow(SLICES, since="4")] == []

    expected = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "4", "timeoutSeconds": "45"}
    assert asked == [expected | {"labelSelector": "a=b"}]


@pytest.mark.parametrize("handler", [a_watch({"type": "ERROR", "object": {"code": 410}}), always(410)])
async def test_a_watch_whose_past_is_forgotten_has_expired(handler: Handler, tmp_path: Path) -> None:
    async with client_of(handler, tmp_path) as client:
        with pytest.raises(errors.Expired):
            await anext(client.follow(SLICES, since="4"))


@pytest.mark.parametrize(
    "handler",
    [
        a_watch({"type": "ERROR", "object": {"code": 500}}),
        a_watch({"type": "STRANGE", "object": {}}),
        always(503),
    ],
)
async def test_a_watch_that_fails_otherwise_is_unreachable(handler: Handler, tmp_path: Path) -> None:
    async with client_of(handler, tmp_path) as client:
        with pytest.raises(errors.Unreachable):
            await anext(client.follow(SLICES, since="4"))


async def test_a_watch_on_a_half_open_connection_is_noticed(tmp_path: Path) -> None:
    async with client_of(a_watch(an_event("ADDED", "5"), stall=True), tmp_path, watch_seconds=0.3) as client:
        follow = client.follow(SLICES, since="4")
        await anext(follow)
        with pytest.raises(errors.Unreachable, match="fell silent"):
            await anext(follow)
