"""The versions of hack/versions.env."""

from devcluster import paths


def _read() -> dict[str, str]:
    lines = (paths.HACK / "versions.env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {key: value.strip() for key, value in pairs}


_VERSIONS = _read()
KUBERNETES = _VERSIONS["KUBERNETES_VERSION"]
HELM = _VERSIONS["HELM_VERSION"]
COREDNS = _VERSIONS["COREDNS_VERSION"]
METRICS_SERVER = _VERSIONS["METRICS_SERVER_VERSION"]
KWOK = _VERSIONS["KWOK_VERSION"]
TRAEFIK = _VERSIONS["TRAEFIK_VERSION"]
GO = _VERSIONS["GO_VERSION"]
