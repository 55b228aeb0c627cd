"""Where a model's artifacts may lie: the answer of a registry decides what a pod with credentials will fetch.

Everything that is not listed is refused: local paths (a pod has none to share with MLflow's server), `dbfs` and
`hdfs` (their clients are not in the runtime's image), web addresses other than the registry's own.
"""

from __future__ import annotations

from urllib.parse import SplitResult, quote, unquote, urlsplit

from moorage_operator import errors
from moorage_operator.adapters.registry import wording

STORES = frozenset({"s3", "gs", "abfs", "abfss", "wasbs"})
"""Object stores, which the pod reads with its own credentials."""

OWN = frozenset({"models", "mlflow-artifacts", "http", "https"})
"""What is read through the registry's own server, and no other."""

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
"""Where MLflow's server hands out the artifacts that it keeps for its clients."""

MAX_LENGTH = 2048


def checked(uri: str, *, model: str, tracking_uri: str) -> str:
    """`uri` itself, if a pod may be sent there, else `SourceRefused`."""
    problem = _problem(uri, urlsplit(tracking_uri))
    if problem:
        raise errors.SourceRefused(f"the artifacts of model {model} {problem}")
    return uri


def proxied(uri: str, *, tracking_uri: str) -> str | None:
    """The endpoint of the registry's own server that has what lies at this address, which is checked; None if no endpoint has."""
    parts = urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        return f"{PROXY}/{quote(parts.path.strip('/'))}"
    own = urlsplit(tracking_uri).path.rstrip("/")
    if parts.scheme in {"http", "https"} and parts.path.startswith(f"{own}{PROXY}/"):
        return parts.path.removeprefix(own).rstrip("/")
    return None


def _problem(uri: str, tracking: SplitResult) -> str:
    if not uri or len(uri) > MAX_LENGTH or not uri.isprintable() or "\\" in uri:
        return "have no usable address: register the version again"
    try:
        parts = urlsplit(uri)
        own = _is_own(parts, tracking)
    except ValueError:
        return "have an address that is not a URI: register the version again"
    if parts.scheme in {"", "file"}:
        return (
            "lie in a local path of the MLflow server, where no pod can read them: start it with --serve-artifacts"
            " and --artifacts-destination, then log and register the model again"
        )
    if parts.scheme not in STORES | OWN:
        allowed = ", ".join(sorted(STORES | OWN))
        return f"lie in '{wording.shown(parts.scheme)}:', which is not supported; supported are {allowed}"
    if parts.scheme in OWN and not own:
        return "lie on another host than their registry's own, where no pod is sent: copy them into an object store"
    if ":" in parts.netloc.rpartition("@")[0] or parts.query or parts.fragment:
        return "have an address with a credential or a query in it: register the version with a plain one"
    if ".." in unquote(unquote(parts.path)).split("/"):
        return "have an address with '..' in it: register the version with a plain one"
    return ""


def _is_own(parts: SplitResult, tracking: SplitResult) -> bool:
    """Does a client that is configured with `tracking` ask that very server for it?"""
    if not parts.netloc and parts.scheme in {"models", "mlflow-artifacts"}:
        return True
    if parts.scheme in {"http", "https"}:
        return _origin(parts) == _origin(tracking) and "@" not in parts.netloc
    return parts.scheme == "mlflow-artifacts" and parts.netloc.lower() == tracking.netloc.lower()


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
