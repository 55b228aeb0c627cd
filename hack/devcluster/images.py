"""Container images of the cluster's own pods, each a single static binary: a docker-archive is a few files in a tar.

Their names say what they are: built here, not pulled.
"""

import hashlib
import io
import json
import pathlib
import platform
import tarfile

from devcluster import tools

OWN = (tools.PAUSE, tools.COREDNS, tools.METRICS_SERVER)


def name(tool: tools.Tool) -> str:
    return f"localhost/moorage-{tool.name}:{tool.version}"


def write(tool: tools.Tool, archive: pathlib.Path) -> None:
    """An image whose only file is the tool's binary, run as root: CoreDNS listens on port 53."""
    layer = _layer(tool)
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{tool.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name(tool)], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for file, content in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(tar, file, content, mode=0o644)


def _layer(tool: tools.Tool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, tool.name, tool.binary.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, file: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(file)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
