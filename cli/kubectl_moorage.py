#!/usr/bin/env python3
"""kubectl moorage: look at the rollout of a ModelDeployment, and take part in it.

One file on Python's standard library, to be put on PATH as `kubectl-moorage`. All that it knows of a cluster it asks `kubectl`, so
kubeconfig, context and login are those that you have. It decides nothing: it writes the annotation `moorage.dev/command`, and tells
what came of it by the status that the operator writes.

    command line ──► Kubectl.model() ──► the text of a command ──► tell(): written; then heard, refused or unheard
                            └──────────► render(): the tree of `status`
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TextIO

VERSION = "0.1.0"
API, KIND, RESOURCE = "moorage.dev/v1alpha1", "ModelDeployment", "modeldeployments.moorage.dev"
COMMAND, OF_MODEL, OF_REVISION = "moorage.dev/command", "moorage.dev/deployment", "moorage.dev/revision"

PATIENCE = "--request-timeout=10s"
BETWEEN_LOOKS, BETWEEN_PAGES = 0.4, 2.0
MOST_PODS = 3
"""As many pods that are not ready are shown of a revision."""

FAILED, UNHEARD, INTERRUPTED = 1, 3, 130
"""Exit codes; 2 is that of a wrong command line."""

Object = dict[str, Any]


class Problem(Exception):
    """Told in a sentence, never as a traceback."""

    code = FAILED


class Unheard(Problem):
    """The operator has not looked; the command stays written, and may still be acted on."""

    code = UNHEARD


class Gone(Problem):
    """There is no such ModelDeployment."""


# Asking the cluster


@dataclass(frozen=True)
class Done:
    """What kubectl answered."""

    code: int
    out: str
    said: str

    @property
    def reason(self) -> str:
        """The last line of what it said, without the part that says that it is an error."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return (
            re.sub(r"^(error: |Error from server \(\w+\): )", "", lines[-1])
            if lines
            else f"kubectl ended with {self.code}"
        )


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the options that say which cluster and namespace."""

    options: tuple[str, ...] = ()

    @property
    def us(self) -> str:
        """What to type to call this program again, for the same place."""
        return " ".join(["kubectl moorage", *self.options])

    def command(self, *arguments: str) -> list[str]:
        return ["kubectl", *self.options, *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> Done:
        try:
            done = subprocess.run(
                self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=60, check=False
            )
        except FileNotFoundError:
            raise Problem("kubectl is not on PATH") from None
        except subprocess.TimeoutExpired:
            raise Problem("the cluster does not answer: kubectl has waited for a minute") from None
        return Done(done.returncode, done.stdout, done.stderr)

    def ask(self, *arguments: str) -> str:
        done = self.run(*arguments, PATIENCE)
        if done.code:
            raise Problem(done.reason)
        return done.out

    def model(self, name: str) -> Object:
        """The ModelDeployment."""
        done = self.run("get", RESOURCE, name, "--output=json", PATIENCE)
        if f'{RESOURCE} "{name}" not found' in done.said:
            raise Gone(self._no_such(name))
        if "the server doesn't have a resource type" in done.said:
            raise Problem(
                f"this cluster knows no {KIND}s: is Moorage installed there, and is it the cluster that you mean?"
            )
        if done.code:
            raise Problem(done.reason)
        return dict(json.loads(done.out))

    def pods(self, name: str) -> list[Object] | None:
        """All of its pods that have not been told to end; None for whoever may not see them."""
        done = self.run("get", "pods", f"--selector={OF_MODEL}={name}", "--output=json", PATIENCE)
        found = [] if done.code else json.loads(done.out)["items"]
        return None if done.code else [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def _no_such(self, name: str) -> str:
        names = [line.rpartition("/")[2] for line in self.run("get", RESOURCE, "--output=name", PATIENCE).out.split()]
        places = [item.partition("=")[2] for item in self.options if item.startswith("--namespace")]
        missing = f'there is no {KIND} "{name}" in ' + (f"namespace {places[0]}" if places else "the present namespace")
        if close := difflib.get_close_matches(name, names, n=1):
            return f'{missing}: did you mean "{close[0]}"?'
        return f"{missing}: there {'are ' + ', '.join(names) if names else 'is none; -n names another namespace'}"


# Text: plain and aligned; colours are taken away again where nobody wants them

ANSI = re.compile(r"\x1b\[\d*m")
COLOURS = {
    **dict.fromkeys(("Healthy", "Promoted", "safe", "better", "✓"), "32"),
    **dict.fromkeys(("Progressing", "Paused", "Superseded", "▸"), "33"),
    **dict.fromkeys(("Degraded", "RolledBack", "Aborted", "harm", "worse", "refused"), "31"),
    **dict.fromkeys(("stable", "canary", "leaving", "steps", "guards", "arms", "rejected"), "1"),
}


def painted(word: str) -> str:
    return f"\x1b[{COLOURS[word]}m{word}\x1b[0m" if word in COLOURS else word


def has_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    print(text if has_colours(stream) else ANSI.sub("", text), file=stream, flush=True)


def aligned(rows: list[list[str]], *, indent: str = "  ") -> list[str]:
    """Rows of cells as lines; a colour has no width."""
    bare = [[ANSI.sub("", cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*bare)]
    lines = []
    for row, plain in zip(rows, bare):
        padded = [cell + " " * (width - len(text)) for cell, text, width in zip(row, plain, widths)]
        lines.append((indent + "  ".join(padded)).rstrip())
    return lines


def now() -> datetime:
    return datetime.now(timezone.utc)


def at(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def span(length: timedelta) -> str:
    """In one or two units: 45s, 7m 5s, 2h 10m, 3d 4h."""
    left = max(0, int(length.total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0")) or "0s"


# Reading a ModelDeployment


def status_of(model: Object) -> Object:
    return dict(model.get("status") or {})


def name_of(model: Object) -> str:
    return str(model["metadata"]["name"])


def summary_of(model: Object) -> str:
    status = status_of(model)
    return f"{painted(status.get('phase', 'unknown'))}: {status.get('message', 'the operator has said nothing yet')}"


def steps_of(model: Object) -> list[Object]:
    """What its canary goes through before it takes everything over."""
    status, rollout = status_of(model), model["spec"].get("rollout") or {}
    strategy = rollout.get("strategy", "canary")
    if "stable" not in status or status.get("canary", {}).get("isBack"):
        return []
    if strategy == "blueGreen" and not rollout.get("blueGreen", {}).get("autoPromote", True):
        return [{"setWeight": 0}, {"pause": {}}]
    return list(rollout.get("steps") or []) if strategy == "canary" else []


UNTIL_PROMOTED = "pause until promoted"


def in_words(step: Object) -> str:
    if "setWeight" in step:
        return f"setWeight {step['setWeight']}"
    if "pause" in step:
        return f"pause {step['pause']['duration']}" if step["pause"].get("duration") else UNTIL_PROMOTED
    if "setCanaryScale" in step:
        return f"setCanaryScale {step['setCanaryScale'].get('replicas', 'by weight')}"
    return " ".join(
        f"{name} {what.get('duration', '') if isinstance(what, dict) else what}" for name, what in step.items()
    )


def waits_for(model: Object, now: datetime, us: str) -> str:
    """Whose turn it is; empty where nothing is waited for."""
    status, name = status_of(model), name_of(model)
    canary = status.get("canary")
    if model["spec"].get("suspend"):
        return "for you: nothing is changed until spec.suspend is false"
    if not canary:
        return f"for you: {us} retry {name}, or another version" if status.get("rejected") else ""
    if status.get("paused"):
        return f"for you: {us} resume {name}"
    if until := status.get("pausedUntil"):
        return f"until {until}, {span(at(until) - now)} left"
    if status.get("phase") == "Paused":
        return f"for you: {us} promote {name}"
    if canary.get("readyReplicas", 0) < canary.get("replicas", 0):
        return f"for pods: {canary.get('readyReplicas', 0)} of {canary['replicas']} are ready"
    return "" if status.get("weights", {}).get("verified", True) else "for the routers"


def revision_of(model: Object, text: str) -> str:
    """A revision by its name, or by a model version that only one revision has: `7` or `v7`."""
    status, name = status_of(model), name_of(model)
    roles = [status.get("stable"), status.get("canary"), *status.get("leaving", [])]
    seen = [item for item in (*roles, *status.get("rejected", []), *status.get("history", [])) if item]
    versions = {str(item["revision"]): str(item.get("modelVersion", "")) for item in seen}
    if text in versions or text.startswith(f"{name}-v"):
        return text
    found = [revision for revision, version in versions.items() if text in (version, f"v{version}")]
    if len(found) == 1:
        return found[0]
    told = found or [f"{revision} (version {version})" for revision, version in versions.items()] or ["none yet"]
    count = f"{len(found)} revisions" if found else "no revision"
    raise Problem(f"{name} has {count} of that name or version ({text}): {', '.join(told)}")


# status


def render(model: Object, pods: list[Object] | None, now: datetime, us: str = "kubectl moorage") -> str:
    """All that a person wants to know of a rollout, on one page."""
    status = status_of(model)
    lines = [f"{KIND} {name_of(model)}, namespace {model['metadata'].get('namespace', 'default')}"]
    lines += aligned([[label, text] for label, text in _facts(model, now, us) if text])
    if status.get("stable") or status.get("canary"):
        lines += ["", *_tree(status, pods)]
    if status.get("canary"):
        lines += ["", painted("steps"), *_steps(model, now)]
    if guards := status.get("analysis"):
        lines += ["", painted("guards"), *_guards(guards)]
    if arms := status.get("experiment", {}).get("arms"):
        lines += ["", painted("arms"), *_arms(arms, status.get("weights", {}))]
    if rejected := status.get("rejected"):
        told = [[item["revision"], f"{item.get('reason', '')}: {item.get('message', '')}"] for item in rejected]
        lines += ["", painted("rejected"), *aligned(told)]
    return "\n".join(lines)


def _facts(model: Object, now: datetime, us: str) -> Iterator[tuple[str, str]]:
    """(label, text); those without a text are left out."""
    status, conditions = status_of(model), status_of(model).get("conditions", [])
    reason = next((item["reason"] for item in conditions if item["type"] == "Ready"), "")
    phase = status.get("phase", "unknown")
    yield "phase", painted(phase) + (f" ({reason})" if reason not in ("", phase) else "")
    yield "message", status.get("message", "")
    yield "waits", waits_for(model, now, us)
    yield "note", _note(model)
    for item in conditions:
        is_news = item["type"] not in ("Ready", "Stalled", "Reconciling") and item["message"] != status.get("message")
        if is_news and item["status"] != "True":
            yield item["type"], f"{item['status']} ({item['reason']}): {item['message']}"
    yield "url", status.get("url", "")
    yield "model", _model(model)
    yield "weight", _weight(status.get("weights", {}))
    if undo := status.get("undo"):
        yield "undo", f"to {undo['revision']}, for as long as spec and registry name {undo['insteadOf']}"
    if said := status.get("command"):
        yield "command", f"{said['text']}, heard {span(now - at(said['at']))} ago"
        yield painted("refused"), said.get("refused", "")


def _note(model: Object) -> str:
    meta = model["metadata"]
    if meta.get("deletionTimestamp"):
        return f"it is being deleted since {meta['deletionTimestamp']}"
    is_behind = status_of(model).get("observedGeneration", -1) < meta.get("generation", 1)
    return "the operator has not looked at the present spec yet: is it running?" if is_behind else ""


def _model(model: Object) -> str:
    wanted, found = model["spec"].get("model", {}), status_of(model).get("model", {})
    alias = f"@{wanted['alias']}" if "alias" in wanted else ""
    return f"{wanted.get('name', '')}{alias}, version {found.get('version') or wanted.get('version') or 'not known'}"


def _weight(weights: Object) -> str:
    if "desired" not in weights:
        return ""
    applied = f"{weights['applied']} % applied" if "applied" in weights else "the routers do not agree"
    return f"{weights.get('desired', 0)} % desired, {applied}, {'verified' if weights.get('verified') else 'not verified yet'}"


def _tree(status: Object, pods: list[Object] | None) -> list[str]:
    """The revisions in their roles, and of each the pods that are not ready."""
    roles = [(kind, status[kind]) for kind in ("stable", "canary") if status.get(kind)]
    roles += [("leaving", item) for item in status.get("leaving", [])]
    shares, tree = _shares(status), []
    rows = [[painted(kind), *_row(kind, role, status, pods), shares.get(kind, "")] for kind, role in roles]
    ends = [f"  pods end at {role['scaleDownAt']}" if role.get("scaleDownAt") else "" for _, role in roles]
    for number, (line, (_, role), end) in enumerate(zip(aligned(rows, indent=""), roles, ends), 1):
        tree.append(f"{'├─' if number < len(roles) else '└─'} {line}{end}")
        tree += [f"{'│ ' if number < len(roles) else '  '} └─ {text}" for text in _troubles(role["revision"], pods)]
    return tree


def _row(kind: str, role: Object, status: Object, pods: list[Object] | None) -> list[str]:
    if pods is None:
        ready = role.get("readyReplicas", "?")
        total = {"stable": status.get("replicas"), "canary": role.get("replicas")}.get(kind, "?")
    else:
        own = [is_ready(pod) for pod in _pods_of(role["revision"], pods)]
        ready, total = sum(own), max(len(own), role.get("replicas", 0))
    return [
        role["revision"],
        f"version {role.get('modelVersion', '?')}",
        f"{ready}/{total} ready" if total else "no pods",
    ]


def _shares(status: Object) -> dict[str, str]:
    """Percent of the requests of each role, as the routers say."""
    rest = 100 - sum(arm.get("applied", 0) for arm in status.get("weights", {}).get("arms", []))
    if not status.get("canary"):
        return {"stable": f"{rest} %"}
    if not status.get("stable"):
        return {}
    canary = status.get("weights", {}).get("applied")
    numbers = ("?", "?") if canary is None else tuple(f"{rest * part / 100:g}" for part in (100 - canary, canary))
    return dict(zip(("stable", "canary"), (f"{number:>3} %" for number in numbers)))


def _pods_of(revision: str, pods: list[Object] | None) -> list[Object]:
    return [pod for pod in pods or [] if pod["metadata"].get("labels", {}).get(OF_REVISION) == revision]


def is_ready(pod: Object) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))


def _troubles(revision: str, pods: list[Object] | None) -> list[str]:
    """A line for each pod that is not ready, while there are few."""
    found = [pod for pod in _pods_of(revision, pods) if not is_ready(pod)]
    lines = [f"{pod['metadata']['name']}  {_trouble(pod['status'])}" for pod in found[:MOST_PODS]]
    return [*lines, f"and {len(found) - MOST_PODS} more that are not ready"] if len(found) > MOST_PODS else lines


def _trouble(status: Object) -> str:
    """What keeps a pod from being ready, as `kubectl get pods` has it."""
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    restarts = sum(item.get("restartCount", 0) for item in containers)
    counted = f", {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
    for item in containers:
        waiting, ended = item.get("state", {}).get("waiting", {}), item.get("state", {}).get("terminated", {})
        if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
            return f"{waiting['reason']}{counted}"
        if ended.get("exitCode"):
            return f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}{counted}"
    for item in status.get("conditions", []):
        if item["type"] == "PodScheduled" and item["status"] == "False":
            return f"{item.get('reason', 'Pending')}: {item.get('message', '')}"
    phase = str(status.get("phase", "unknown"))
    return {"Pending": "starting", "Running": "running, not ready"}.get(phase, phase) + counted


def _steps(model: Object, now: datetime) -> list[str]:
    index, since = status_of(model).get("currentStepIndex", 0), status_of(model).get("stepStartedAt")
    begun = f"since {since}, {span(now - at(since))}" if since else ""
    rows = []
    for number, words in enumerate([*map(in_words, steps_of(model)), "everything"]):
        sign = "✓" if number < index else "▸" if number == index else ""
        rows.append([painted(sign), str(number + 1), words, begun if number == index else ""])
    return aligned(rows)


def _arms(arms: list[Object], weights: Object) -> list[str]:
    """Of the experiment; how each compares with stable, as odds ratios of a bad answer."""
    held = {item["name"]: item for item in weights.get("arms", [])}
    rows = [["ARM", "VERSION", "WEIGHT", "READY", "REQUESTS", "ERRORS", "COMPARED WITH STABLE"]]
    for arm in arms:
        weight = held.get(arm["name"], {})
        applied = f"{weight.get('applied', '?')} %" + (
            "" if weight.get("verified") else f" of {weight.get('desired', '?')} %"
        )
        ready = f"{arm.get('readyReplicas', 0)}/{arm.get('replicas', 0)}"
        counts = [_number(arm.get(name, 0)) for name in ("requests", "errors")]
        found = arm.get("problem") or "; ".join(map(_verdict, arm.get("verdicts", []))) or "nothing judged yet"
        rows.append([str(arm["name"]), str(arm.get("modelVersion", "?")), applied, ready, *counts, found])
    return aligned(rows)


def _verdict(item: Object) -> str:
    if "estimate" not in item:
        return f"{item['metric']}: {item['verdict']}"
    bounds = f"{item.get('low', 0):g} to {item['high']:g}" if "high" in item else f"{item.get('low', 0):g} or more"
    return f"{item['metric']}: {painted(str(item['verdict']))}, {item['estimate']:g} ({bounds})"


def _guards(guards: list[Object]) -> list[str]:
    """`harm` and `safe` are e-values: how strong the evidence for either is, where 1 is none."""
    rows = [["GUARD", "VERDICT", "REQUESTS", "HARM", "SAFE", "MESSAGE"]]
    for item in guards:
        numbers = [_number(item.get(name, "")) for name in ("canaryRequests", "harm", "safe")]
        rows.append(
            [str(item.get("guard", "")), painted(str(item.get("verdict", ""))), *numbers, str(item.get("message", ""))]
        )
    return aligned(rows)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """status"""
    if not options.watch:
        say(render(kubectl.model(options.name), kubectl.pods(options.name), now(), kubectl.us))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        watch(kubectl, options.name)
    return 0


def watch(kubectl: Kubectl, name: str) -> None:
    """A terminal is drawn over; whatever else reads this gets a new page when something has changed."""
    page, note = "", ""
    before: object = None
    while True:
        try:
            model, pods = kubectl.model(name), kubectl.pods(name)
            page, note = render(model, pods, now(), kubectl.us), ""
            seen: object = (model["spec"], model.get("status"), [is_ready(pod) for pod in pods or []])
        except Gone:
            raise
        except Problem as problem:  # a watch outlives an API server that restarts
            seen = note = f"\n\n{problem}; asking again"
        if sys.stdout.isatty():
            draw(page + note)
        elif seen != before:
            say(f"{page}{note}\n")
        before = seen
        time.sleep(BETWEEN_PAGES)


def draw(page: str) -> None:
    """From the upper left corner, without the flicker of an empty screen."""
    shown = page if has_colours(sys.stdout) else ANSI.sub("", page)
    sys.stdout.write("\x1b[H" + shown.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J")
    sys.stdout.flush()


# Commands: the text for the annotation, bound to the revision that was looked at


def promote(model: Object, options: argparse.Namespace) -> str:
    canary = canary_of(model)
    return (
        f"promoteFull@{canary}" if options.full else f"promote@{canary}/{status_of(model).get('currentStepIndex', 0)}"
    )


def abort(model: Object, options: argparse.Namespace) -> str:
    return f"abort@{canary_of(model)}"


def pause(model: Object, options: argparse.Namespace) -> str:
    return f"pause@{canary_of(model)}"


def resume(model: Object, options: argparse.Namespace) -> str:
    return f"resume@{canary_of(model)}"


def retry(model: Object, options: argparse.Namespace) -> str:
    rejected = status_of(model).get("rejected")
    if not rejected:
        raise Problem(f"nothing of {name_of(model)} is rejected: there is nothing to try again")
    return f"retry@{rejected[0]['revision']}"


def undo(model: Object, options: argparse.Namespace) -> str:
    """To the revision that is named; else, during a rollout, to the stable one, and after it to the one before."""
    status = status_of(model)
    if options.to:
        return f"undo@{revision_of(model, options.to)}"
    stable = status.get("stable", {}).get("revision", "")
    if stable and status.get("canary"):
        return f"undo@{stable}"
    promoted = [item["revision"] for item in status.get("history", []) if item["result"] == "Promoted"]
    before = next((revision for revision in promoted if revision != stable), "")
    if not before:
        raise Problem(f"{name_of(model)} has had no other revision: there is nothing to go back to")
    return f"undo@{before}"


COMMANDS: dict[str, Callable[[Object, argparse.Namespace], str]] = {
    "promote": promote,
    "abort": abort,
    "retry": retry,
    "pause": pause,
    "resume": resume,
    "undo": undo,
}


def canary_of(model: Object) -> str:
    status, name = status_of(model), name_of(model)
    if canary := status.get("canary"):
        return str(canary["revision"])
    rejected = [item["revision"] for item in status.get("rejected", [])]
    raise Problem(f"no rollout of {name} is under way" + (f"; {rejected[0]} was put back" if rejected else ""))


def said_anew(text: str, model: Object) -> str:
    """What was said last is not heard twice: the same once more has a number behind it."""
    last = status_of(model).get("command", {}).get("text", "")
    same = re.fullmatch(re.escape(text) + r"(?:\.([0-9]{1,18}))?", last)
    return f"{text}.{int(same[1] or 1) + 1}" if same else text


def command(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """promote, abort, retry, pause, resume, undo"""
    model = unsuspended(kubectl.model(options.name))
    text = said_anew(COMMANDS[options.verb](model, options), model)
    kubectl.ask("annotate", "--overwrite", RESOURCE, options.name, f"{COMMAND}={text}")
    take_back = " ".join(kubectl.command("annotate", RESOURCE, options.name, f"{COMMAND}-"))
    instead = (
        f"{text} is written, but was not heard within {options.timeout:g} s: is the operator running, and does the registry answer it?\n"
        f"It is acted on as soon as it is heard. To take it back: {take_back}"
    )
    return tell(until(kubectl, options, lambda model: is_heard(model, text), instead), text, kubectl.us)


def is_heard(model: Object, text: str) -> bool:
    written = (model["metadata"].get("annotations") or {}).get(COMMAND) or "nothing"
    if status_of(model).get("command", {}).get("text") == text:
        return True
    if written != text:
        raise Problem(f"{text} was not heard: somebody else wrote {written} in its place")
    return False


def tell(model: Object, text: str, us: str) -> int:
    """What came of a command that was heard."""
    status = status_of(model)
    if refused := status["command"].get("refused"):
        raise Problem(f"{text} was refused: {refused}")
    say(f"{text} was heard")
    say(summary_of(model))
    if status.get("canary"):
        say(f"To look on: {us} status {name_of(model)} --watch")
    return 0


def unsuspended(model: Object) -> Object:
    if model["spec"].get("suspend"):
        raise Problem(
            f"{name_of(model)} is suspended: nothing is heard until spec.suspend is false; nothing was written"
        )
    return model


def until(kubectl: Kubectl, options: argparse.Namespace, is_so: Callable[[Object], bool], instead: str) -> Object:
    """The ModelDeployment as soon as the operator has done something about it."""
    deadline = time.monotonic() + options.timeout
    while not is_so(model := kubectl.model(options.name)):
        if time.monotonic() > deadline:
            raise Unheard(instead)
        time.sleep(BETWEEN_LOOKS)
    return model


def restart(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """restart"""
    unsuspended(kubectl.model(options.name))
    moment = f"{now():%Y-%m-%dT%H:%M:%SZ}"
    patch = json.dumps({"spec": {"restartAt": moment}})
    written = json.loads(
        kubectl.ask("patch", RESOURCE, options.name, "--type=merge", f"--patch={patch}", "--output=json")
    )
    generation = written["metadata"]["generation"]
    instead = (
        f"spec.restartAt is {moment}, but the operator has not looked within {options.timeout:g} s: is it running?"
    )
    model = until(kubectl, options, lambda now: status_of(now).get("observedGeneration", -1) >= generation, instead)
    say(f"spec.restartAt is {moment}: new pods take over as a new version does")
    say(summary_of(model))
    return 0


# history and logs


def history(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """history"""
    model = kubectl.model(options.name)
    if not status_of(model).get("history"):
        say(f"no rollout of {options.name} has ended yet")
        return 0
    say("\n".join(aligned(list(_history(status_of(model))), indent="")))
    return 0


def _history(status: Object) -> Iterator[list[str]]:
    """The newest first. A role is told once, of the newest."""
    roles = {status[kind]["revision"]: kind for kind in ("stable", "canary") if status.get(kind)}
    yield ["ENDED", "RESULT", "VERSION", "REVISION", "NOW", "MESSAGE"]
    for item in status["history"]:
        role = roles.pop(item["revision"], "")
        what = [painted(item["result"]), str(item.get("modelVersion", "")), item["revision"]]
        yield [item["at"], *what, painted(role), item.get("message", "")]


def logs(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """logs"""
    revision = _revision_of_logs(kubectl.model(options.name), options)
    selector = f"--selector={OF_MODEL}={options.name},{OF_REVISION}={revision}"
    if not kubectl.ask("get", "pods", selector, "--output=name").strip():
        raise Problem(f"{revision} has no pods")
    wanted = ["--all-containers", "--prefix", "--ignore-errors", "--max-log-requests=100", f"--tail={options.tail}"]
    wanted += ["--follow"] * options.follow + ["--previous"] * options.previous
    sys.stdout.flush()
    return subprocess.run(kubectl.command("logs", selector, *wanted), check=False).returncode


def _revision_of_logs(model: Object, options: argparse.Namespace) -> str:
    status = status_of(model)
    if options.revision and options.canary:
        raise Problem("say either --revision or --canary")
    if options.revision:
        return revision_of(model, options.revision)
    if options.canary:
        return canary_of(model)
    role = status.get("stable") or status.get("canary")
    if not role:
        raise Problem(f"{options.name} has no revision yet: {status.get('message', 'the operator has not looked')}")
    return str(role["revision"])


# lint: what a cluster says of a file, or as much as can be said without one

FIELDS = """
spec: model!=object runtime=object resources=object replicas=integer autoscaling=object pod=object
    minReadySeconds=integer service=object traffic=object rollout=object experiment=object restartAt=string
    suspend=boolean revisionHistoryLimit=integer
