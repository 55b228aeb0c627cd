"""The command line of hack/bench: runs a scenario, prints its tables, and with --write puts them into the documents."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from benchmarks import (
    alarms,
    changes,
    detection,
    figures,
    pods,
    population,
    power,
    registry,
    report,
    routing,
    scale,
    shadows,
)
from devcluster import console

COUNTS = (1, 100, 1000)
SEEDS, ALARM_SEEDS = 100, 400

Sections = dict[str, str]
"""Markdown by the name of its place in the documents."""


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    chosen = SCENARIOS if options.scenario == "all" else {options.scenario: SCENARIOS[options.scenario]}
    try:
        for scenario in chosen.values():
            machine = {} if scenario in ON_NO_MACHINE else {"machine": report.machine()}
            for section, content in (machine | scenario(options)).items():
                print(f"{section}\n\n{content}", flush=True)
                if options.write:
                    report.write(section, content)
    except console.Failure as failure:
        console.say(str(failure))
        return 1
    except KeyboardInterrupt:
        console.say("Interrupted.")
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="hack/bench", description="Measure Moorage on a real cluster of its own.")
    top.add_argument(
        "scenario", choices=["all", *SCENARIOS], help="; ".join(f"{k}: {v.__doc__}" for k, v in SCENARIOS.items())
    )
    top.add_argument(
        "--count", type=int, action="append", metavar="N", help=f"ModelDeployments; may be repeated (default: {COUNTS})"
    )
    top.add_argument(
        "--repeat",
        type=int,
        default=3,
        metavar="N",
        help="rounds of what is compared, in turn (default: 3)",
    )
    top.add_argument(
        "--samples", type=int, default=100, metavar="N", help="changes measured one at a time (default: 100)"
    )
    top.add_argument("--pods", type=int, default=10, metavar="N", help="repetitions with real pods (default: 10)")
    top.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"simulated rollouts of a kind (default: {SEEDS}; {ALARM_SEEDS} where false alarms are counted)",
    )
    top.add_argument(
        "--name", default="bench", help="of the cluster, which is deleted before and after (default: bench)"
    )
    top.add_argument("--write", action="store_true", help="put the tables into the documents")
    return top


def run_scale(options: argparse.Namespace) -> Sections:
    """all ModelDeployments created at once, beside a plain script"""
    progress, resources = [], []
    with registry.served(population.MODELS) as mlflow:
        for count in options.count or COUNTS:
            pairs, rests = [], []
            for number in range(options.repeat):
                with console.step(f"{count} ModelDeployments, run {number + 1} of {options.repeat}"):
                    converged, rest = scale.run_operator(options.name, mlflow, count, with_rest=number == 0)
                    pairs.append((converged, scale.run_script(options.name, mlflow, count)))
                rests += [rest] if rest else []
            progress += report.progress(count, pairs)
            resources.append(report.resources(count, [pair[0] for pair in pairs], rests[0]))
    return {
        "scale": figures.table(report.PROGRESS_TITLES, progress),
        "resources": figures.table(report.RESOURCES_TITLES, resources),
    }


def run_changes(options: argparse.Namespace) -> Sections:
    """a changed spec until its first child is written"""
    found = []
    with registry.served(population.MODELS) as mlflow:
        for count in options.count or COUNTS:
            with console.step(f"{options.samples} changes among {count} ModelDeployments"):
                found.append(changes.run(options.name, mlflow, count, options.samples))
    return {"changes": report.latencies(found)}


def run_pods(options: argparse.Namespace) -> Sections:
    """real pods: kubectl apply until Ready, a moved alias until new pods are there"""
    found = pods.run(options.name, options.pods)
    return {"apply": report.steps(found.apply), "alias": report.steps(found.alias)}


def run_routing(options: argparse.Namespace) -> Sections:
    """the router's hop beside none, and a changed weight until every router holds it"""
    found = routing.run(options.name, 20 * options.samples, options.repeat)
    return {"routing": report.routing(found)}


def run_shadows(options: argparse.Namespace) -> Sections:
    """what callers notice of copied requests; needs no cluster"""
    return {"shadows": report.shadows(shadows.run(10 * options.samples, options.repeat))}


def run_detection(options: argparse.Namespace) -> Sections:
    """simulated errors: how soon a worse version is caught, and how often an equal one is put back; needs no cluster"""
    seeds = options.seeds or SEEDS
    return {
        "detection": detection.table(seeds),
        "traffic": detection.traffic(seeds),
        "quiet": detection.quiet(seeds),
        "bursts": detection.bursts(seeds),
    }


def run_power(options: argparse.Namespace) -> Sections:
    """simulated slowness and labels: how soon a worse version is caught; needs no cluster"""
    seeds = options.seeds or SEEDS
    return {"latency": power.latency(seeds), "feedback": power.feedback(seeds)}


def run_alarms(options: argparse.Namespace) -> Sections:
    """simulated versions that are as good as stable: how often chance gives a wrong verdict, case by case; needs no cluster"""
    return {"alarms": alarms.table(options.seeds or ALARM_SEEDS)}


SCENARIOS: dict[str, Callable[[argparse.Namespace], Sections]] = {
    "scale": run_scale,
    "changes": run_changes,
    "pods": run_pods,
    "routing": run_routing,
    "shadows": run_shadows,
    "detection": run_detection,
    "power": run_power,
    "alarms": run_alarms,
}
ON_NO_MACHINE = (run_detection, run_power, run_alarms)
"""Simulated: the figures are the same anywhere."""
