"""Kubernetes quantities ("2000m", "1Gi") in the one form in which the API server stores them, so that equal ones are equal text.

Source: k8s.io/apimachinery/pkg/api/resource/quantity.go (format and canonical form).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

_PATTERN = re.compile(r"^([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse(text: str | int) -> Decimal | None:
    """The number that a quantity stands for, or None if the text is no quantity."""
    match = _PATTERN.match(str(text))
    if not match:
        return None
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024 ** _BINARY.index(suffix))
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number.scaleb(exponent)


def canonical(text: str | int) -> str:
    """The quantity as the API server writes it: the largest suffix with a whole number. No quantity: the text itself."""
    value = parse(text)
    if value is None or value == 0:
        return str(text) if value is None else "0"
    if str(text).endswith("i") and value == value.to_integral_value():
        return _binary(int(value))
    match = _PATTERN.match(str(text))
    if match and match[2] and match[2][0] in "eE" and len(match[2]) > 1:
        return _scaled(value, "e")
    return _scaled(value, "si")


def _binary(value: int) -> str:
    power = 0
    while power < len(_BINARY) - 1 and value % 1024 == 0:
        value //= 1024
        power += 1
    return f"{value}{_BINARY[power]}"


def _scaled(value: Decimal, style: str) -> str:
    for suffix, exponent in sorted(_DECIMAL.items(), key=lambda item: -item[1]):
        scaled = value.scaleb(-exponent)
        if scaled == scaled.to_integral_value():
            mark = suffix if style == "si" or exponent == 0 else f"e{exponent}"
            return f"{int(scaled)}{mark}"
    return f"{value.normalize():f}"


def canonical_map(resources: Mapping[str, str | int]) -> dict[str, str]:
    return {name: canonical(value) for name, value in resources.items()}
