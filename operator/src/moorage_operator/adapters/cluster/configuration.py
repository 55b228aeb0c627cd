"""Where the API server is, and who we are. Secrets stay inside the client's configuration object and its headers."""

from __future__ import annotations

import os
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.configuration import Configuration

from moorage_operator import errors


@dataclass(frozen=True)
class Access:
    """One API server. `refresh` reads the credentials again, for a token that was rotated before it was due.

    The client itself reads a pod's projected token again once a minute.
    """

    configuration: Configuration
    refresh: Callable[[], Awaitable[None]]


async def load(kubeconfig: str = "") -> Access:
    """Access by `kubeconfig`, else by $KUBECONFIG, else by the pod's service account, else by ~/.kube/config."""
    configuration = Configuration()
    path = kubeconfig or _default_kubeconfig()

    async def refresh() -> None:
        try:
            await _read(path, configuration)
        # The client answers a file that is missing or no kubeconfig with whatever error happens to follow.
        except Exception as error:
            raise errors.Unreachable(f"{_unusable(path)} ({type(error).__name__})") from error

    await refresh()
    # `trust_env` would ask the environment again, in a thread, on each request: ask once.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
    return Access(configuration, refresh)


async def _read(path: str, configuration: Configuration) -> None:
    if path:
        await kubernetes_config.load_kube_config(
            config_file=path, client_configuration=configuration, persist_config=False
        )
    else:
        kubernetes_config.load_incluster_config(client_configuration=configuration)


def _unusable(path: str) -> str:
    if path:
        return f"the kubeconfig {path} can't be used: set KUBECONFIG to one that works"
    return "the credentials of the pod's service account can't be read: is automountServiceAccountToken off?"


def _default_kubeconfig() -> str:
    """Empty in a pod."""
    if path := os.environ.get("KUBECONFIG"):
        return path
    return "" if "KUBERNETES_SERVICE_HOST" in os.environ else str(Path("~/.kube/config").expanduser())


def _proxy_of(host: str) -> str | None:
    parts = urllib.parse.urlsplit(host)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
