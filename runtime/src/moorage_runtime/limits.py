"""How much one pod takes on: the bounds that every protocol keeps, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass

MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_CONCURRENCY = 256
REQUEST_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Limits:
    """A request beyond one of these is refused at once, or given up: nothing waits in memory without a bound."""

    max_request_bytes: int = MAX_REQUEST_BYTES
    max_concurrency: int = MAX_CONCURRENCY
    """Predictions that run or wait for a thread."""
    request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    """From the decoded request to the prediction."""
