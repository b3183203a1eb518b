"""A software TPM whose endorsement certificate a local CA issued: stands in for a TPM and its maker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

TOOLS = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2_quote")


def missing() -> str:
    """Why there is no software TPM here; "" where there is one."""
    lacking = [each for each in TOOLS if not shutil.which(each)]
    return f"not installed: {', '.join(lacking)} (make test-attestation)" if lacking else ""


@dataclass(frozen=True)
class SoftwareTpm:
    """``tcti`` for tpm2-tools; the CA's certificates, the issuing one as DER."""

    folder: Path
    tcti: str
    root: x509.Certificate
    intermediate: bytes


def two_ports() -> int:
    """A free port whose successor is free, too: tpm2-tss looks for the control channel there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def software_tpm(folder: Path) -> Iterator[SoftwareTpm]:
    ca, state, files = (folder / each for each in ("ca", "state", "files"))
    for each in (ca, state, files):
        each.mkdir(parents=True, mode=0o700)
    (folder / "ca.conf").write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\ncertserial = {ca}/serial\n"
    )
    (folder / "ca.options").write_text("--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
    (folder / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\ncreate_certs_tool_config = {folder}/ca.conf\n"
        f"create_certs_tool_options = {folder}/ca.options\n"
    )
    subprocess.run(
        [
            *("swtpm_setup", "--tpm2", "--tpmstate", state, "--createek", "--create-ek-cert", "--overwrite"),
            *("--config", folder / "setup.conf"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    port, pid = two_ports(), folder / "pid"
    subprocess.run(
        [
            *("swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", f"dir={state}", "--pid", f"file={pid}"),
            *("--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}"),
            *("--flags", "not-need-init,startup-clear"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    try:
        issuer = x509.load_pem_x509_certificate((ca / "issuercert.pem").read_bytes())
        root = x509.load_pem_x509_certificate((ca / "swtpm-localca-rootca-cert.pem").read_bytes())
        yield SoftwareTpm(files, f"swtpm:host=127.0.0.1,port={port}", root, issuer.public_bytes(Encoding.DER))
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