spec.model: name!=string alias=string version=string registry=object
spec.model.registry: name=string credentialsSecret=string
spec.runtime: engine=auto|onnxruntime|torch|pyfunc device=auto|cpu|cuda image=string allowPickle=boolean env=list
spec.runtime.env[]: name!=string value=string valueFrom=object
spec.runtime.env[].valueFrom: secretKeyRef=object configMapKeyRef=object
spec.runtime.env[].valueFrom.secretKeyRef: name!=string key!=string optional=boolean
spec.runtime.env[].valueFrom.configMapKeyRef: name!=string key!=string optional=boolean
spec.resources: limits=object requests=object
spec.autoscaling: minReplicas=integer maxReplicas!=integer targetCPUUtilization=integer targetMemoryUtilization=integer
    metrics=list behavior=object
spec.autoscaling.metrics[]: type!=Resource|Pods|Object|External|ContainerResource *
spec.autoscaling.behavior: scaleUp=object scaleDown=object
spec.autoscaling.behavior.scaleUp: stabilizationWindowSeconds=integer selectPolicy=Max|Min|Disabled tolerance=any
    policies=list
spec.autoscaling.behavior.scaleUp.policies[]: type!=Pods|Percent value!=integer periodSeconds!=integer
spec.autoscaling.behavior.scaleDown: stabilizationWindowSeconds=integer selectPolicy=Max|Min|Disabled tolerance=any
    policies=list
