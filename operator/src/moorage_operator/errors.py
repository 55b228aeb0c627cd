"""The operator's own errors. Adapters raise them, always `from` the library's; only the edge translates further.

OperatorError
├── ClusterError             what the API server answered to one call
│   ├── AlreadyExists        409 on create: the name is taken
│   ├── Conflict             409: a precondition (uid, resourceVersion) does not hold any more
│   ├── Expired              410: what happened since that resource version is forgotten, list anew
│   ├── Forbidden            401, 403: RBAC, admission policy or quota says no
│   ├── Invalid              400, 404 on write, 422: this object can't be stored as it is
│   ├── NamespaceTerminating 403, 404: the namespace is being deleted or gone, nothing can be made in it any more
│   ├── Throttled            429: slow down, with the server's `retry_after` seconds
│   └── Unreachable          5xx, refused, reset, timed out: try again later
├── AgentUnreachable         the agent of one router did not answer as it should
├── RuntimeUnreachable       a model pod did not tell its metrics
├── QueryFailed              Prometheus gave no number
├── LeadershipLost           this process may not write any more
├── RouterError              the router's agent can't do what is wanted; HAProxy goes on with what it has
│   ├── CommandRefused       HAProxy took a command and said no
│   ├── ConfigRefused        HAProxy can't use a configuration that was made for it
│   ├── HaproxySilent        HAProxy does not answer on its socket, or not in time
│   └── TableRefused         router.json is not what it has to be
└── RegistryError            what MLflow answered to one question; `reason` is the condition's reason
    ├── ModelNotFound
    ├── VersionNotFound
    ├── AliasNotFound
    ├── VersionNotReady      the version exists, its registration is pending or has failed
    ├── SourceRefused        its artifacts lie where no registry may send a pod
    ├── RegistryUnauthorized
    └── RegistryUnreachable  the question stays open: nothing follows from it about the model
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of all that this package raises on purpose."""


class ClusterError(OperatorError):
    """The API server refused one call; the message is safe to show (it never holds a payload or a credential)."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class AlreadyExists(ClusterError):
    pass


class Conflict(ClusterError):
    pass


class Expired(ClusterError):
    pass


class Forbidden(ClusterError):
    pass


class Invalid(ClusterError):
    pass


class NamespaceTerminating(ClusterError):
    pass


class Throttled(ClusterError):
    pass


class Unreachable(ClusterError):
    pass


class AgentUnreachable(OperatorError):
    """The message follows the name of the pod."""


class RuntimeUnreachable(OperatorError):
    """The message follows the name of the pod."""


class QueryFailed(OperatorError):
    """The message says why, to whoever wrote the query."""


class LeadershipLost(OperatorError):
    pass


class RouterError(OperatorError):
    """The message is shown in the agent's state and log, and holds no request's content."""


class CommandRefused(RouterError):
    pass


class ConfigRefused(RouterError):
    pass


class HaproxySilent(RouterError):
    pass


class TableRefused(RouterError):
    pass


class RegistryError(OperatorError):
    """MLflow can't answer, or answers no; the message tells the user what to do and holds no credential."""

    reason = "RegistryError"


class ModelNotFound(RegistryError):
    reason = "ModelNotFound"


class VersionNotFound(RegistryError):
    reason = "VersionNotFound"


class AliasNotFound(RegistryError):
    reason = "AliasNotFound"


class VersionNotReady(RegistryError):
    reason = "VersionNotReady"


class SourceRefused(RegistryError):
    reason = "SourceRefused"


class RegistryUnauthorized(RegistryError):
    reason = "RegistryUnauthorized"


class RegistryUnreachable(RegistryError):
    reason = "RegistryUnreachable"
