"""What is wrong with the pods of a revision, in a sentence for its user: an ordered list of checks, the first that answers wins.

Reads what the kubelet, the scheduler, the Deployment controller and the containers' last words say; fetches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from moorage_operator.core import pods
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.reasons import Problem, Reason

MAX_MESSAGE = 1024
"""Characters of somebody else's message that go into a condition."""

SPOKEN_BY_RUNTIME = frozenset(
    {
        Reason.REGISTRY_UNREACHABLE,
        Reason.REGISTRY_UNAUTHORIZED,
        Reason.MODEL_VERSION_NOT_FOUND,
        Reason.ARTIFACT_MISSING,
        Reason.ARTIFACT_UNAUTHORIZED,
        Reason.SOURCE_REFUSED,
        Reason.DIGEST_MISMATCH,
        Reason.DISK_FULL,
        Reason.FETCH_FAILED,
        Reason.UNSUPPORTED_FLAVOR,
        Reason.ENGINE_UNAVAILABLE,
        Reason.PICKLE_NOT_ALLOWED,
        Reason.SIGNATURE_MISSING,
        Reason.DEVICE_UNAVAILABLE,
        Reason.MODEL_LOAD_FAILED,
        Reason.WARMUP_FAILED,
        Reason.OUT_OF_MEMORY,
    }
)
"""Reasons that a container may give itself. Its words are untrusted: the model's code can write them, too."""

_WAITING_FOR_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NEVER_STARTED = frozenset({"StartError", "ContainerCannotRun"})
_WAITING_FOR_START = frozenset({"CreateContainerError", "RunContainerError", "StartError", "PostStartHookError"})


def problem_of(deployment: Manifest | None, of_revision: Iterable[Manifest]) -> Problem | None:
    """The first problem of a revision's Deployment and pods, in the order of CHECKS; None if there is none to see."""
    unready = [pod for pod in of_revision if not is_ready(pod)]
    for check in CHECKS:
        found = check(deployment, unready)
        if found:
            return Problem(found.reason, _shortened(found.message))
    return None


def is_ready(pod: Manifest) -> bool:
    return condition_of(pod, "Ready").get("status") == "True" and not pod["metadata"].get("deletionTimestamp")


def is_out_of_sight(pod: Manifest) -> bool:
    """Its containers are ready, and it is not: its node was not heard of for a while, and says nothing about the pod.

    https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller
    """
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return bool(statuses) and all(item.get("ready") for item in statuses) and not is_ready(pod)


def has_available(deployment: Manifest, count: int) -> bool:
    """Has its controller seen the Deployment as it is, and `count` pods that run its template and are available?"""
    status = deployment.get("status", {})
    updated = int(status.get("updatedReplicas", 0))
    # Those of an older template may all be among the available ones.
    of_before = max(int(status.get("replicas", 0)) - updated, 0)
    return status_is_current(deployment) and min(int(status.get("availableReplicas", 0)) - of_before, updated) >= count


def status_is_current(deployment: Manifest) -> bool:
    """Is its status about the Deployment as it is? The answer to a write still has the status from before."""
    observed = int(deployment.get("status", {}).get("observedGeneration", 0))
    return observed >= int(deployment["metadata"].get("generation", 0))


def is_crash_looping(of_revision: Iterable[Manifest]) -> bool:
    """Does the kubelet hold a serving container back because it keeps ending?"""
    return any(
        name == pods.SERVE and waiting.get("reason") == "CrashLoopBackOff" for name, waiting in _waiting(of_revision)
    )


def fetched(of_revision: Iterable[Manifest]) -> Iterator[dict[str, Any]]:
    """The last words of each fetch container that ended well."""
    for pod in of_revision:
        for status in _statuses(pod, pods.FETCH):
            terminated = status.get("state", {}).get("terminated", {})
            if terminated.get("exitCode") == 0:
                yield _last_words(terminated)


