"""A Gateway API that works: its CRDs, and Traefik as GatewayClass `traefik` in a namespace of its own. For tests, on any cluster."""

import json
import pathlib

from devcluster import console, kube, paths, providers, tools, versions

PUBLIC_IMAGE = f"docker.io/traefik:v{versions.TRAEFIK}"
NAMESPACE = "moorage-traefik"
MODULE = "sigs.k8s.io/gateway-api"
KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants", "backendtlspolicies")
"""Of the standard channel: what Traefik watches."""
READY_SECONDS = 180


def install(cluster: providers.Cluster) -> None:
    """Whatever of it is there already; returns when it is of use."""
    image = cluster.own_image(tools.TRAEFIK, public=PUBLIC_IMAGE)
    client = kube.Kube(cluster.kubeconfig(), tools.search_path(*cluster.clients()))
    with console.step("apply the Gateway API's CRDs"):
        _apply_crds(client)
    client.apply("traefik.yaml", {"traefik_image": image})
    with console.step("wait for Traefik"):
        within = f"--timeout={READY_SECONDS}s"
        client.kubectl("rollout", "status", "deployment/traefik", f"--namespace={NAMESPACE}", within)
        client.kubectl("wait", "gatewayclass/traefik", "--for=condition=Accepted", within)


def _apply_crds(client: kube.Kube) -> None:
    """Not by force: a cluster of the user's may have others in use, which are not ours to replace."""
    client.kubectl("apply", "--server-side", f"--field-manager={kube.MANAGER}", f"--filename={_crds()}")
    names = [f"crd/{kind}.gateway.networking.k8s.io" for kind in KINDS]
    client.kubectl("wait", *names, "--for=condition=Established", "--timeout=60s")


def _crds() -> pathlib.Path:
    """From their Go module, at the version that Traefik requires."""
    kept = paths.binaries() / f"gateway-api-{versions.TRAEFIK}.yaml"
    if not kept.exists():
        told = console.run(["go", "mod", "download", "-json", MODULE], cwd=paths.NODE_SOURCES / tools.TRAEFIK.source)
        folder = pathlib.Path(json.loads(told)["Dir"]) / "config/crd/standard"
        texts = [(folder / f"gateway.networking.k8s.io_{kind}.yaml").read_text() for kind in KINDS]
        kept.parent.mkdir(parents=True, exist_ok=True)
        begun = kept.with_suffix(".tmp")
        begun.write_text("\n---\n".join(texts))
        begun.replace(kept)
    return kept
