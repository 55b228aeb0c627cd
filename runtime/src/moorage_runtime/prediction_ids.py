"""Ids of predictions: `<revision>.<arm>.<pod>.<serial>.<check>`, so that a verdict is counted for the right one wherever it arrives.

They are no secret and no proof: who may predict may also judge. The check finds what was cut or mistyped, not what was made up.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from moorage_runtime import errors

HEADER = "x-moorage-prediction-id"
MAX_LENGTH = 200
LOCAL = "local"
"""Where there is no revision: on a laptop."""

_PARTS = re.compile(
    r"(?P<revision>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\.(?P<arm>[-a-z0-9/]{0,69})\.(?P<pod>[0-9a-f]{8})\.(?P<serial>[0-9a-f]{16})"
)


@dataclass(frozen=True)
class PredictionId:
    revision: str
    arm: str
    pod: str
    serial: str


def pod_name(address: str) -> str:
    """What an id calls the pod at this address: others of its deployment can find it by that, and nobody learns the address."""
    return hashlib.sha256(address.encode()).hexdigest()[:8]


def issue(revision: str, arm: str, pod: str) -> str:
    text = f"{revision}.{arm}.{pod}.{secrets.token_hex(8)}"
    return f"{text}.{zlib.crc32(text.encode()):08x}"


def parse(text: object) -> PredictionId:
    """Raises `InvalidInput` for all that this program would not have issued."""
    if isinstance(text, str) and len(text) <= MAX_LENGTH:
        body, _, check = text.rpartition(".")
        found = _PARTS.fullmatch(body)
        if found and check == f"{zlib.crc32(body.encode()):08x}":
            return PredictionId(**found.groupdict())
    raise errors.InvalidInput(f"'id' must be the {HEADER} that came with a prediction, unchanged")