spec.autoscaling.behavior.scaleDown.policies[]: type!=Pods|Percent value!=integer periodSeconds!=integer
spec.pod: nodeSelector=object tolerations=list affinity=object runtimeClassName=string priorityClassName=string
    serviceAccountName=string imagePullSecrets=list labels=object annotations=object
spec.pod.tolerations[]: key=string operator=Exists|Equal value=string effect=NoSchedule|PreferNoSchedule|NoExecute
    tolerationSeconds=integer
spec.pod.imagePullSecrets[]: name!=string
spec.service: type=ClusterIP|NodePort|LoadBalancer port=integer grpcPort=integer annotations=object
spec.traffic: router=auto|haproxy|gateway|replicas gateway=object stickiness=object
spec.traffic.gateway: parentRefs=list hostnames=list
spec.traffic.gateway.parentRefs[]: name!=string namespace=string sectionName=string port=integer
spec.traffic.stickiness: header=string cookie=string
spec.rollout: strategy=canary|blueGreen|recreate signature=compatible|any steps=list blueGreen=object analysis=object
    shadow=object onNoCapacity=wait|shrinkStable|recreate progressDeadlineSeconds=integer scaleDownDelaySeconds=integer
    abortScaleDownDelaySeconds=integer rollback=object
spec.rollout.steps[]: setWeight=integer pause=object setCanaryScale=object analysis=object setHeaderRoute=object
spec.rollout.steps[].pause: duration=any
spec.rollout.steps[].setCanaryScale: replicas=integer matchTrafficWeight=boolean
spec.rollout.steps[].analysis: duration!=any
spec.rollout.steps[].setHeaderRoute: name!=string match=object
spec.rollout.steps[].setHeaderRoute.match: header=string cookie=string value=string
spec.rollout.blueGreen: autoPromote=boolean previewService=boolean
spec.rollout.analysis: intervalSeconds=integer initialDelaySeconds=integer baselineSeconds=integer minRequests=integer
    alpha=number require=noHarm|safe timeoutSeconds=integer onInconclusive=pause|promote|rollback guards=list
