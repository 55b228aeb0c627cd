"""Can the callers of one version use another one? Two MLflow signatures, and in words what is not as it was for callers. Pure.

What `fetch` tells of a signature is untrusted, because whoever logs a model chooses its names: it is read by type, and shown shortened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

Fields = tuple[tuple[str, str], ...]
"""Name and type of each, in their order; the type of what may be left out ends with `?`."""

MOST_DIFFERENCES = 5
"""As many are told."""


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """`inputs` is empty where the signature is too large to be told: then only its hash can be compared."""

    hash: str
    inputs: Fields = ()
    outputs: Fields = ()


def reported(words: dict[str, Any]) -> Signature | None:
    """From the last words of a fetch container; None of a model without signature, and from a runtime that does not tell it."""
    schema = words.get("schema")
    if not words.get("signature") or not isinstance(schema, dict):
        return None
    try:
        return msgspec.convert({"hash": words["signature"]} | schema, Signature)
    except msgspec.ValidationError:
        return None


def encode(signature: Signature) -> str:
    return msgspec.json.encode(signature).decode()


def decode(text: str) -> Signature | None:
    """What `encode` made; None of anything else."""
    try:
        return msgspec.json.decode(text, type=Signature)
    except msgspec.DecodeError:
        return None


def differences(before: Signature, after: Signature) -> tuple[str, ...]:
    """What callers of `before` can't rely on with `after`, each as a sentence; nothing if they may have either."""
    if before.hash == after.hash:
        return ()
    if not before.inputs or not after.inputs:
        return ("it is another one, and too large to be compared",)
    return (*_of_inputs(dict(before.inputs), dict(after.inputs)), *_of_outputs(before.outputs, dict(after.outputs)))


def in_words(found: tuple[str, ...]) -> str:
    more = len(found) - MOST_DIFFERENCES
    return "; ".join(found[:MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _of_inputs(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            yield f"input {_shown(name, 'input')} is gone"
        elif not _takes(now.removesuffix("?"), was.removesuffix("?")):
            yield f"input {_shown(name, 'input')} was {_short(was)} and is {_short(now)}"
        elif was.endswith("?") and not now.endswith("?"):
            yield f"input {_shown(name, 'input')} was optional and is required"
    for name, now in after.items():
        if name not in before and not now.endswith("?"):
            yield f"input {_shown(name, 'input')} is new and required"
    if [name for name in before if name in after] != [name for name in after if name in before]:
        # Who sends rows as lists has to rely on it, and would get answers to another question.
        yield "the inputs are in another order"


def _of_outputs(before: Fields, after: dict[str, str]) -> Iterator[str]:
    for name, was in before:
        now = after.get(name)
        if now is None:
            yield f"output {_shown(name, 'predictions')} is gone"
        elif not _gives(now.removesuffix("?"), was.removesuffix("?")):
            yield f"output {_shown(name, 'predictions')} was {_short(was)} and is {_short(now)}"


_TENSOR = re.compile(r"(\w+)\[([-\d,]*)\]")
_NUMBER = re.compile(r"(u?int|float)(\d+)")
_COLUMNS = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


def _takes(now: str, was: str) -> bool:
    """Is every value of the old type one of the new type, too?"""
    new, old = _TENSOR.fullmatch(now), _TENSOR.fullmatch(was)
    if new and old:
        return _holds(new[1], old[1]) and _covers(new[2], old[2])
    return not (new or old) and _holds(_COLUMNS.get(now, now), _COLUMNS.get(was, was))


def _gives(now: str, was: str) -> bool:
    """The same type; where any size could come, it may be a certain one."""
    new, old = _TENSOR.fullmatch(now), _TENSOR.fullmatch(was)
    if new and old:
        return new[1] == old[1] and _covers(old[2], new[2])
    return now == was


def _holds(wide: str, narrow: str) -> bool:
    """Among numbers the wider one takes what the narrower one has; the runtime takes a whole number for any other, too."""
    one, other = _NUMBER.fullmatch(wide), _NUMBER.fullmatch(narrow)
    if wide == narrow or not one or not other:
        return wide == narrow
    if one[1] == other[1]:
        return int(one[2]) >= int(other[2])
    if one[1] == "float":
        return int(one[2]) >= 32
    return (one[1], other[1]) == ("int", "uint") and int(one[2]) > int(other[2])


def _covers(wide: str, narrow: str) -> bool:
    """Shapes, as text; -1 is any size."""
    sizes, others = wide.split(","), narrow.split(",")
    return len(sizes) == len(others) and all(one in ("-1", other) for one, other in zip(sizes, others, strict=True))


def _shown(name: str, unnamed: str) -> str:
    return f"`{_short(name or unnamed)}`"


def _short(text: str) -> str:
    """On one line, because it becomes part of a message."""
    plain = " ".join(text.split())
    return plain if len(plain) <= 60 else plain[:59] + "…"
