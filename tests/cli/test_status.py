"""What `kubectl moorage status` shows, as a person reads it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any

import pytest

import kubectl_moorage
from plugin_world import BEFORE, CANARY, PLUGIN, REJECTED, STABLE, Cluster, Object, a_model, a_pod, a_rollout

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
PODS = [a_pod(STABLE, number) for number in range(4)]


def page(model: Object, pods: list[Object] | None = PODS) -> str:
    """Without colours, with a line's end of its own."""
    return kubectl_moorage.ANSI.sub("", kubectl_moorage.render(model, pods, NOW)) + "\n"


def text(block: str) -> str:
    return textwrap.dedent(block).lstrip("\n")


def test_one_that_is_healthy() -> None:
    assert page(a_model()) == text("""
        ModelDeployment fraud, namespace shop
          phase    Healthy (Serving)
          message  version 7 answers
          url      http://fraud.shop.svc
          model    fraud-detector@champion, version 7

        └─ stable  fraud-v7-11aa22bb  version 7  4/4 ready  100 %
    """)


def test_an_experiment_has_a_line_for_each_arm() -> None:
    judged = {"metric": "errors", "verdict": "worse", "estimate": 2.5, "low": 1.4}
    arms = [
        {"name": "challenger", "modelVersion": "8", "readyReplicas": 2, "replicas": 2, "requests": 90, "errors": 9,
         "verdicts": [judged, {"metric": "wrong", "verdict": "noDifferenceShown"}]},
        {"name": "rival", "problem": "no such alias"},
    ]  # fmt: skip
    weights = [
        {"name": "challenger", "desired": 20, "applied": 20, "verified": True},
        {"name": "rival", "desired": 5, "applied": 0, "verified": False},
    ]
    shown = page(a_model(experiment={"arms": arms}, weights={"arms": weights}))
    assert shown.split("100 %")[0] == shown
    assert shown.endswith(
        text("""
          └─ stable  fraud-v7-11aa22bb  version 7  4/4 ready  80 %

          arms
            ARM         VERSION  WEIGHT      READY  REQUESTS  ERRORS  COMPARED WITH STABLE
            challenger  8        20 %        2/2    90        9       errors: worse, 2.5 (1.4 or more); wrong: noDifferenceShown
            rival       ?        0 % of 5 %  0/0    0         0       no such alias
        """)
    )