spec.rollout.analysis.guards[]: name!=string errorRate=object latency=object disagreement=object feedback=object
    prometheus=object
spec.rollout.analysis.guards[].errorRate: tolerate=number maxOddsRatio=number maxRate=string
spec.rollout.analysis.guards[].latency: quantile=number maxSeconds=number
spec.rollout.analysis.guards[].disagreement: max!=string
spec.rollout.analysis.guards[].feedback: margin=number
spec.rollout.analysis.guards[].prometheus: query!=string max=number min=number
spec.rollout.shadow: percent=integer
spec.rollout.rollback: moveAliasBack=boolean
spec.experiment: winner=report|promote arms!=list
spec.experiment.arms[]: name!=string model!=object weight!=integer replicas=integer resources=object match=object
spec.experiment.arms[].model: alias=string version=string
spec.experiment.arms[].resources: limits=object requests=object
spec.experiment.arms[].match: header=string cookie=string value=string
"""
"""The fields below spec, made from the CRD by `make generate`: `name=type` or `name=value|value`, `!` where required; `*` allows others."""

IS_OF_TYPE: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "any": lambda value: True,
}


def lint(kubectl: Kubectl, options: argparse.Namespace) -> int:
    """lint"""
    manifests = documents(options.file)
    doubt = "you asked for none (--offline)" if options.offline else no_cluster(kubectl)
    found, others, ours = 0, [], 0
    for manifest in manifests:
        name = f"{manifest.get('kind')} {given_name(manifest) or 'without a name'}"
        if is_another(manifest):
            others.append(name)
            continue
        complaints = misnamed(manifest) or (complaints_of(manifest) if doubt else refusals(kubectl, manifest))
        say("\n  - ".join([f"{name}: {_count(len(complaints), 'problem') if complaints else 'ok'}", *complaints]))
        found, ours = found + len(complaints), ours + 1
    if others:
        say(f"not looked at: {', '.join(others)}")
    if not ours:
        raise Problem(f"{options.file} has no {KIND}")
    say(
        f"Checked in part, without a cluster: {doubt}. {IN_PART}"
        if doubt
        else "Checked by the cluster; nothing was changed."
    )
    return FAILED if found else 0


IN_PART = "Fields, their types and the rules broken most often were checked; bounds and the other rules need a cluster."


def documents(file: str) -> list[Object]:
    """All objects of a file. kubectl reads YAML without a cluster when it patches what it reads with nothing."""
    text = sys.stdin.read() if file == "-" else None
    done = Kubectl().run(
        "patch", "--local", "--type=merge", "--patch={}", "--output=json", f"--filename={file}", stdin=text
    )
    if done.code:
        raise Problem(f"{file} is empty" if "no objects passed" in done.said else done.reason)
    decoder, found, rest = json.JSONDecoder(), [], done.out.strip()
    while rest:
        manifest, end = decoder.raw_decode(rest)
        found.append(manifest)
        rest = rest[end:].lstrip()
    return found


def given_name(manifest: Object) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""


def is_another(manifest: Object) -> bool:
    """Is it meant to be something else than a ModelDeployment?"""
    group, kind = str(manifest.get("apiVersion", "")).partition("/")[0], str(manifest.get("kind"))
    return group != "moorage.dev" and not difflib.get_close_matches(kind.lower(), [KIND.lower()], cutoff=0.8)


def misnamed(manifest: Object) -> list[str]:
    """What keeps a cluster from knowing it as a ModelDeployment."""
    wanted = {"apiVersion": API, "kind": KIND}
    return [
        f"{name} is {manifest[name]}: write {text}" if manifest.get(name) else f"{name} is missing: write {text}"
        for name, text in wanted.items()
        if manifest.get(name) != text
    ]


def no_cluster(kubectl: Kubectl) -> str:
    """Why none can check it; empty if one can."""
    done = kubectl.run("get", "--raw", f"/apis/{API}", "--request-timeout=5s")
    if "could not find the requested resource" in done.said:
        return f"the one that answers does not know {API}"
    return f"none answers ({done.reason})" if done.code else ""


def refusals(kubectl: Kubectl, manifest: Object) -> list[str]:
    """What the API server has against it. Unknown fields end its check: then it is asked once more about the rest."""
    said = _dry_run(kubectl, manifest, "strict")
    unknown = re.findall(r'unknown field "([^"]+)"', said)
    rest = _dry_run(kubectl, manifest, "ignore") if unknown else said
    lines = [line.lstrip("* ") for line in rest.splitlines() if line.strip() and not line.startswith("Warning:")]
    shown = [NOISE.sub("", line) for line in lines]
    return [*map(unknown_field, unknown), *(line for line in shown if line)]


NOISE = re.compile(
    r'^error: |^Error from server \(\w+\): |error when \w+ing "STDIN": |^The ModelDeployment "[^"]*" is invalid: ?'
    r'|<nil>: (?=Invalid)|Invalid value: "(null|object|array|string|integer|boolean)?": '
)


def _dry_run(kubectl: Kubectl, manifest: Object, validate: str) -> str:
    arguments = ("apply", "--dry-run=server", f"--validate={validate}", "--filename=-", "--output=name")
    done = kubectl.run(*arguments, "--request-timeout=10s", stdin=json.dumps(manifest))
    return done.said or done.reason if done.code else ""


def complaints_of(manifest: Object) -> list[str]:
    """Without a cluster."""
    spec = manifest.get("spec")
    top = [unknown_field(key) for key in manifest if key not in ("apiVersion", "kind", "metadata", "spec", "status")]
    if not isinstance(spec, dict):
        return [*top, "spec is missing" if spec is None else "spec is to be an object"]
    return [*top, *_misfits(spec, "spec", fields()), *broken_rules(spec, given_name(manifest))]


def broken_rules(spec: Object, name: str) -> Iterator[str]:
    """Some of the CRD's, in its words; a cluster knows all of them."""
    model = spec.get("model")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        yield (
            'metadata.name becomes the name of a Service: use at most 40 lower-case letters, digits and "-", '
            "start with a letter and end with a letter or digit"
        )
    if isinstance(model, dict) and ("alias" in model) == ("version" in model):
        yield "set exactly one of spec.model.alias (follows the alias when it moves) and spec.model.version (stays on that version)"
    if "replicas" in spec and "autoscaling" in spec:
        yield "set either spec.replicas or spec.autoscaling: an autoscaler owns the number of replicas"


