"""What the person at the terminal sees: a line a step, with its seconds, and one sentence when it fails.

Everything goes to stderr: stdout belongs to the commands whose output is used by others (`env`, `kubeconfig`, `logs`).
"""

import contextlib
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

FIRST_SECONDS = 3.0
REMINDER_SECONDS = 15.0


class Failure(Exception):
    """A sentence that tells a person what is wrong and what to do; shown without a traceback."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say how long something took; when it takes longer than 3 s, say so then and every 15 s."""
    begin = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        pause = FIRST_SECONDS
        while not done.wait(pause):
            pause = REMINDER_SECONDS
            say(f"  {text} ... {time.monotonic() - begin:.0f} s")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    say(f"  {text}: {time.monotonic() - begin:.1f} s")


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: pathlib.Path | None = None,
) -> str:
    """The command's stdout; a Failure with the end of what it printed when it does not exit with 0."""
    try:
        done = subprocess.run(command, env=env, input=stdin, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failure(f"{command[0]} is not installed; run hack/install.") from error
    if done.returncode != 0:
        raise Failure(f"`{' '.join(command)}` exited with {done.returncode}:\n{last_lines(done.stderr or done.stdout)}")
    return done.stdout


def succeeds(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> bool:
    try:
        return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def last_lines(text: str, count: int = 15) -> str:
    return "\n".join("  | " + line for line in text.rstrip().splitlines()[-count:])
