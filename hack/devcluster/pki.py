"""The node's certificate authority, the certificates of its components, and the kubeconfigs made of them.

Made once per cluster and kept with its state. Only openssl is called; only files are written.
"""

import base64
import dataclasses
import json
import pathlib

from devcluster import console

DAYS = "3650"


@dataclasses.dataclass(frozen=True)
class Identity:
    name: str
    subject: str
    alternatives: tuple[str, ...] = ()
    kubeconfig: bool = False


def _identities(node: str, node_ip: str, api_service: str) -> tuple[Identity, ...]:
    service = "kubernetes.default.svc.cluster.local"
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost")
    addresses = (node_ip, "127.0.0.1", api_service)
    return (
        Identity(
            "apiserver", "/CN=kube-apiserver", (*(f"IP:{ip}" for ip in addresses), *(f"DNS:{name}" for name in names))
        ),
        Identity("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        Identity("front-proxy-client", "/CN=front-proxy-client"),
        Identity("admin", "/O=system:masters/CN=admin", kubeconfig=True),
        Identity("controller-manager", "/CN=system:kube-controller-manager", kubeconfig=True),
        Identity("scheduler", "/CN=system:kube-scheduler", kubeconfig=True),
        Identity(
            "kubelet", f"/O=system:nodes/CN=system:node:{node}", (f"IP:{node_ip}", f"DNS:{node}"), kubeconfig=True
        ),
        Identity("proxy", "/CN=system:kube-proxy", kubeconfig=True),
    )


def create(folder: pathlib.Path, *, node: str, node_ip: str, api_service: str) -> None:
    """Everything, or nothing when it is complete already: the service accounts' key is written last."""
    if (folder / "sa.key").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _openssl(
        "req",
        "-x509",
        *_new_key(folder / "ca.key"),
        "-days",
        DAYS,
        "-subj",
        "/CN=kubernetes-ca",
        "-out",
        str(folder / "ca.crt"),
    )
    for identity in _identities(node, node_ip, api_service):
        _certify(folder, identity)
        if identity.kubeconfig:
            _write_kubeconfig(folder, identity.name, node, node_ip)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(folder / "sa.key"))


def _openssl(*arguments: str) -> None:
    console.run(["openssl", *arguments])


def _new_key(path: pathlib.Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path))


def _certify(folder: pathlib.Path, identity: Identity) -> None:
    base = folder / identity.name
    request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
    lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if identity.alternatives:
        lines.append("subjectAltName=" + ",".join(identity.alternatives))
    extensions.write_text("\n".join(lines) + "\n")
    _openssl("req", *_new_key(base.with_suffix(".key")), "-subj", identity.subject, "-out", str(request))
    authority = ("-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial")
    _openssl(
        *("x509", "-req", "-in", str(request), *authority, "-days", DAYS),
        *("-extfile", str(extensions), "-out", str(base.with_suffix(".crt"))),
    )
    request.unlink()
    extensions.unlink()


def _write_kubeconfig(folder: pathlib.Path, name: str, cluster: str, node_ip: str) -> None:
    def encoded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": f"https://{node_ip}:6443", "certificate-authority-data": encoded("ca.crt")},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": encoded(f"{name}.crt"),
                    "client-key-data": encoded(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": name}}],
        "current-context": cluster,
    }
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