def fields() -> dict[str, dict[str, str]]:
    """For each object its fields with their types, as FIELDS has them."""
    lines = FIELDS.replace("\n    ", " ").strip().splitlines()
    sections = (line.split(": ", 1) for line in lines)
    return {path: dict(word.partition("=")[::2] for word in words.split()) for path, words in sections}


def _misfits(value: Object, path: str, known: dict[str, dict[str, str]]) -> Iterator[str]:
    """Fields that are unknown, missing or of another type, in an object and all that is in it."""
    section = known[section_of(path)]
    types = {name.rstrip("!"): kind for name, kind in section.items()}
    for name in section:
        if name.endswith("!") and value.get(name[:-1]) is None:
            yield f"{path}.{name[:-1]} is missing"
    for name, inner in value.items():
        place = f"{path}.{name}"
        if name not in types:
            if "*" not in section:
                yield unknown_field(place)
        elif inner is not None and (wrong := _wrong_type(inner, types[name])):
            yield f"{place} {wrong}"
        else:
            yield from _inside(inner, place, known)


def _inside(value: Any, path: str, known: dict[str, dict[str, str]]) -> Iterator[str]:
    if section_of(path) in known:
        yield from _misfits(value, path, known) if isinstance(value, dict) else [f"{path} is to be of type object"]
        return
    for index, item in enumerate(value if isinstance(value, list) else []):
        yield from _inside(item, f"{path}[{index}]", known)


