"""Certificates that sign themselves: each is its own authority."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make(folder: Path, name: str, *alternatives: str) -> tuple[Path, Path]:
    """The certificate and its key. Alternatives are as openssl writes them: `DNS:localhost`, `IP:127.0.0.1`."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=" + ",".join(alternatives)]
    subprocess.run([*made, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key