def pods_are_refused(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    """No pod could even be created: the quota, Pod Security, a missing ServiceAccount, a webhook."""
    failure = condition_of(deployment or {}, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    message = str(failure.get("message", ""))
    if "exceeded quota" in message:
        return Problem(Reason.QUOTA_EXCEEDED, f"the namespace's quota leaves no room: {message}")
    return Problem(Reason.PODS_REFUSED, f"the pods are refused: {message}")


def no_node_fits(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    for pod in unready:
        scheduled = condition_of(pod, "PodScheduled")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            message = str(scheduled.get("message", ""))
            if "Insufficient nvidia.com/" in message:
                return Problem(Reason.INSUFFICIENT_GPU, f"no node has a free GPU: {message}")
            return Problem(Reason.UNSCHEDULABLE, f"no node fits the pod: {message}")
    return None


def configuration_is_missing(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    for name, waiting in _waiting(unready):
        if waiting.get("reason") == "CreateContainerConfigError":
            message = str(waiting.get("message", ""))
            if "secret" in message.lower():
                return Problem(Reason.SECRET_NOT_FOUND, f"container {name}: {message}; create it in this namespace")
            if "configmap" in message.lower():
                return Problem(Reason.CONFIG_NOT_FOUND, f"container {name}: {message}; create it in this namespace")
            return Problem(Reason.CONTAINER_CANNOT_START, f"container {name}: {message}")
    return None


def image_cannot_be_pulled(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    for _, waiting in _waiting(unready):
        if waiting.get("reason") in _WAITING_FOR_IMAGE:
            return Problem(Reason.IMAGE_PULL_FAILED, str(waiting.get("message") or waiting["reason"]))
    return None


def container_cannot_start(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    for name, waiting in _waiting(unready):
        if waiting.get("reason") in _WAITING_FOR_START:
            return Problem(Reason.CONTAINER_CANNOT_START, f"container {name}: {waiting.get('message', '')}")
    return None


def container_failed(deployment: Manifest | None, unready: list[Manifest]) -> Problem | None:
    """A container of an unready pod ended with an error, now or just before its restart; `serve` may not end at all."""
    for pod in unready:
        for status in _statuses(pod):
            ended = _ended(status)
            if ended and (ended.get("exitCode") != 0 or status["name"] == pods.SERVE):
                return _failure(str(status["name"]), ended)
    return None


CHECKS: tuple[Callable[[Manifest | None, list[Manifest]], Problem | None], ...] = (
    container_failed,  # the container's own words say most
    configuration_is_missing,
    image_cannot_be_pulled,
    container_cannot_start,
    no_node_fits,
    pods_are_refused,  # last: some pods of a Deployment may exist and fail for a better reason
)


def _failure(container: str, ended: dict[str, Any]) -> Problem:
    if ended.get("reason") == "OOMKilled":
        return Problem(Reason.OUT_OF_MEMORY, f"container {container} needed more memory than its limit: raise it")
    if ended.get("reason") in _NEVER_STARTED:
        return Problem(Reason.CONTAINER_CANNOT_START, f"container {container}: {ended.get('message', '')}")
    words = _last_words(ended)
    reason = words.get("reason")
    if reason in SPOKEN_BY_RUNTIME:
        return Problem(Reason(reason), str(words.get("message", "")))
    code = ended.get("exitCode")
    said = " ".join(str(ended.get("message", "")).split())[-300:]
    detail = f": {said}" if said else ""
    return Problem(Reason.CRASHED, f"container {container} ended with exit code {code}{detail}; see `kubectl logs`")


def _ended(status: dict[str, Any]) -> dict[str, Any] | None:
    """How the container ended last, unless it has ended well since."""
    now: dict[str, Any] | None = status.get("state", {}).get("terminated")
    before: dict[str, Any] | None = status.get("lastState", {}).get("terminated")
    return now or before


def _last_words(terminated: dict[str, Any]) -> dict[str, Any]:
    """The termination message, where it is the runtime's JSON object; empty otherwise."""
    try:
        words = msgspec.json.decode(str(terminated.get("message", "")))
    except msgspec.DecodeError:
        return {}
    return words if isinstance(words, dict) else {}


def _waiting(unready: Iterable[Manifest]) -> Iterator[tuple[str, dict[str, Any]]]:
    for pod in unready:
        for status in _statuses(pod):
            waiting = status.get("state", {}).get("waiting")
            if waiting:
                yield str(status["name"]), waiting


def _statuses(pod: Manifest, name: str = "") -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    for item in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if not name or item["name"] == name:
            yield item


def condition_of(manifest: Manifest, kind: str) -> dict[str, Any]:
    """The condition of that type in an object's status, as JSON; empty if it has none."""
    conditions = manifest.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {})


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
