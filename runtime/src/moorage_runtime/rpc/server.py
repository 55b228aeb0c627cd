"""The gRPC port: its bounds, because whoever reaches it may be hostile, and an end that loses no call."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from moorage_runtime import errors, limits, service, shadow
from moorage_runtime.rpc import health, inference

SPARE_CALLS = 128
"""Beyond the predictions: readiness, metadata and those who watch the health."""

SPARE_SECONDS = 5.0
"""After the last prediction's time is up: for its answer to be written."""

AGED_WITHIN = 0.7
"""Of the drain. gRPC's own end refuses calls that its clients send before they have heard of it, and they fail as CANCELLED. A
connection that has become too old is left without loss, so each is asked to go before the drain is over (a tenth later at most, and
those that still come when it begins, too); new ones go to other pods by then."""


class Server:
    def __init__(
        self,
        served: service.ModelService,
        *,
        host: str,
        port: int,
        drain_seconds: float = 0,
        shadows: shadow.Shadows | None = None,
    ) -> None:
        self._bounds = served.limits
        self._health = health.Health(served)
        self._server = grpc.aio.server(
            handlers=[inference.Inference(served, shadows).handler(), self._health.handler()],
            options=_options(served.limits, drain_seconds),
            # What is more than the core admits is refused there, with a reason; this only bounds how many may be refused at once.
            maximum_concurrent_rpcs=2 * served.limits.max_concurrency + SPARE_CALLS,
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise errors.UsageError(f"can't listen on {address}: choose another port") from error

    async def serve(self, ending: asyncio.Event) -> None:
        """Answer until then; afterwards take no new call, and end with the last one."""
        await self._server.start()
        await ending.wait()
        self._health.end()
        await self._server.stop(self._bounds.request_timeout_seconds + SPARE_SECONDS)


def _options(bounds: limits.Limits, drain_seconds: float) -> list[tuple[str, int]]:
    aged = [("grpc.max_connection_age_ms", int(1000 * AGED_WITHIN * drain_seconds) + 1)] if drain_seconds else []
    return [
        *aged,
        ("grpc.max_receive_message_length", bounds.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # No compression: the limit above is on what comes in, and a small message may unfold to anything.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", bounds.max_concurrency + SPARE_CALLS),  # of one connection
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", 15 * 60_000),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ]
