"""The programs built from Go modules: once per version, outside the repository, shared by all clusters and checkouts.

A folder `<name>-<version>` under `paths.binaries()` is complete or absent: a build happens beside it and is renamed into place.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess

from devcluster import console, locks, paths, versions


@dataclasses.dataclass(frozen=True)
class Tool:
    name: str
    version: str
    source: str  # a package with its version for `go install`, or a folder under hack/node
    stamps: tuple[tuple[str, str], ...] = ()  # Go variables set by the linker: without them programs report v0.0.0
    links: tuple[str, ...] = ()  # other names of the same binary
    package: str = "."  # of the folder's module: its own, or one that it requires, whose `replace` lines it must repeat

    @property
    def folder(self) -> pathlib.Path:
        return paths.binaries() / f"{self.name}-{self.version}"

    @property
    def binary(self) -> pathlib.Path:
        return self.folder / self.name


_MAJOR, _MINOR, _ = versions.KUBERNETES.split(".")

KUBERNETES = Tool(
    name="hyperkube",
    version=versions.KUBERNETES,
    source="hyperkube",
    stamps=tuple(
        (f"{package}.{variable}", value)
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in (
            ("gitVersion", f"v{versions.KUBERNETES}"),
            ("gitMajor", _MAJOR),
            ("gitMinor", _MINOR),
            ("gitTreeState", "clean"),
        )
    ),
    links=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
)
HELM = Tool(
    name="helm",
    version=versions.HELM,
    source=f"helm.sh/helm/v3/cmd/helm@v{versions.HELM}",
    stamps=(
        ("helm.sh/helm/v3/internal/version.version", f"v{versions.HELM}"),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor", _MAJOR),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", _MINOR),
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor", _MAJOR),
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", _MINOR),
    ),
)
COREDNS = Tool("coredns", versions.COREDNS, f"github.com/coredns/coredns@v{versions.COREDNS}")
METRICS_SERVER = Tool(
    name="metrics-server",
    version=versions.METRICS_SERVER,
    source=f"sigs.k8s.io/metrics-server/cmd/metrics-server@v{versions.METRICS_SERVER}",
    stamps=(("k8s.io/client-go/pkg/version.gitVersion", f"v{versions.METRICS_SERVER}"),),
)
KWOK = Tool(
    name="kwok",
    version=versions.KWOK,
    source=f"sigs.k8s.io/kwok/cmd/kwok@v{versions.KWOK}",
    stamps=(("sigs.k8s.io/kwok/pkg/consts.Version", f"v{versions.KWOK}"),),
)
TRAEFIK = Tool(
    name="traefik",
    version=versions.TRAEFIK,
    source="traefik",
    stamps=(("github.com/traefik/traefik/v3/pkg/version.Version", versions.TRAEFIK),),
    package="github.com/traefik/traefik/v3/cmd/traefik",
)
PAUSE = Tool("pause", "1", "pause")
NODE = (KUBERNETES, HELM, COREDNS, METRICS_SERVER, PAUSE)


def built(*wanted: Tool) -> bool:
    return all(tool.binary.exists() for tool in wanted)


def absent_clients() -> tuple[Tool, ...]:
    """What brings kubectl and helm where PATH has none."""
    return tuple(tool for tool, client in ((KUBERNETES, "kubectl"), (HELM, "helm")) if shutil.which(client) is None)


def ensure(*wanted: Tool) -> None:
    """Build what is not built yet, one after the other: the Go compiler uses every core by itself."""
    if built(*wanted):
        return
    with locks.held(paths.binaries() / ".lock", "another build"):
        for tool in wanted:
            if not tool.binary.exists():
                _require_go()
                _build(tool)


def _require_go() -> None:
    if shutil.which("go") is None:
        raise console.Failure(
            f"Go {versions.GO} or newer is needed to build the cluster's programs: https://go.dev/doc/install"
        )


def _build(tool: Tool) -> None:
    scratch = tool.folder.with_name(tool.folder.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    flags = " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in tool.stamps)])
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(scratch)}
    log = tool.folder.with_name(tool.folder.name + ".log")
    with console.step(f"build {tool.name} {tool.version} (once)"), log.open("w") as output:
        done = subprocess.run(
            [
                "go",
                "install",
                "-trimpath",
                "-buildvcs=false",
                "-gcflags=all=-dwarf=false",  # `-s -w` would throw it away
                "-ldflags",
                flags,
                tool.source if "@" in tool.source else tool.package,
            ],
            cwd=None if "@" in tool.source else paths.NODE_SOURCES / tool.source,
            env=environment,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode != 0:
        raise console.Failure(
            f"Building {tool.name} {tool.version} failed; the whole log is {log}:\n{console.last_lines(log.read_text())}"
        )
    for link in tool.links:
        (scratch / link).symlink_to(tool.name)
    scratch.rename(tool.folder)
    log.unlink()


def search_path(*used: Tool) -> str:
    """PATH with these tools first."""
    return os.pathsep.join([*(str(tool.folder) for tool in used), os.environ.get("PATH", os.defpath)])
