"""What Prometheus answers at /api/v1/query, for a stub of it; tests/contract/test_prometheus.py holds it to a real one."""

from __future__ import annotations

from typing import Any

from stub_http import Reply

AT = 1767225600.1


def answer(kind: str, result: Any) -> Reply:
    return Reply({"status": "success", "data": {"resultType": kind, "result": result}})


def scalar(value: str) -> Reply:
    return answer("scalar", [AT, value])


def text(value: str) -> Reply:
    return answer("string", [AT, value])


def vector(*values: str) -> Reply:
    """One series for each value."""
    return answer(
        "vector", [{"metric": {"pod": str(index)}, "value": [AT, value]} for index, value in enumerate(values)]
    )


def matrix(*values: str) -> Reply:
    """One series for each value, which is the only one within the range."""
    return answer(
        "matrix", [{"metric": {"pod": str(index)}, "values": [[AT, value]]} for index, value in enumerate(values)]
    )


def refusal(status: int, kind: str, words: str) -> Reply:
    return Reply({"status": "error", "errorType": kind, "error": words}, status)
