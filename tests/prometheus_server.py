"""A real Prometheus on a loopback port, which scrapes a page of counters that grow steadily."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import stub_http
from mlflow_server import free_port
from stub_http import Reply, Request

SCRAPED_EVERY = "200ms"


@dataclass
class Page:
    """What a pod would count: each series grows by so much in a second."""

    rates: dict[str, float] = field(default_factory=dict)
    _begins: float = field(default_factory=time.monotonic)

    def answer(self, request: Request) -> Reply:
        passed = time.monotonic() - self._begins
        lines = [f"{series} {rate * passed}\n" for series, rate in self.rates.items()]
        return Reply("".join(lines).encode(), headers={"Content-Type": "text/plain; version=0.0.4"})


@dataclass
class PrometheusServer:
    """One server over one folder: `stop` and `start` again keep its port and its data."""

    folder: Path
    targets: tuple[str, ...] = ()
    """HOST:PORT of what it scrapes."""
    prefix: str = ""
    web: dict[str, Any] = field(default_factory=dict)
    """Its own web configuration: who may ask."""
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def start(self) -> None:
        """Without waiting for its first answer."""
        program = shutil.which("prometheus")
        if program is None:
            pytest.fail("prometheus is not on PATH: hack/install")
        files = {"prometheus.yml": self._scraping(), "web.yml": self.web}
        for name, content in files.items():
            (self.folder / name).write_text(yaml.safe_dump(content))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program, *self._arguments()], stdout=log, stderr=log, cwd=self.folder)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator[PrometheusServer]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def wait_for(self, query: str) -> None:
        """Until it gives anything."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.result(query):
                    return
            time.sleep(0.05)
        pytest.fail(f"Prometheus has nothing for {query}: {(self.folder / 'log').read_text()[-2000:]}")

    def result(self, query: str) -> Any:
        """As it is in its answer."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - on loopback
            return json.load(answer)["data"]["result"]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections, and answers none."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _scraping(self) -> dict[str, Any]:
        jobs = [{"job_name": "pods", "static_configs": [{"targets": list(self.targets)}]}]
        every = {"scrape_interval": SCRAPED_EVERY, "scrape_timeout": SCRAPED_EVERY}
        return {"global": every, "scrape_configs": jobs if self.targets else []}

    def _arguments(self) -> list[str]:
        return [
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--web.config.file={self.folder / 'web.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            "--log.level=warn",
            *self.arguments,
        ]


@contextlib.contextmanager
def scraping(folder: Path) -> Iterator[tuple[PrometheusServer, Page]]:
    """A server, and the page that it scrapes."""
    page = Page()
    with stub_http.serving(page.answer) as pod:
        target = pod.url.removeprefix("http://")
        with PrometheusServer(folder, targets=(target,)).running() as server:
            yield server, page
