"""The operator behind a proxy to the API server that fails as a file says; runs in the operator's own image, in place of its command.

The file holds a status that each request is answered with, "cut" for connections that are, "half" for a load balancer one of whose two
servers is down: every other request, by chance, has any of these. Without the file all is well. Watches that are open go on.

A leader that could not renew its Lease ends. It is started again at once, as the kubelet does for the first time: after a few such
tests in a row the kubelet would wait for a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WEATHER, KUBECONFIG = Path("/tmp/weather"), Path("/tmp/kubeconfig")  # noqa: S108 - a volume of this pod alone
PORT = 8001
ENDED = "the operator ended with "
CUT = "cut"
FAILURES = ("500", "502", "503", CUT)
END_TO_END = ("Accept", "Content-Type", "User-Agent")
"""What the API server needs of a request's headers; that it is us says the proxy."""


async def main() -> None:
    """Until SIGTERM."""
    api = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    connector = TCPConnector(ssl=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")), limit=0)
    async with ClientSession(api, connector=connector, timeout=ClientTimeout(total=None)) as session:
        await listen(session)
        environment = os.environ | {"KUBECONFIG": write_kubeconfig()}
        code: int | None = None
        while code != 0:
            child = await asyncio.create_subprocess_exec(sys.executable, "-m", "moorage_operator", env=environment)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, child.terminate)
            code = await child.wait()
            print(f"{ENDED}{code}", flush=True)  # noqa: T201


async def listen(session: ClientSession) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        failure = failing()
        if failure == CUT:
            assert request.transport
            request.transport.abort()
            return web.Response()
        if failure:
            words = {"kind": "Status", "status": "Failure", "message": "bad weather", "code": int(failure)}
            return web.json_response(words, status=int(failure))
        return await forward(session, request)

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()


def failing() -> str:
    """How, this time; empty if not."""
    weather = WEATHER.read_text() if WEATHER.exists() else ""
    if weather == "half":
        return random.choice(FAILURES) if random.random() < 0.5 else ""
    return weather


async def forward(session: ClientSession, request: web.Request) -> web.StreamResponse:
    """Piece by piece, for the sake of watches."""
    headers = {name: request.headers[name] for name in END_TO_END if name in request.headers}
    headers["Authorization"] = f"Bearer {token()}"
    body = await request.read() or None
    async with session.request(request.method, request.rel_url, headers=headers, data=body) as found:
        kept = {name: found.headers[name] for name in ("Content-Type", "Retry-After") if name in found.headers}
        answer = web.StreamResponse(status=found.status, headers=kept)
        await answer.prepare(request)
        async for piece in found.content.iter_any():
            await answer.write(piece)
        await answer.write_eof()
        return answer


def token() -> str:
    """The kubelet writes another one from time to time."""
    return (ACCOUNT / "token").read_text()


def write_kubeconfig() -> str:
    content = {
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{PORT}"}}],
        "users": [{"name": "proxy", "user": {}}],
    }
    KUBECONFIG.write_text(json.dumps(content))
    return str(KUBECONFIG)


if __name__ == "__main__":
    asyncio.run(main())
