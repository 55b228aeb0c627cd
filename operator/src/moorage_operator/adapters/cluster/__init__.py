"""All Kubernetes I/O of the operator, on the official client's asyncio half.

`connect()` opens it. `configuration` finds the API server and the credentials, `transport` makes one call and
translates its failure, `client` implements `ports.Cluster`. Nothing else in this package imports `kubernetes`.
"""

from moorage_operator.adapters.cluster.client import KubernetesCluster, connect

__all__ = ["KubernetesCluster", "connect"]
