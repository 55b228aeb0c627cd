"""Requests through the routers of a small world, as its routers and model pods count them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

EDGES = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass
class FakeTraffic:
    """Counters that only grow. One pod of each revision has them all; the first router, too."""

    by_arm: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Of the router: requests and bad ones."""
    of_pods: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By revision: lines of the exposition."""
    lives: Counter[str] = field(default_factory=Counter)
    """By revision: how often its pod was started anew."""
    silent: set[str] = field(default_factory=set)
    """Revisions whose pods do not answer."""

    def send(
        self,
        arm: str,
        revision: str,
        requests: int,
        *,
        bad: int = 0,
        slow: int = 0,
        protocol: str = "v2",
        code: int = 503,
    ) -> None:
        """`slow` ones take 0.3 s, the others 0.07 s. Errors by gRPC are none to the router."""
        self.by_arm[arm].update(requests=requests, bad=bad if protocol != "grpc" else 0)
        lines = self.of_pods[revision]
        labels = f'arm="{arm}",protocol="{protocol}"'
        lines[f'moorage_requests_total{{{labels},code="{0 if protocol == "grpc" else 200}"}}'] += requests - bad
        lines[f'moorage_requests_total{{{labels},code="{code}"}}'] += bad
        for edge in EDGES:
            fast = 0 if edge < 0.07 else requests - slow if edge < 0.3 else requests
            lines[f'moorage_request_seconds_bucket{{{labels},le="{edge}"}}'] += fast
        lines[f'moorage_request_seconds_bucket{{{labels},le="+Inf"}}'] += requests

    def tell(self, revision: str, arm: str, *, right: int, wrong: int) -> None:
        """Feedback, at a pod of stable, whoever was meant."""
        for verdict, count in (("right", right), ("wrong", wrong)):
            self.of_pods[revision][
                f'moorage_feedback_total{{revision="{revision}",arm="{arm}",verdict="{verdict}"}}'
            ] += count

    def shadow(self, stable: str, canary: str, **outcomes: int) -> None:
        for outcome, count in outcomes.items():
            self.of_pods[stable][f'moorage_shadow_total{{revision="{canary}",outcome="{outcome}"}}'] += count

    def pair(self, stable: str, canary: str, **outcomes: int) -> None:
        for outcome, count in outcomes.items():
            self.of_pods[stable][f'moorage_feedback_pairs_total{{revision="{canary}",outcome="{outcome}"}}'] += count

    def restart(self, revision: str) -> None:
        self.lives[revision] += 1
        self.of_pods.pop(revision, None)

    def exposition(self, revision: str) -> str:
        lines = [f"{name} {float(count)}" for name, count in self.of_pods[revision].items()]
        return "\n".join(["# HELP", *lines, f"process_start_time_seconds {1.7e9 + self.lives[revision]}"])
