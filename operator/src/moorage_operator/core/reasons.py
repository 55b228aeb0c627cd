"""Every reason that a condition or an event can carry, with what it means and what to do. docs/operations.md is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Explanation(NamedTuple):
    meaning: str
    remedy: str = ""


class Reason(StrEnum):
    """CamelCase words of the API: renaming one breaks users' alerts."""

    # All is well, or on its way.
    RESOLVED = "Resolved"
    RESOLVING = "Resolving"
    RUNNING = "Running"
    STARTING = "Starting"
    NOT_STARTED = "NotStarted"
    SERVING = "Serving"
    NO_READY_PODS = "NoReadyPods"
    PROGRAMMED = "Programmed"
    PENDING = "Pending"
    ROUTER_UNREACHABLE = "RouterUnreachable"
    ROUTER_UNAVAILABLE = "RouterUnavailable"
    ROUTER_REFUSED = "RouterRefused"
    GATEWAY_PENDING = "GatewayPending"
    GATEWAY_REFUSED = "GatewayRefused"
    PROMOTED = "Promoted"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    SCALING = "Scaling"
    # The spec.
    INVALID_SPEC = "InvalidSpec"
    POLICY_DENIED = "PolicyDenied"
    NAME_CONFLICT = "NameConflict"
    CHILD_REFUSED = "ChildRefused"
    FIELD_CONFLICT = "FieldConflict"
    # The registry.
    REGISTRY_NOT_DECLARED = "RegistryNotDeclared"
    MODEL_NOT_FOUND = "ModelNotFound"
    VERSION_NOT_FOUND = "VersionNotFound"
    ALIAS_NOT_FOUND = "AliasNotFound"
    VERSION_NOT_READY = "VersionNotReady"
    SOURCE_REFUSED = "SourceRefused"
    REGISTRY_UNAUTHORIZED = "RegistryUnauthorized"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    # Getting the model into the pod.
    MODEL_VERSION_NOT_FOUND = "ModelVersionNotFound"
    ARTIFACT_MISSING = "ArtifactMissing"
    ARTIFACT_UNAUTHORIZED = "ArtifactUnauthorized"
    DIGEST_MISMATCH = "DigestMismatch"
    DISK_FULL = "DiskFull"
    FETCH_FAILED = "FetchFailed"
    # Loading it.
    UNSUPPORTED_FLAVOR = "UnsupportedFlavor"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    PICKLE_NOT_ALLOWED = "PickleNotAllowed"
    SIGNATURE_MISSING = "SignatureMissing"
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    WARMUP_FAILED = "WarmupFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASHED = "Crashed"
    # Getting the pod onto a node.
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason's name
    CONFIG_NOT_FOUND = "ConfigNotFound"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CANNOT_START = "ContainerCannotStart"
    INSUFFICIENT_GPU = "InsufficientGPU"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_REFUSED = "PodsRefused"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    # A rollout that ended badly.
    ROLLED_BACK = "RolledBack"
    CANARY_LOST = "CanaryLost"
    CANARY_CRASHES = "CanaryCrashes"
    ANALYSIS_FAILED = "AnalysisFailed"
    INCONCLUSIVE = "Inconclusive"
    SIGNATURE_INCOMPATIBLE = "SignatureIncompatible"
    SAMPLE_RATIO_MISMATCH = "SampleRatioMismatch"
    AUTOSCALER_WITHOUT_METRICS = "AutoscalerWithoutMetrics"
    AUTOSCALER_FAILED = "AutoscalerFailed"
    # Events only.
    VERSION_RESOLVED = "VersionResolved"
    REVISION_CREATED = "RevisionCreated"
    REVISION_RETIRED = "RevisionRetired"
    DRIFT_REPAIRED = "DriftRepaired"
    COMMAND_DONE = "CommandDone"
    COMMAND_REFUSED = "CommandRefused"
    WEIGHT_SET = "WeightSet"
    ROUTES_SET = "RoutesSet"
    ARM_IN_TROUBLE = "ArmInTrouble"
    ARM_JUDGED = "ArmJudged"
    ARM_WON = "ArmWon"
    SIGNATURE_PASSED_OVER = "SignaturePassedOver"
    MADE_ROOM = "MadeRoom"
    ALIAS_MOVED_BACK = "AliasMovedBack"
    ALIAS_NOT_MOVED = "AliasNotMoved"
    REGISTRY_NOT_TOLD = "RegistryNotTold"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


