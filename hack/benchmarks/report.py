"""The tables, and their places in the documents."""

from __future__ import annotations

import os
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import changes, figures, lab, pods, scale
from benchmarks import routing as routing_
from benchmarks import shadows as shadows_

DOCUMENTS = (lab.ROOT / "docs/benchmarks.md", lab.ROOT / "docs/statistics.md")


def write(section: str, content: str) -> None:
    """Replace what is between the markers of that name."""
    begin, end = f"<!-- {section}: made by `hack/bench` -->\n", f"<!-- {section}: end -->"
    document = next(path for path in DOCUMENTS if begin in path.read_text())
    head, rest = document.read_text().split(begin)
    document.write_text(f"{head}{begin}{content}{end}{rest.split(end, 1)[1]}")


def machine() -> str:
    """What the figures depend on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = dict(line.split("=", 1) for line in _lines(lab.ROOT / "hack/versions.env") if "=" in line)
    facts = {
        "cores": f"{os.cpu_count()} ({model or platform.machine()}), for the cluster, the operator and the benchmark together",
        "memory": f"{memory:.0f} GiB",
        "system": f"Linux {'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}",
        "cluster": f"Kubernetes {versions.get('KUBERNETES_VERSION', '')} as `hack/cluster` makes it, {lab.FAKE_NODES} KWOK nodes",
    }
    return figures.table(["machine", ""], [[name, value] for name, value in facts.items()])


def progress(count: int, pairs: list[tuple[scale.Converged, scale.Converged]]) -> list[list[str]]:
    """Two rows: the operator, the script."""
    rows = []
    for who, runs in zip(("operator", "plain script"), zip(*pairs, strict=True), strict=True):
        steps = [[getattr(run.progress, step) for run in runs] for step in ("created", "written", "ready")]
        rows.append([f"{count:,}", who, *map(figures.spread, steps), figures.spread([run.cpu_seconds for run in runs])])
    ratio = [operator.progress.ready / script.progress.ready for operator, script in pairs]
    return [[*rows[0], figures.spread(ratio, 2)], [*rows[1], ""]]


PROGRESS_TITLES = [
    "ModelDeployments", "by", "all created, s", "children written, s", "all Ready, s", "its CPU, s", "operator : script",
]  # fmt: skip


def resources(count: int, runs: Iterable[scale.Converged], rest: scale.Rest) -> list[str]:
    found = list(runs)
    writes = statistics.median(run.writes for run in found)
    reads = statistics.median(run.reads for run in found)
    return [
        f"{count:,}",
        f"{writes:,.0f} ({writes / count:.1f})",
        f"{reads:,.0f} ({reads / count:.1f})",
        f"{max(rest.mib, rest.peak_mib, *(run.peak_mib for run in found)):.0f}",
        f"{rest.mib:.0f}",
        f"{rest.cpu_percent:.1f} %",
        f"{rest.writes}",
        f"{rest.resync.writes}",
        f"{rest.resync_cpu_seconds:.1f}",
        f"{rest.restart.writes}",
        f"{rest.restart.cpu_seconds:.1f}",
    ]


RESOURCES_TITLES = [
    "ModelDeployments", "writes until Ready (each)", "reads (each)", "peak MiB", "MiB at rest", "CPU at rest",
    "writes at rest", "writes in two resyncs", "CPU of a resync, s", "writes after a restart", "CPU of a restart, s",
]  # fmt: skip


def latencies(found: list[changes.Latencies]) -> str:
    rows = [
        [
            f"{item.count:,}",
            *map(figures.seconds, (item.replicas, item.revision)),
            f"{max(item.at_once):.1f}",
            f"{item.peak_mib:.0f}",
        ]
        for item in found
    ]
    titles = [
        "ModelDeployments",
        "`replicas`: p50 / p99 / max, s",
        "new revision: p50 / p99 / max, s",
        "all at once, s",
        "the operator's peak, MiB",
    ]
    return figures.table(titles, rows)


def steps(found: pods.Steps) -> str:
    rows = [[name, f"{statistics.median(values):.2f}", f"{max(values):.2f}"] for name, values in found.items()]
    return figures.table(["seconds until", "p50", "max"], rows)


def routing(found: routing_.Found) -> str:
    """The hop's rows, and one for the weights."""
    rows = [
        [
            who,
            *(f"{1000 * figures.percentile(hop.seconds, percent):.2f}" for percent in (50, 99)),
            figures.spread(hop.rates, 0),
        ]
        for who, hop in (("the pod itself", found.direct), ("through the router", found.routed))
    ]
    titles = ["POST /invocations", "p50, ms", "p99, ms", f"requests/s of {routing_.CALLERS} callers"]
    weights = figures.table(
        ["seconds from a weight in the status until all routers hold it", "p50 / p99 / max"],
        [["", figures.seconds(found.weights)]],
    )
    return f"{figures.table(titles, rows)}\n{weights}"


def shadows(found: shadows_.Found) -> str:
    """What callers and the pod notice, beside the same without copies; and what became of the copies."""
    without = found[shadows_.NOBODY]
    noticed = [
        [name, *(_beside(list(map(of, rounds)), list(map(of, without))) for of in SHADOW_FIGURES.values())]
        for name, rounds in found.items()
    ]
    copies = [
        [name, *(_outcomes([each.copies[number] for each in rounds]) for number in (0, 1))]
        for name, rounds in found.items()
        if any(any(each.copies) for each in rounds)
    ]
    titles = ["copied to", "of a request every 40 ms", "of all others"]
    return f"{figures.table(['copied to', *SHADOW_FIGURES], noticed)}\n{figures.table(titles, copies)}"


SHADOW_FIGURES: dict[str, Callable[[shadows_.Round], float]] = {
    "a request every 40 ms: p50, ms": lambda found: 1000 * figures.percentile(found.paced, 50),
    "p99, ms": lambda found: 1000 * figures.percentile(found.paced, 99),
    "one after the other: p50, ms": lambda found: 1000 * figures.percentile(found.rushed, 50),
    "their p99, ms": lambda found: 1000 * figures.percentile(found.rushed, 99),
    f"requests/s of {routing_.CALLERS} callers": lambda found: found.rate,
    "the pod's CPU a request, ms": lambda found: 1000 * found.cpu_seconds,
}


def _beside(values: list[float], others: list[float]) -> str:
    """The median, and how many times the other it is, round by round."""
    middle = statistics.median(values)
    ratios = [value / other for value, other in zip(values, others, strict=True)]
    return f"{middle:,.{0 if middle >= 100 else 2}f}; ×{figures.spread(ratios, 2)}"


def _outcomes(copies: list[Counter[str]]) -> str:
    found = sum(copies, Counter[str]())
    return ", ".join(f"{count:,} `{outcome}`" for outcome, count in sorted(found.items()))


def _lines(path: str | Path) -> list[str]:
    return Path(path).read_text().splitlines()
