"""How a text of the registry is shown to people: short, and with nothing in it that a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LENGTH = 64
MAX_ITEMS = 10


def shown(text: str) -> str:
    """One name, made harmless."""
    short = text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def listed(names: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    quoted = [f"'{shown(name)}'" for name in names]
    more = len(quoted) - MAX_ITEMS
    return ", ".join(quoted[:MAX_ITEMS]) + (f" and {more} more" if more > 0 else "")
