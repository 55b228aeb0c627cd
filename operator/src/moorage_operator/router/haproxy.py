"""A running HAProxy: its admin socket, its master's socket, and its check of a configuration. Every call has a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from moorage_operator import errors
from moorage_operator.router import stats
from moorage_operator.router.plan import Command
from moorage_operator.router.settings import Layout
from moorage_operator.router.stats import Sample

_MESSAGE_LIMIT = 500
_ALERT = re.compile(r"^\[ALERT\] +\(\d+\) : (.*)$", re.MULTILINE)


class Haproxy:
    """The one that runs on `layout`. Methods raise `HaproxySilent` when nobody answers in time."""

    def __init__(
        self, layout: Layout, *, program: str = "haproxy", seconds: float = 2, reload_seconds: float = 15
    ) -> None:
        self._layout = layout
        self._program = program
        self._seconds = seconds
        self._reload_seconds = reload_seconds

    async def sample(self) -> Sample:
        # In one question: between two of them a reload could come, and the answers be of two workers.
        info, mark, stat = (await self._ask("show info;show stat")).partition("\n# ")
        try:
            return Sample(stats.parse_info(info), stats.parse_stat(f"{mark.strip()} {stat}"))
        except (ValueError, KeyError) as error:
            raise errors.HaproxySilent(f"HAProxy answers, but not as expected: {error}") from error

    async def splits(self) -> Mapping[str, str]:
        """The map as HAProxy holds it: model → row."""
        answer = await self._ask(f"show map {self._layout.map_file}")
        rows = (line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x"))
        return {row[1]: row[2] for row in rows if len(row) > 2}

    async def do(self, command: Command) -> None:
        """`CommandRefused` when HAProxy says anything but what it says of success."""
        answer = (await self._ask(command.text)).strip()
        if answer != command.answer and not command.may_fail:
            raise errors.CommandRefused(f"HAProxy was told: {command.text}; it answered: {answer[:_MESSAGE_LIMIT]}")

    async def check(self, file: Path) -> None:
        """`ConfigRefused`, with HAProxy's own words, for a configuration that it can't use."""
        process = await asyncio.create_subprocess_exec(
            self._program, "-c", "-q", "-f", str(file), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._reload_seconds):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise errors.HaproxySilent("the check of a configuration does not end") from error
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise errors.ConfigRefused(
                f"HAProxy refuses its configuration: {output.decode()[-_MESSAGE_LIMIT:].strip()}"
            )

    async def reload(self, structure: str) -> Sample:
        """A new worker takes over the listeners; the old one ends what it has begun. Returns when the new one answers.

        `ConfigRefused`, with HAProxy's own words, if the old one has to stay.
        """
        answer = await self._ask("reload", self._layout.master_socket, self._reload_seconds)
        if not answer.startswith("Success=1"):
            alerts = " ".join(_ALERT.findall(answer)) or "see its log"
            raise errors.ConfigRefused(f"HAProxy did not take its new configuration: {alerts[:_MESSAGE_LIMIT]}")
        try:
            async with asyncio.timeout(self._reload_seconds):
                while True:
                    with contextlib.suppress(errors.HaproxySilent):
                        sample = await self.sample()
                        if sample.worker.structure == structure:
                            return sample
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise errors.HaproxySilent("HAProxy has taken its new configuration and does not answer by it") from error

    async def runs(self) -> bool:
        """Whether there is a master; one that is too busy to answer is one, too."""
        try:
            _, writer = await asyncio.open_unix_connection(str(self._layout.master_socket))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        writer.close()
        return True

    async def _ask(self, command: str, socket: Path | None = None, seconds: float | None = None) -> str:
        seconds = seconds or self._seconds
        try:
            async with asyncio.timeout(seconds):
                return await _exchange(socket or self._layout.admin_socket, command)
        except TimeoutError as error:
            raise errors.HaproxySilent(f"HAProxy does not answer within {seconds:g} s") from error
        except OSError as error:
            raise errors.HaproxySilent(f"HAProxy can't be asked: {error.strerror or error}") from error


async def _exchange(socket: Path, command: str) -> str:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(f"{command}\n".encode())
        await writer.drain()
        return (await reader.read()).decode()
    finally:
        writer.close()
