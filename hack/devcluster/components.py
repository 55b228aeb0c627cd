"""The command line of each program that makes the node, as the supervisor starts it inside the namespaces.

Paths are the ones inside: /run/node is the cluster's state, /run/tools the built programs.
"""

import dataclasses

from devcluster import images, network, settings, tools

PKI = "/run/node/pki"
ETCD = "http://127.0.0.1:2379"
Command = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Component:
    name: str
    command: Command


def first(cluster: settings.Settings) -> tuple[Component, ...]:
    """What starts at once."""
    return (
        Component("etcd", _etcd()),
        Component("containerd", ("containerd", "--config", "/run/node/containerd.toml")),
        Component("kube-apiserver", _apiserver(network.Block(cluster.block), audit=cluster.audit)),
    )


def after_api(cluster: settings.Settings) -> tuple[Component, ...]:
    """What exits when the API server's default roles do not exist yet."""
    return (
        Component("kube-controller-manager", _controller_manager()),
        Component("kube-scheduler", _scheduler()),
        Component("kubelet", _kubelet(cluster)),
        Component("kube-proxy", _proxy(cluster)),
    )


def names(cluster: settings.Settings) -> list[str]:
    return [component.name for component in (*first(cluster), *after_api(cluster))]


def _etcd() -> Command:
    return (
        "etcd",
        "--data-dir=/run/node/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # survives the end of the process, not of the machine: right for a disposable cluster
    )


def _apiserver(block: network.Block, *, audit: bool) -> Command:
    audit_flags = (
        "--audit-policy-file=/run/node/audit-policy.yaml",
        "--audit-log-path=/run/node/log/audit.log",
        "--audit-log-maxsize=1000",  # MB; at 100, the default, a day of tests begins a new file
    )
    return (
        "kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--advertise-address={block.node}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={PKI}/sa.key",
        f"--service-account-signing-key-file={PKI}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        f"--service-cluster-ip-range={block.services}",
        f"--requestheader-client-ca-file={PKI}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={PKI}/front-proxy-client.crt",
        f"--proxy-client-key-file={PKI}/front-proxy-client.key",
        "--allow-privileged=true",
        # etcd 3.4 cannot report its progress, so a streaming list would never say that it is complete.
        "--feature-gates=WatchList=false",
        *(audit_flags if audit else ()),
    )


def _client(name: str) -> Command:
    """The defaults of 20 to 50 requests a second bound everything at scale."""
    config = f"{PKI}/{name}.kubeconfig"
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--kube-api-qps=2000",
        "--kube-api-burst=4000",
    )


def _controller_manager() -> Command:
    return (
        "kube-controller-manager",
        *_client("controller-manager"),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={PKI}/sa.key",
        f"--root-ca-file={PKI}/ca.crt",
        # Not every 15 s: autoscaling is something to be seen here.
        "--horizontal-pod-autoscaler-sync-period=5s",
    )


def _scheduler() -> Command:
    return ("kube-scheduler", *_client("scheduler"))


def _kubelet(cluster: settings.Settings) -> Command:
    return (
        "kubelet",
        "--config=/run/node/kubelet.yaml",
        # Without, a disk that is full makes it delete the image that every pod begins with.
        f"--pod-infra-container-image={images.name(tools.PAUSE)}",
        f"--kubeconfig={PKI}/kubelet.kubeconfig",
        "--root-dir=/run/node/kubelet",
        f"--node-ip={network.Block(cluster.block).node}",
        f"--hostname-override={cluster.name}",
        "--v=1",
    )


def _proxy(cluster: settings.Settings) -> Command:
    block = network.Block(cluster.block)
    return (
        "kube-proxy",
        f"--kubeconfig={PKI}/proxy.kubeconfig",
        f"--hostname-override={cluster.name}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={block.pods}",
        f"--bind-address={block.node}",
        # The node may not write these sysctls: they belong to the host.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    )