def section_of(path: str) -> str:
    """`spec.rollout.steps[2]` is one of `spec.rollout.steps[]`."""
    return re.sub(r"\[\d+\]", "[]", path)


def _wrong_type(value: Any, kind: str) -> str:
    if kind in IS_OF_TYPE:
        if IS_OF_TYPE[kind](value):
            return ""
        quoted = isinstance(value, (int, float)) and kind == "string"
        return f'is to be a string: write "{value}", in quotes' if quoted else f"is to be of type {kind}"
    return "" if value in kind.split("|") else f"is to be one of {', '.join(kind.split('|'))}"


def unknown_field(path: str) -> str:
    """With what was probably meant: a field beside it that is spelled alike, or one of the same name elsewhere."""
    parent, _, name = section_of(path).rpartition(".")
    known = {place: [word.rstrip("!") for word in words] for place, words in fields().items()}
    beside = known.get(parent, []) if parent else ["spec", "metadata"]
    close = [path[: len(path) - len(name)] + word for word in difflib.get_close_matches(name, beside, n=1)]
    elsewhere = [f"{place}.{name}" for place, words in known.items() if name in words]
    meant = (close + elsewhere)[:1]
    return f"unknown field {path}" + (f": did you mean {meant[0]}?" if meant else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# The command line

Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*flags: str, **settings: Any) -> Option:
    return flags, settings


