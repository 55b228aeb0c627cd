"""`POST /feedback`: what became of a prediction. Counted here, or passed on to the pod that remembers the answer."""

from __future__ import annotations

import asyncio
import http.client

import orjson

from moorage_runtime import errors, peers, service
from moorage_runtime.feedback import Report
from moorage_runtime.routes import predict

PATH = "/feedback"
MAX_BYTES = 64 * 1024
FORWARDED = "x-moorage-forwarded"
FORWARD_SECONDS = 2.0
FORWARDS_AT_ONCE = 8


class Feedback:
    """In front of another app, which answers everything else. `port` is where the other pods listen, as this one does."""

    def __init__(
        self, served: service.ModelService, otherwise: predict.App, *, port: int, resolve: peers.Resolve = peers.by_dns
    ) -> None:
        self._served = served
        self._otherwise = otherwise
        self._port = port
        self._resolve = resolve
        self._forwards = 0

    async def __call__(self, scope: predict.Scope, receive: predict.Receive, send: predict.Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", PATH):
            await self._otherwise(scope, receive, send)
            return
        try:
            status, body = await self._answer(scope, receive)
        except errors.RequestError as error:
            status, body = error.status, predict.error_body(error)
        await predict.respond(send, status, body, closing=self._served.draining)

    async def _answer(self, scope: predict.Scope, receive: predict.Receive) -> tuple[int, bytes]:
        body = await predict.read(scope, receive, MAX_BYTES)
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise errors.BadRequest("the body is no JSON") from error
        feedback = self._served.feedback
        report = feedback.report(content)
        if not feedback.is_elsewhere(report):
            return 200, orjson.dumps(feedback.count(report))
        # Whoever passes it on has looked for the owner already: this is not the one, and there is no second guess.
        if predict.header(scope, FORWARDED.encode()) or self._forwards >= FORWARDS_AT_ONCE:
            raise _gone()
        self._forwards += 1
        try:
            return await asyncio.to_thread(self._forward, report, body)
        finally:
            self._forwards -= 1

    def _forward(self, report: Report, body: bytes) -> tuple[int, bytes]:
        address = peers.owner(report.id.pod, self._resolve(report.id.revision))
        if not address:
            raise _gone()
        headers = {"content-type": "application/json", FORWARDED: "1"}
        try:
            answer = peers.post((address, self._port), PATH, body, headers=headers, seconds=FORWARD_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            raise _gone() from error
        return answer.status, answer.body


def _gone() -> errors.Gone:
    return errors.Gone("the pod that made this prediction can't be asked: send 'correct' or 'score' instead of 'label'")
