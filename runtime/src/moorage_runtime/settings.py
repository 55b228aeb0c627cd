"""What the two commands can be told, by environment variable or by the flag of the same name. Reads no file, starts nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from moorage_runtime import errors, limits

FETCH = "fetch"
SERVE = "serve"

Count: TypeAlias = int
"""At least one of something."""


def _setting(variable: str, default: Any, commands: Sequence[str], about: str, choices: Sequence[str] = ()) -> Any:
    metadata = {"variable": variable, "commands": tuple(commands), "about": about, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """One field a setting; its type is what the text is parsed as."""

    command: str
    model: str = _setting("", "", [SERVE], "a model to fetch first (models:/name@alias, models:/name/3) or a folder")
    model_name: str = _setting("MOORAGE_MODEL_NAME", "", [FETCH, SERVE], "name of the registered model")
    model_version: str = _setting("MOORAGE_MODEL_VERSION", "", [FETCH, SERVE], "its version number")
    model_dir: Path = _setting(  # noqa: RUF009  # dataclasses.field, by another name
        "MOORAGE_MODEL_DIR", Path("/model"), [FETCH, SERVE], "where artifacts/ and manifest.json are"
    )
    tracking_uri: str = _setting(
        "MLFLOW_TRACKING_URI", "", [FETCH, SERVE], "the MLflow registry (`serve` asks it only for --model models:/…)"
    )
    ca_bundle: str = _setting("MOORAGE_CA_BUNDLE", "", [FETCH, SERVE], "PEM text of the registry's own CA")
    pinned_digest_file: Path = _setting(  # noqa: RUF009  # the same
        "MOORAGE_PINNED_DIGEST_FILE",
        Path("/etc/moorage/pin/digest"),
        [FETCH],
        "if it exists and is not empty, the model must have the digest in it",
    )
    termination_log: Path = _setting(  # noqa: RUF009  # the same
        "MOORAGE_TERMINATION_LOG", Path("/dev/termination-log"), [FETCH, SERVE], "where the last words go, if writable"
    )
    revision: str = _setting("MOORAGE_REVISION", "", [SERVE], "a label of the metrics")
    pod_ip: str = _setting(
        "MOORAGE_POD_IP", "", [SERVE], "this pod's address, by which others of its deployment find it"
    )
    engine: str = _setting(
        "MOORAGE_ENGINE",
        "auto",
        [SERVE],
        "auto goes by the model's flavours",
        ["auto", "onnxruntime", "torch", "pyfunc"],
    )
    device: str = _setting("MOORAGE_DEVICE", "auto", [SERVE], "auto takes a GPU if it can", ["auto", "cpu", "cuda"])
    allow_pickle: bool = _setting(
        "MOORAGE_ALLOW_PICKLE", False, [SERVE], "load models whose loading runs code that came with them"
    )
    host: str = _setting("MOORAGE_HOST", "0.0.0.0", [SERVE], "address that the ports listen on")  # noqa: S104  # a pod
    port: int = _setting("MOORAGE_PORT", 8080, [SERVE], "predictions")
    grpc_port: int = _setting("MOORAGE_GRPC_PORT", 8081, [SERVE], "predictions by gRPC")
    health_port: int = _setting("MOORAGE_HEALTH_PORT", 8082, [SERVE], "/healthz, /readyz, /metrics, /drain")
    drain_seconds: float = _setting(
        "MOORAGE_DRAIN_SECONDS", 5.0, [SERVE], "how long requests are still accepted after the drain began"
    )
    max_request_bytes: Count = _setting(  # noqa: RUF009  # the same
        "MOORAGE_MAX_REQUEST_BYTES", limits.MAX_REQUEST_BYTES, [SERVE], "a request larger than that is refused"
    )
    max_concurrency: Count = _setting(  # noqa: RUF009  # the same
        "MOORAGE_MAX_CONCURRENCY", limits.MAX_CONCURRENCY, [SERVE], "predictions that may run or wait; more are refused"
    )
    request_timeout_seconds: float = _setting(
        "MOORAGE_REQUEST_TIMEOUT_SECONDS",
        limits.REQUEST_TIMEOUT_SECONDS,
        [SERVE],
        "how long a prediction may take, waiting included",
    )
    log_format: str = _setting("MOORAGE_LOG_FORMAT", "text", [FETCH, SERVE], "how log lines look", ["text", "json"])

    @property
    def limits(self) -> limits.Limits:
        return limits.Limits(self.max_request_bytes, self.max_concurrency, self.request_timeout_seconds)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags win over variables; a variable that is empty counts as not given. argparse ends the process on a bad flag."""
    given = vars(_parser().parse_args(arguments))
    command = given.pop("command")
    values = {}
    for setting in _of(command):
        text = given.get(setting.name)
        source = flag(setting.name)
        if text is None:
            source = setting.metadata["variable"]
            text = environment.get(source, "") if source else ""
        if text != "":
            values[setting.name] = _value(setting, text, source)
    return Settings(command=command, **values)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _of(command: str) -> list[Any]:
    return [f for f in fields(Settings) if command in f.metadata.get("commands", ())]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage-runtime", description="Fetch an MLflow model version, and serve it.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, about in ((FETCH, "download a model version and verify it"), (SERVE, "load a model and answer")):
        subparser = commands.add_parser(command, help=about)
        for setting in _of(command):
            # `--allow-pickle` alone means true, as people write it.
            bare: dict[str, Any] = {"nargs": "?", "const": "true"} if setting.type == "bool" else {}
            shown = f"{setting.metadata['about']} ({setting.metadata['variable'] or 'no variable'})".replace("%", "%%")
            subparser.add_argument(flag(setting.name), help=shown, metavar="VALUE", **bare)
    return parser


def _value(setting: Any, text: str, source: str) -> Any:
    choices = setting.metadata["choices"]
    if choices and text not in choices:
        raise errors.UsageError(f"{source} is {text!r}: set it to one of {', '.join(choices)}")
    try:
        return _PARSERS[setting.type](text)
    except ValueError as error:
        raise errors.UsageError(f"{source} is {text!r}: {error}") from error


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("set it to true or false")
    return text.lower() == "true"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError("set it to a port number")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2**31 - 1:
        raise ValueError("set it to a whole number from 1 to 2147483647")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise ValueError("set it to a number of seconds from 0 to 3600")
    return seconds


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "Path": Path,
    "bool": _boolean,
    "int": _port,
    "Count": _count,
    "float": _seconds,
}
