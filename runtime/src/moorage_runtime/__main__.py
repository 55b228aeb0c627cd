"""Entry point of the image and of a laptop: settings → `fetch` or `serve` → exit code and last words."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys

from moorage_runtime import errors, settings, telemetry, threads

logger = logging.getLogger(__name__)


def main() -> None:
    """Start the program."""
    code = run(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # Not sys.exit: it would wait for a thread that still loads or predicts, and nothing can stop such a thread.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Returns the exit code; whatever ends the process has been said in the termination message and the log."""
    try:
        options = settings.parse(arguments, os.environ)
    except errors.UsageError as error:
        sys.stderr.write(f"moorage-runtime: {error}\n")
        return 2
    telemetry.configure_logging(options.log_format)
    try:
        return _fetch(options) if options.command == settings.FETCH else _serve(options)
    except errors.Fatal as error:
        logger.error("%s: %s", error.reason, error)
        telemetry.write_last_words(options.termination_log, {"reason": error.reason, "message": str(error)})
        return 1


def _fetch(options: settings.Settings) -> int:
    # Each command imports its own half: the fetcher needs no engine, the server no MLflow client.
    from moorage_runtime import fetch  # noqa: PLC0415  # see above

    fetched = fetch.fetch(options)
    telemetry.write_last_words(options.termination_log, dataclasses.asdict(fetched))
    return 0


def _serve(options: settings.Settings) -> int:
    threads.limit(os.environ)
    # gRPC's own log has a line for each call that it refuses, and callers decide how many there are.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from moorage_runtime import serve  # noqa: PLC0415  # libraries read these variables when they are imported

    return serve.serve(options)


if __name__ == "__main__":
    main()
