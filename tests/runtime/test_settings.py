"""Settings, thread limits and last words: what surrounds a model."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from moorage_runtime import errors, settings, telemetry, threads


def test_a_flag_wins_over_its_variable_and_an_empty_variable_counts_as_none() -> None:
    environment = {"MOORAGE_PORT": "1000", "MOORAGE_HEALTH_PORT": "", "MOORAGE_ALLOW_PICKLE": "true"}
    parsed = settings.parse(["serve", "--port", "2000"], environment)
    assert (parsed.port, parsed.health_port, parsed.allow_pickle) == (2000, 8082, True)


def test_a_bare_flag_is_true() -> None:
    assert settings.parse(["serve", "--allow-pickle"], {}).allow_pickle is True


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MOORAGE_ALLOW_PICKLE", "yes"),
        ("MOORAGE_DRAIN_SECONDS", "-1"),
        ("MOORAGE_DRAIN_SECONDS", "nan"),
        ("MOORAGE_PORT", "65536"),
        ("MOORAGE_MAX_CONCURRENCY", "0"),
        ("MOORAGE_MAX_REQUEST_BYTES", "16Mi"),
        ("MOORAGE_ENGINE", "cntk"),
        ("MOORAGE_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str) -> None:
    with pytest.raises(errors.UsageError, match=f"{variable} is '{text}': set it to"):
        settings.parse(["serve"], {variable: text})


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, len(os.sched_getaffinity(0))),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, len(os.sched_getaffinity(0))),
        ({}, len(os.sched_getaffinity(0))),
    ],
)
def test_a_cpu_limit_is_read_from_both_kinds_of_cgroups(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cpus(tmp_path) == cpus


def test_the_libraries_get_a_thread_limit_unless_the_user_set_one() -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    threads.limit(environment)
    assert environment["OMP_NUM_THREADS"] == "7"
    assert int(environment["MKL_NUM_THREADS"]) * threads.workers() <= max(threads.cpus(), 1)


def test_last_words_fit_into_what_the_kubelet_keeps(tmp_path: Path) -> None:
    telemetry.write_last_words(tmp_path / "words", {"reason": "FetchFailed", "message": "é" * 9000})
    content = (tmp_path / "words").read_bytes()
    assert len(content) <= telemetry.TERMINATION_MESSAGE_BYTES
    assert json.loads(content)["reason"] == "FetchFailed"


def test_last_words_that_can_not_be_written_are_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="moorage_runtime"):
        telemetry.write_last_words(tmp_path / "no" / "words", {"reason": "X"})
    assert "can't be written" in caplog.text


def test_json_log_lines_are_json() -> None:
    record = logging.LogRecord("moorage_runtime.fetch", logging.INFO, "f.py", 1, "fetched %d files", (3,), None)
    line = json.loads(telemetry._JsonFormatter().format(record))
    assert (line["message"], line["level"], line["logger"]) == ("fetched 3 files", "info", "moorage_runtime.fetch")