def test_one_in_the_middle_of_a_rollout() -> None:
    waiting = {"containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
    pods = [*PODS, a_pod(CANARY), a_pod(CANARY, 1, ready=False, **waiting), a_pod(BEFORE)]
    leaving = [{"revision": BEFORE, "modelVersion": "6", "scaleDownAt": "2026-01-31T12:00:30Z"}]
    command = {"text": f"resume@{CANARY}", "at": "2026-01-31T11:52:55Z", "refused": "it is not paused"}

    assert page(a_rollout(leaving=leaving, command=command), pods) == text("""
        ModelDeployment fraud, namespace shop
          phase    Paused
          message  step 2 of 5: 20 % to version 8, the rest to version 7; paused until somebody promotes it
          waits    for you: kubectl moorage promote fraud
          url      http://fraud.shop.svc
          model    fraud-detector@champion, version 8
          weight   20 % desired, 20 % applied, verified
          command  resume@fraud-v8-99aa77ee, heard 7m 5s ago
          refused  it is not paused

        ├─ stable   fraud-v7-11aa22bb  version 7  4/4 ready   80 %
        ├─ canary   fraud-v8-99aa77ee  version 8  1/2 ready   20 %
        │  └─ fraud-v8-99aa77ee-1  CrashLoopBackOff, 3 restarts
        └─ leaving  fraud-v6-33cc44dd  version 6  1/1 ready  pods end at 2026-01-31T12:00:30Z

        steps
          ✓  1  setWeight 20
          ▸  2  pause until promoted  since 2026-01-31T11:52:55Z, 7m 5s
             3  setCanaryScale 3
             4  pause 10m
             5  everything
    """)


def test_guards_and_what_was_put_back() -> None:
    guards = [
        {"guard": "errors", "verdict": "continue", "harm": 0.31, "safe": 1.2, "canaryRequests": 412, "message": "1 of 412 failed"},
        {"guard": "p99", "verdict": "noTraffic", "harm": 0, "safe": 0, "message": "no request has been judged yet"},
    ]  # fmt: skip

    shown = page(a_model(phase="Degraded", analysis=guards, rejected=[REJECTED]))

    assert shown.partition("100 %\n\n")[2] == text("""
        guards
          GUARD   VERDICT    REQUESTS  HARM  SAFE  MESSAGE
          errors  continue   412       0.31  1.2   1 of 412 failed
          p99     noTraffic            0     0     no request has been judged yet

        rejected
          fraud-v8-99aa77ee  CanaryCrashes: pods crash again and again
    """)
    assert "waits    for you: kubectl moorage retry fraud, or another version" in shown


def test_one_that_the_operator_has_not_seen() -> None:
    model = a_model() | {"status": {"observedGeneration": -1}}

    assert page(model, []) == text("""
        ModelDeployment fraud, namespace shop
          phase  unknown
          note   the operator has not looked at the present spec yet: is it running?
          model  fraud-detector@champion, version not known
    """)


def test_whoever_may_not_see_pods_sees_what_the_status_counts() -> None:
    leaving = [{"revision": BEFORE, "modelVersion": "6"}]

    shown = page(a_rollout(leaving=leaving), None)

    assert [line.split("  ")[3] for line in shown.splitlines() if line[:1] in "├└" and line] == [
        "4/4 ready",
        "1/2 ready",
        "?/? ready",
    ]


WAITS: dict[str, tuple[Object, str]] = {
    "for pods": (a_rollout(phase="Progressing"), "for pods: 1 of 2 are ready"),
    "for routers": (
        a_rollout(phase="Progressing", weights={"desired": 20, "verified": False}, canary={"revision": CANARY}),
        "for the routers",
    ),
    "for the clock": (a_rollout(pausedUntil="2026-01-31T12:02:10Z"), "until 2026-01-31T12:02:10Z, 2m 10s left"),
    "paused by a command": (a_rollout(paused=True), "for you: kubectl moorage resume fraud"),
    "suspended": (a_rollout(spec={"suspend": True}), "for you: nothing is changed until spec.suspend is false"),
    "for nothing": (a_model(), ""),
}


@pytest.mark.parametrize(("model", "said"), WAITS.values(), ids=WAITS)
def test_it_says_whose_turn_it_is(model: Object, said: str) -> None:
    assert kubectl_moorage.waits_for(model, NOW, "kubectl moorage") == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Pending"}, "starting"),
        ({"phase": "Running"}, "running, not ready"),
        ({"phase": "Pending", "conditions": [UNPLACED]}, "Unschedulable: no GPU"),
        ({"initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}, "Error, exit code 1"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "ImagePullBackOff"),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}, "starting"),
    ],
)  # fmt: skip
def test_it_says_what_keeps_a_pod_from_being_ready(status: dict[str, Any], said: str) -> None:
    pods = [a_pod(STABLE, ready=False) | {"status": status}]

    assert f"   └─ {STABLE}-0  {said}\n" in page(a_model(), pods)


def test_of_many_pods_that_are_not_ready_some_are_shown() -> None:
    assert "   └─ and 6 more that are not ready\n" in page(a_model(), [a_pod(STABLE, n, ready=False) for n in range(9)])


def test_a_pipe_gets_no_colours_and_a_terminal_does_unless_it_wants_none(cluster: Cluster) -> None:
    assert "\x1b" not in cluster.run("status", "fraud").stdout
    assert "\x1b[32mHealthy\x1b[0m" in on_a_terminal(cluster)
    assert "\x1b" not in on_a_terminal(cluster, NO_COLOR="1")


def on_a_terminal(cluster: Cluster, **environment: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(PLUGIN), "status", "fraud"]
    settings = cluster.environment() | {"TERM": "xterm"} | environment
    subprocess.run(command, env=settings, stdout=theirs, timeout=30, check=True)
    os.close(theirs)
    with open(ours, errors="replace") as terminal:  # noqa: PTH123 - a file descriptor
        return terminal.readline() + terminal.readline()


def test_watch_goes_on_until_ctrl_c_and_then_says_nothing(cluster: Cluster) -> None:
    command = [sys.executable, str(PLUGIN), "status", "fraud", "--watch"]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and its children
    try:
        with subprocess.Popen(
            command, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout
            assert running.stdout.readline() == "ModelDeployment fraud, namespace shop\n"
            running.send_signal(signal.SIGINT)
            _, complaint = running.communicate(timeout=10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (running.returncode, complaint) == (0, "")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"setWeight": 5}, "setWeight 5"),
        ({"pause": {"duration": 90}}, "pause 90"),
        ({"pause": {}}, "pause until promoted"),
        ({"setCanaryScale": {"replicas": 0}}, "setCanaryScale 0"),
        ({"setCanaryScale": {"matchTrafficWeight": True}}, "setCanaryScale by weight"),
        ({"somethingNew": {"duration": "5m"}}, "somethingNew 5m"),
    ],
)
def test_a_step_in_words(step: Object, words: str) -> None:
    assert kubectl_moorage.in_words(step) == words
