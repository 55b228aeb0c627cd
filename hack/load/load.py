"""Load for the demo and the tests: asks a model the same question from a few threads until SIGTERM, then says how it went.

It runs in a pod (pod.yaml), beside files that say what to do: `url`, `request.json`, and `pause`, the seconds that a thread
rests between two questions. Each question takes a new connection, so that new pods get their share.
"""

import signal
import threading
import time
import urllib.request
from pathlib import Path

THREADS = 4
LIMIT_SECONDS = 300


def ask(url: str, body: bytes, pause: float, counts: dict[str, int], stop: threading.Event) -> None:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310  # our own URL
    while not stop.is_set():
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # the same
                answer.read()
            counts["answered"] += 1
        except OSError as error:
            counts["failed"] += 1
            print(f"failed: {error}", flush=True)
            stop.wait(0.5)
        stop.wait(pause)


def main(folder: Path) -> None:
    url, body = (folder / "url").read_text(), (folder / "request.json").read_bytes()
    pause = float((folder / "pause").read_text())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    counts = [{"answered": 0, "failed": 0} for _ in range(THREADS)]
    begin = time.monotonic()
    threads = [threading.Thread(target=ask, args=(url, body, pause, mine, stop)) for mine in counts]
    for thread in threads:
        thread.start()
    stop.wait(LIMIT_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    total = {key: sum(mine[key] for mine in counts) for key in counts[0]}
    print(f"{total['answered']} answered, {total['failed']} failed in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(__file__).parent)
