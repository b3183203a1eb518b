"""Client certificates for the broker's agents' listener: the CA's files, the services' and the local agents' own.

Outside development every client shows one. With an authority agents show the certificate that they enrolled for;
without, the issuer writes ``client.pem`` (key and certificate, 0600) into each agent's folder and replaces it when a
third of its life is left. Kafka does not tie a certificate to who authenticates over it: it says who may knock, the
token or password says who comes in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from bus.authority.ca import CERTIFICATE_MS, AgentCa, ClientCertificate, life_of, make_ca
from bus.errors import Refused
from bus.files import Layout, make_folder, read_secret, write_file, write_secret

SERVICE_MS: Final = 90 * 86_400_000
"""Services read theirs when they start, and `bus stack up` renews it."""
LEFT: Final = 3
"""A certificate is replaced when this part of its life is left."""
KEY: Final = "clients"

log = logging.getLogger("bus.authority")


def ensure_clients_ca(layout: Layout, deployment: bytes, now_ms: int) -> AgentCa:
    """The CA of client certificates, made where missing: the authority's where there is one."""
    own, certificate = layout.signer(KEY), layout.clients_ca
    theirs = layout.state / "authority"
    if (theirs / "ca.key").exists():
        key, pem = read_secret(theirs / "ca.key"), (theirs / "ca.pem").read_bytes()
    elif own.exists():
        key, pem = read_secret(own), certificate.read_bytes()
    else:
        key, pem = make_ca(deployment, now_ms)
        make_folder(own.parent)
        make_folder(certificate.parent, 0o711)
        write_file(certificate, pem)
        write_secret(own, key)
    if not certificate.exists() or certificate.read_bytes() != pem:
        make_folder(certificate.parent, 0o711)
        write_file(certificate, pem)
    return AgentCa(key, pem, deployment)


def ensure_service_certificates(layout: Layout, ca: AgentCa, services: Iterable[str], now_ms: int) -> None:
    """Each service's certificate, where it is missing, another CA's or in its last third."""
    for name in services:
        path = layout.certificate(name)
        if _due(path, ca, now_ms) <= now_ms:
            _write(path, ca.own("service", name, now_ms, SERVICE_MS), None)


class CertificateIssuer:
    """Writes what agents are due. Not for two processes at once."""

    def __init__(self, layout: Layout, deployment: bytes, owners: Mapping[str, int], now_ms: int) -> None:
        self._layout = layout
        self._owners = owners
        self._ca = ensure_clients_ca(layout, deployment, now_ms)
        self._due: dict[str, int] = {}

    def step(self, agents: Iterable[str], now_ms: int) -> int:
        """Bring the certificates of ``agents`` up to ``now_ms``; returns when (ms since 1970) one is due next."""
        wanted = sorted(agents)
        for name in wanted:
            path = self._layout.certificate(name)
            due = self._due.get(name)
            if due is None or not path.exists():
                due = _due(path, self._ca, now_ms)
            if not now_ms < due <= now_ms + CERTIFICATE_MS:
                _write(path, self._ca.own("agent", name, now_ms, CERTIFICATE_MS), self._owners.get(name))
                due = _due(path, self._ca, now_ms)
            self._due[name] = due
        for path in self._layout.certificates():
            if path.parent.name not in wanted:
                path.unlink(missing_ok=True)
                self._due.pop(path.parent.name, None)
                log.info("%s: no client certificate any more", path.parent.name)
        return min(self._due.values(), default=now_ms + CERTIFICATE_MS)


def _write(path: Path, made: tuple[bytes, ClientCertificate], owner: int | None) -> None:
    key, certificate = made
    make_folder(path.parent, owner=owner)
    write_secret(path, key + certificate.pem, owner)


def _due(path: Path, ca: AgentCa, now_ms: int) -> int:
    """When (ms since 1970) the certificate in ``path`` is to be replaced: now where it is missing or another CA's."""
    try:
        certificate = x509.load_pem_x509_certificate(read_secret(path))
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate_pem))
    except (OSError, ValueError, TypeError, InvalidSignature, Refused):
        return now_ms
    begin, end = life_of(certificate)
    return int(end - (end - begin) / LEFT)
