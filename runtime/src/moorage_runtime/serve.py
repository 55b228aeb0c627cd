"""`moorage-runtime serve`: three servers in one event loop, the model loading beside them, and an orderly end.

SIGTERM is handled here: uvicorn's own handler closes the listener at once, and requests that are on their way are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from moorage_runtime import app, drain, errors, loading, manifest, mlmodel, service, settings, shadow, telemetry
from moorage_runtime.routes import health
from moorage_runtime.rpc import copies, server

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
"""Longer than a router in front keeps an idle connection: whoever waits longer must not be the one who sends next."""


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(options: settings.Settings) -> int:
    """Runs until a signal; returns the exit code. Raises `errors.Fatal` if the model can't be served."""
    with _artifacts(options) as (folder, named):
        return asyncio.run(_serve(named, folder))


@contextlib.contextmanager
def _artifacts(options: settings.Settings) -> Iterator[tuple[Path, settings.Settings]]:
    """Where the model's files are: fetched before by `fetch`, a folder, or (on a laptop) fetched now."""
    if not options.model:
        yield options.model_dir / manifest.ARTIFACTS, replace(options, model_name=options.model_name or "model")
    elif not options.model.startswith("models:/"):
        folder = Path(options.model)
        if not (folder / mlmodel.FILE).is_file():
            raise errors.UsageError(f"--model {options.model}: there is no {mlmodel.FILE} file in that folder")
        yield folder, replace(options, model_name=options.model_name or folder.resolve().name)
    else:
        from moorage_runtime import fetch  # noqa: PLC0415  # MLflow's client, which a pod's `serve` does without

        with tempfile.TemporaryDirectory(prefix="moorage-") as folder_name:
            named = fetch.named(options.model, replace(options, model_dir=Path(folder_name)))
            fetch.fetch(named)
            yield named.model_dir / manifest.ARTIFACTS, named


async def _serve(options: settings.Settings, folder: Path) -> int:
    version = options.model_version or "0"
    metrics = telemetry.Metrics(model=options.model_name, version=version, revision=options.revision)
    address = options.pod_ip or socket.gethostname()
    served = service.ModelService(
        name=options.model_name, version=version, metrics=metrics, bounds=options.limits, address=address
    )
    shadows = _shadows(options, served)
    drainer = drain.Drainer(served, options.drain_seconds, give_up=shadows.close)
    predictions = _server(app.app(served, port=options.port, shadows=shadows))
    checks = _server(health.Health(served, drainer))
    with _listening(options.host, options.port) as port, _listening(options.host, options.health_port) as health_port:
        rpc = server.Server(
            served,
            host=options.host,
            port=options.grpc_port,
            drain_seconds=options.drain_seconds,
            shadows=shadows,
        )
        ending = asyncio.Event()
        _end_on_signals(drainer, ending)
        ports = (port.getsockname()[1], rpc.port, health_port.getsockname()[1])
        logger.info("predictions on port %d, by gRPC on port %d, health on port %d", *ports)
        checking = asyncio.create_task(checks.serve([health_port]))
        loader = functools.partial(
            loading.load, folder, engine=options.engine, device=options.device, allow_pickle=options.allow_pickle
        )
        load = asyncio.create_task(_load(served, loader, ending))
        await asyncio.gather(predictions.serve([port]), rpc.serve(ending), _let_go(predictions, ending))
        # Until here the health port has answered: the kubelet sees "draining", not a refused connection.
        checks.should_exit = True
        await checking
        load.cancel()
    served.close()
    if isinstance(served.state, service.Failed):
        raise served.state.error
    logger.info("every request is answered, goodbye")
    return 0


def _shadows(options: settings.Settings, served: service.ModelService) -> shadow.Shadows:
    by_http = shadow.by_http(options.port, options.model_name)
    send = copies.by_protocol(by_http, copies.Copies(options.grpc_port).send)
    answers = served.feedback.answers
    return shadow.Shadows(revision=options.revision, metrics=served.metrics, answers=answers, send=send)


async def _load(served: service.ModelService, loader: Any, ending: asyncio.Event) -> None:
    await served.load(loader)
    if isinstance(served.state, service.Failed):
        ending.set()


async def _let_go(predictions: _Server, ending: asyncio.Event) -> None:
    await ending.wait()
    predictions.should_exit = True


def _server(asgi: Any) -> _Server:
    config = uvicorn.Config(
        asgi,
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ws="none",
    )
    return _Server(config)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its name: asyncio sets TCP_NODELAY only on sockets that name it, and without it the second packet of an
    # answer waits for the caller's delayed acknowledgement, 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise errors.UsageError(f"can't listen on {host}:{port} ({error.strerror}): choose another port") from error
        listener.listen(2048)
        yield listener


def _end_on_signals(drainer: drain.Drainer, ending: asyncio.Event) -> None:
    drains: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def end() -> None:
        await drainer.drain()
        ending.set()

    def stop() -> None:
        drains.add(asyncio.create_task(end()))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
