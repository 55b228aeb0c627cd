"""A process that we started, recognised for certain: by pid, start time and boot, so that a reused pid is never signalled."""

import dataclasses
import json
import os
import pathlib
import signal
import time

from devcluster import console


@dataclasses.dataclass(frozen=True)
class Process:
    pid: int
    start: int  # clock ticks since boot
    boot: str

    def runs(self) -> bool:
        return identify(self.pid) == self

    def kill(self, deadline_seconds: float = 30.0) -> None:
        """End it and wait until the kernel has let go of it."""
        if self.runs():
            os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + deadline_seconds
        while self.runs():
            if time.monotonic() > deadline:
                raise console.Failure(f"Process {self.pid} does not end, {deadline_seconds:.0f} s after SIGKILL.")
            time.sleep(0.02)

    def children(self) -> list["Process"]:
        listed = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split() if self.runs() else []
        return [child for child in map(identify, map(int, listed)) if child]

    def program(self) -> str:
        """The name it was called by; empty when it has ended."""
        try:
            first, _, _ = pathlib.Path(f"/proc/{self.pid}/cmdline").read_bytes().partition(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return pathlib.Path(first.decode(errors="replace")).name

    def megabytes(self) -> int:
        try:
            pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def identify(pid: int) -> Process | None:
    """None when no such process lives; a zombie is no longer alive."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in {"Z", "X"}:
        return None
    return Process(pid, int(fields[19]), pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def remember(path: pathlib.Path, pid: int) -> None:
    process = identify(pid)
    if process:
        path.write_text(json.dumps(dataclasses.asdict(process)))


def recall(path: pathlib.Path) -> Process | None:
    """The remembered process if it still runs."""
    try:
        process = Process(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if process.runs() else None