def flag(*flags: str, help: str) -> Option:  # noqa: A002 - argparse calls it so
    return option(*flags, action="store_true", help=help)


def bare(name: str) -> str:
    """`mdep/fraud`, as kubectl prints it, is fraud."""
    return name.rpartition("/")[2]


EVERYWHERE = [
    option("--context", help="as in kubectl", default=argparse.SUPPRESS),
    option("-n", "--namespace", help="as in kubectl", default=argparse.SUPPRESS),
    option("--kubeconfig", help="as in kubectl", default=argparse.SUPPRESS),
]
NAME = option("name", metavar="NAME", type=bare, help="the ModelDeployment")
TIMEOUT = option("--timeout", metavar="SECONDS", type=float, default=15, help="how long to wait for the operator (15)")
WHICH = "a revision, or a model version that only one revision has"

VERBS: dict[str, tuple[Callable[[Kubectl, argparse.Namespace], int], str, list[Option]]] = {
    "status": (
        show,
        "show where a rollout stands and what it waits for",
        [NAME, flag("-w", "--watch", help="go on until Ctrl-C")],
    ),
    "promote": (
        command,
        "go on from the present pause",
        [NAME, TIMEOUT, flag("--full", help="skip all steps that are left")],
    ),
    "abort": (command, "put the new version back", [NAME, TIMEOUT]),
    "pause": (command, "stay at the present step", [NAME, TIMEOUT]),
    "resume": (command, "go on after pause", [NAME, TIMEOUT]),
    "retry": (command, "try the version that was put back once more", [NAME, TIMEOUT]),
    "undo": (
        command,
        "go back to a revision that is kept; by default to the one before",
        [NAME, TIMEOUT, option("--to", metavar="REVISION", help=WHICH)],
    ),
    "restart": (restart, "roll out new pods", [NAME, TIMEOUT]),
    "history": (history, "show how the last rollouts ended", [NAME]),
    "logs": (
        logs,
        "show what the pods of a revision print; by default of the stable one",
        [
            NAME,
            option("--revision", metavar="REVISION", help=WHICH),
            flag("--canary", help="of the revision that is on its way"),
            flag("-f", "--follow", help="go on until Ctrl-C"),
            flag("-p", "--previous", help="of the containers before those that run"),
            option("--tail", metavar="LINES", type=int, default=100, help="lines of each container (100; -1: all)"),
        ],
    ),
    "lint": (
        lint,
        "check the ModelDeployments of a file before they are applied",
        [
            option("file", metavar="FILE", help="YAML or JSON; - for standard input"),
            flag("--offline", help="ask no cluster"),
        ],
    ),
}


def parser() -> argparse.ArgumentParser:
    about = "Look at the rollout of a ModelDeployment, and take part in it."
    root = argparse.ArgumentParser(prog="kubectl moorage", description=about, allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"kubectl-moorage {VERSION}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for flags, settings in EVERYWHERE:
        root.add_argument(*flags, **settings)
    for name, (run, text, options) in VERBS.items():
        made = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        for flags, settings in (*options, *EVERYWHERE):
            made.add_argument(*flags, **settings)
    return root


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✓ gets a question mark
    options = parser().parse_args(arguments)
    given = {name: getattr(options, name, None) for name in ("kubeconfig", "context", "namespace")}
    try:
        return int(options.run(Kubectl(tuple(f"--{name}={value}" for name, value in given.items() if value)), options))
    except Problem as problem:
        say(f"error: {problem}", error=True)
        return problem.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