@dataclass(frozen=True)
class Problem:
    """Something that only reality shows and that somebody has to look at; the message says what to do."""

    reason: Reason
    message: str


_WAIT = "Nothing to do."
_LOGS = "Read the pod's log: `kubectl logs -l moorage.dev/deployment=NAME --all-containers`."

EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.RESOLVED: Explanation("The registry says which version the spec names.", _WAIT),
    Reason.RESOLVING: Explanation("The registry has been asked, the answer is not there yet.", _WAIT),
    Reason.RUNNING: Explanation("All pods of the wanted revision are ready.", _WAIT),
    Reason.STARTING: Explanation("Pods are being created, or are loading the model.", _WAIT),
    Reason.NOT_STARTED: Explanation("There is no revision yet, for the reason that another condition gives."),
    Reason.SERVING: Explanation("The address answers from the stable revision.", _WAIT),
    Reason.NO_READY_PODS: Explanation("The address has no pod that could answer.", "See RuntimeAvailable."),
    Reason.PROGRAMMED: Explanation("The Service sends all traffic to the stable revision.", _WAIT),
    Reason.PENDING: Explanation("The Service has no revision to point to yet.", "See ModelResolved."),
    Reason.ROUTER_UNREACHABLE: Explanation(
        "A router pod does not tell what it does. It goes on with the weights that it has; no weight counts as set before all have told.",
        "See the message; is there a NetworkPolicy between the operator and the router's port 8404?",
    ),
    Reason.ROUTER_UNAVAILABLE: Explanation(
        "No pod of the namespace's router is ready.",
        "`kubectl describe deployment moorage-router` in the namespace.",
    ),
    Reason.ROUTER_REFUSED: Explanation(
        "The router would refuse what the spec asks for, so it is not told. It goes on with what it had.",
        "Correct what the message names. The API server refuses such a spec, so the CRD is of another version: `helm upgrade`.",
    ),
    Reason.GATEWAY_PENDING: Explanation(
        "No Gateway has taken the HTTPRoute yet that spec.traffic.gateway asks for.",
        "Correct spec.traffic.gateway.parentRefs; `kubectl get gateway -A` lists those that there are.",
    ),
    Reason.GATEWAY_REFUSED: Explanation(
        "The Gateway, or the API server, does not take the HTTPRoute; the message is its own.",
        "Correct spec.traffic.gateway, or ask who owns the Gateway to let routes of this namespace and hostname in.",
    ),
    Reason.PROMOTED: Explanation(
        "The wanted revision is stable and answers; as an event: it has just taken over.", _WAIT
    ),
    Reason.PROGRESSING: Explanation("The wanted revision is on its way to being stable.", _WAIT),
    Reason.PAUSED: Explanation(
        "The rollout waits for somebody: at a step `pause: {}`, or because it was told to pause.",
        "Promote or abort it; the message has the command.",
    ),
    Reason.SUSPENDED: Explanation("spec.suspend is true: nothing is changed.", "Set spec.suspend to false."),
    Reason.SCALED_TO_ZERO: Explanation(
        "spec.replicas is 0.", "Set spec.replicas, or `kubectl scale mdep NAME --replicas=1`."
    ),
    Reason.SCALING: Explanation("The autoscaler has its metrics.", _WAIT),
    Reason.INVALID_SPEC: Explanation(
        "The stored spec does not fit this operator: the CRD is of another version.",
        "Upgrade the CRD and the operator together: `helm upgrade`.",
    ),
    Reason.POLICY_DENIED: Explanation(
        "The platform's policy does not allow what the spec asks for; the message names it.",
        "Change the spec, or ask the platform team to widen `policy` in the chart's values.",
    ),
    Reason.NAME_CONFLICT: Explanation(
        "An object with the name of a child exists and belongs to somebody else; it is left alone.",
        "Rename the ModelDeployment, or remove that object.",
    ),
    Reason.CHILD_REFUSED: Explanation(
        "The API server refuses a child as the spec wants it; the message is the server's.",
        "Correct the field that the message names.",
    ),
    Reason.REGISTRY_NOT_DECLARED: Explanation(
        "spec.model.registry.name is no registry of the operator.",
        "Correct the name, or declare the registry in the chart's values (`registries`).",
    ),
    Reason.MODEL_NOT_FOUND: Explanation(
        "The registry has no model of that name.", "Correct spec.model.name, or register it."
    ),
    Reason.VERSION_NOT_FOUND: Explanation(
        "The model has no such version.", "Correct spec.model.version, or register it."
    ),
    Reason.ALIAS_NOT_FOUND: Explanation(
        "The model has no such alias.", "Correct spec.model.alias, or set it in MLflow."
    ),
    Reason.VERSION_NOT_READY: Explanation(
        "The version's registration is pending or has failed.", "Wait, or register it again."
    ),
    Reason.SOURCE_REFUSED: Explanation(
        "The artifacts lie where no pod may be sent: a local path, or another host's URL.",
        "Start the MLflow server with an artifact store and `--serve-artifacts`, then log the model again.",
    ),
    Reason.REGISTRY_UNAUTHORIZED: Explanation(
        "The registry refuses the credentials, the operator's own or the pod's (the message says whose).",
        "Correct the Secret: the chart's `registries[].existingSecret`, or spec.model.registry.credentialsSecret.",
    ),
    Reason.REGISTRY_UNREACHABLE: Explanation(
        "The registry does not answer. What runs keeps running, nothing new is found.",
        "Look at the registry; the operator goes on by itself when it answers.",
    ),
    Reason.MODEL_VERSION_NOT_FOUND: Explanation(
        "The version was gone from the registry when the pod fetched it.", "Register it again, or name another version."
    ),
    Reason.ARTIFACT_MISSING: Explanation(
        "The version is registered, but its files are not in the artifact store.", "Log and register the model again."
    ),
    Reason.ARTIFACT_UNAUTHORIZED: Explanation(
        "The artifact store refuses the pod's credentials.",
        "Put the store's credentials into spec.model.registry.credentialsSecret, or use the registry's artifact proxy.",
    ),
    Reason.DIGEST_MISMATCH: Explanation(
        "The files differ from those that the first pod of this revision got: somebody changed a version's artifacts.",
        "Register the changed files as a new version; restore the old ones to heal this one.",
    ),
    Reason.DISK_FULL: Explanation(
        "The node has no room for the model's files.", "Free disk on the node, or use a node with more."
    ),
    Reason.FETCH_FAILED: Explanation("The download failed; the message says at what.", _LOGS),
    Reason.UNSUPPORTED_FLAVOR: Explanation(
        "No engine can run any of the model's flavors.", "Log the model with a pyfunc, ONNX or PyTorch flavor."
    ),
    Reason.ENGINE_UNAVAILABLE: Explanation(
        "The image lacks the library that the model needs.",
        "Set spec.runtime.engine: torch for PyTorch models, or spec.runtime.image.",
    ),
    Reason.PICKLE_NOT_ALLOWED: Explanation(
        "Loading the model would run code that comes with it.",
        "Set spec.runtime.allowPickle: true if you trust it, or log the model as ONNX or as an exported PyTorch program.",
    ),
    Reason.SIGNATURE_MISSING: Explanation(
        "The model was logged without a signature, so nobody knows its inputs.",
        "Log it again with `signature=mlflow.models.infer_signature(...)` or `input_example=...`.",
    ),
    Reason.DEVICE_UNAVAILABLE: Explanation(
        "spec.runtime.device is cuda, and the container sees no GPU.",
        "Ask for a GPU in spec.resources.limits, or set device: cpu.",
    ),
    Reason.MODEL_LOAD_FAILED: Explanation("The engine can't load the model.", _LOGS),
    Reason.WARMUP_FAILED: Explanation("The model loads, and fails on its own input example.", _LOGS),
    Reason.OUT_OF_MEMORY: Explanation(
        "The container needed more memory than its limit.", "Raise spec.resources.limits.memory."
    ),
    Reason.CRASHED: Explanation("A container ended with an error and no explanation.", _LOGS),
    Reason.SECRET_NOT_FOUND: Explanation(
        "A Secret, or a key of it, that the pod needs does not exist.", "Create it in this namespace."
    ),
    Reason.CONFIG_NOT_FOUND: Explanation(
        "A ConfigMap, or a key of it, that the pod needs does not exist.", "Create it in this namespace."
    ),
    Reason.IMAGE_PULL_FAILED: Explanation(
        "The node can't get the image.",
        "Correct the image's name, or spec.pod.imagePullSecrets; the kubelet tries again by itself.",
    ),
    Reason.CONTAINER_CANNOT_START: Explanation(
        "The container can't be started on the node.", "The message is the kubelet's."
    ),
    Reason.INSUFFICIENT_GPU: Explanation(
        "No node has a free GPU of the kind that the pod asks for.",
        "Free one, add a node, or set spec.rollout.onNoCapacity: shrinkStable or recreate.",
    ),
    Reason.UNSCHEDULABLE: Explanation(
        "No node fits: resources, selector, affinity or taints.",
        "The message is the scheduler's; change spec.resources or spec.pod.",
    ),
    Reason.QUOTA_EXCEEDED: Explanation(
        "The namespace's ResourceQuota leaves no room for the pods.", "Raise the quota or lower spec.resources."
    ),
    Reason.PODS_REFUSED: Explanation(
        "The API server refuses the pods: Pod Security, a missing ServiceAccount, a LimitRange or a webhook.",
        "The message is the server's.",
    ),
    Reason.PROGRESS_DEADLINE_EXCEEDED: Explanation(
        "The new revision was not ready within rollout.progressDeadlineSeconds. The old one keeps serving.",
        "See RuntimeAvailable; go back by naming the old version, or correct the cause.",
    ),
    Reason.AUTOSCALER_WITHOUT_METRICS: Explanation(
        "The autoscaler gets no metrics, so the number of pods stays as it is.",
        "Install metrics-server, or the adapter of the metric that the message names.",
    ),
    Reason.AUTOSCALER_FAILED: Explanation(
        "The autoscaler can't work; the message is its own.", "Correct spec.autoscaling."
    ),
    Reason.VERSION_RESOLVED: Explanation("Event: the registry names another version than before.", _WAIT),
    Reason.ROLLED_BACK: Explanation(
        "The wanted version was tried and put back; stable answers everything. The message and `status.history` say why.",
        "Move the alias to a better version or change the spec; or tell it to `retry`, if the cause has gone.",
    ),
    Reason.CANARY_LOST: Explanation(
        "A canary that had requests lost all of its ready pods, and was put back.", "See the message, then `retry`."
    ),
    Reason.CANARY_CRASHES: Explanation("A canary that had requests kept crashing, and was put back.", _LOGS),
    Reason.ANALYSIS_FAILED: Explanation(
        "A guard of the rollout's analysis showed that the canary is worse than stable, and it was put back.",
        "Read `status.analysis`: what was seen, and how sure it is.",
    ),
    Reason.INCONCLUSIVE: Explanation(
        "A canary that could not be judged within rollout.analysis.timeoutSeconds was put back, or went on all the same (onInconclusive).",
        "Send it more traffic, ask for fewer requests, or set onInconclusive; `retry` what was put back.",
    ),
    Reason.SIGNATURE_INCOMPATIBLE: Explanation(
        "Callers of the stable version can't use the new one, by its MLflow signature; it was put back before its first request.",
        "Register a version with the old signature, or set spec.rollout.signature: any if all callers are ready for the new one.",
    ),
    Reason.SAMPLE_RATIO_MISMATCH: Explanation(
        "The requests are not divided as the routers or the Gateways say; the rollout stays where it is.",
        "Abort it, or look what is between callers and router, or for another HTTPRoute that the Gateway prefers, and say resume.",
    ),
    Reason.REVISION_CREATED: Explanation("Event: a revision was made and its pods are starting.", _WAIT),
    Reason.REVISION_RETIRED: Explanation("Event: a revision's pods end.", _WAIT),
    Reason.DRIFT_REPAIRED: Explanation(
        "Event: a child was changed by somebody else and was put back.", "Change the ModelDeployment instead."
    ),
    Reason.FIELD_CONFLICT: Explanation(
        "Somebody changes or deletes a child again and again. After three times in ten minutes a change is put back every two "
        "minutes only, until that stops; what is wanted anew is written at once, and what is deleted is made again.",
        "Let the field managers in the message leave those fields alone, or change the ModelDeployment instead. "
        "Where it names none, somebody deletes the child, or an admission webhook changes it.",
    ),
    Reason.WEIGHT_SET: Explanation("Event: the canary, or an arm, gets another share of the requests.", _WAIT),
    Reason.ROUTES_SET: Explanation(
        "Event: requests with a certain header or cookie get the canary, or do so no more.", _WAIT
    ),
    Reason.ARM_IN_TROUBLE: Explanation(
        "Event: an arm of the experiment can't be found in the registry, or its pods can't answer; stable answers in its place.",
        "Read `status.experiment`: what is wrong with it.",
    ),
    Reason.ARM_JUDGED: Explanation(
        "Event: an arm of the experiment is shown to be better or worse than stable in one metric.",
        "Read `status.experiment`: what was seen, and how sure it is.",
    ),
    Reason.ARM_WON: Explanation(
        "Event: with experiment.winner promote, the version of an arm that is better becomes the wanted one.", _WAIT
    ),
    Reason.SIGNATURE_PASSED_OVER: Explanation(
        "Event: a canary goes on although its signature is not compatible (spec.rollout.signature is any), or could not be compared.",
        "Nothing, if its callers know.",
    ),
    Reason.MADE_ROOM: Explanation(
        "Event: stable gives up pods, because those of a new version find no room beside them (spec.rollout.onNoCapacity).",
        "Nothing; with `recreate` nobody is answered until the new version's pods are ready.",
    ),
    Reason.ALIAS_MOVED_BACK: Explanation(
        "Event: a version was put back, and the alias in MLflow names stable's version again.",
        "To try it again, let the alias name it again.",
    ),
    Reason.ALIAS_NOT_MOVED: Explanation(
        "Event: a version was put back, and the registry does not let the alias be moved.",
        "Give the operator's user in MLflow EDIT on the model, or leave out spec.rollout.rollback.moveAliasBack.",
    ),
    Reason.REGISTRY_NOT_TOLD: Explanation(
        "Event: the registry refuses the tags that say how a rollout ended. Nothing else depends on them.",
        "Give the operator's user in MLflow EDIT on the model, or set `registries[].readOnly` in the chart's values.",
    ),
    Reason.ABORTED: Explanation("Event: somebody ended a rollout, or went back to the stable version.", _WAIT),
    Reason.SUPERSEDED: Explanation("Event: another version became the wanted one during a rollout.", _WAIT),
    Reason.COMMAND_DONE: Explanation(
        "Event: the command in the annotation `moorage.dev/command` was carried out.", _WAIT
    ),
    Reason.COMMAND_REFUSED: Explanation(
        "Event: the command in the annotation `moorage.dev/command` means nothing now; the message says why.",
        "Write it as the message says.",
    ),
}

STILL_WAITING = frozenset(
    {
        Reason.INSUFFICIENT_GPU,
        Reason.UNSCHEDULABLE,
        Reason.QUOTA_EXCEEDED,
        Reason.REGISTRY_UNREACHABLE,
        Reason.ROUTER_UNREACHABLE,
        Reason.ROUTER_UNAVAILABLE,
        Reason.GATEWAY_PENDING,
        Reason.GATEWAY_REFUSED,
    }
)
"""Problems that may end without anybody's action (a node is added, a registry comes back): not stalled before the deadline."""
