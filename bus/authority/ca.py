"""The agents' CA: short-lived client certificates that say which agent, in which deployment, and nothing else.

ECDSA P-256; the name is a URI in the subject alternative name, ``spiffe://<deployment>/agent/<id>`` (SPIFFE ID), and is
read from there alone. Services have ``…/service/<name>``, for the broker only: the authority answers agents. Whether an
agent gets one is ``bus.authority.register``'s to say. Pure but for keys and serials.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus.codes import Code
from bus.errors import Refused, Unverified
from bus.wire.names import AgentId, is_lower_name

CERTIFICATE_MS: Final = 24 * 3_600_000
CA_MS: Final = 10 * 365 * 86_400_000
BACKDATED_MS: Final = 60_000
"""For clocks that are a little behind."""
MAX_REQUEST: Final = 8 * 1024
"""Bytes of a certificate request."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """An agent's certificate in PEM, and its serial number in hex."""

    pem: bytes
    serial: str
    not_after: int


class AgentCa:
    """Issues certificates of one deployment (16 bytes) under one key."""

    def __init__(self, key_pem: bytes, certificate_pem: bytes, deployment: bytes) -> None:
        key = serialization.load_pem_private_key(key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Refused("agent CA: expected an ECDSA key", code=Code.CREDENTIAL)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(certificate_pem)
        self._deployment = deployment
        self.certificate_pem = certificate_pem

    def __repr__(self) -> str:
        return f"AgentCa({self._deployment.hex()})"

    def issue(self, request_pem: bytes, agent: AgentId, now_ms: int) -> ClientCertificate:
        """A certificate for the key in ``request_pem``; what else the request asks for is ignored.

        Raises Refused(credential) for what is no request signed by its own P-256 key.
        """
        return self._sign(_requested_key(request_pem), agent, "agent", now_ms, now_ms + CERTIFICATE_MS)

    def own(self, kind: str, name: str, now_ms: int, life_ms: int) -> tuple[bytes, ClientCertificate]:
        """A new private key (PEM) and its certificate for the ``kind`` ("agent", "service") called ``name``."""
        key = ec.generate_private_key(ec.SECP256R1())
        return private_pem(key), self._sign(key.public_key(), name, kind, now_ms, now_ms + life_ms)

    def _sign(self, key: ec.EllipticCurvePublicKey, name: str, kind: str, now_ms: int, until: int) -> ClientCertificate:
        uri = _uri(self._deployment, name, kind)
        certificate = (
            _builder(name, self._certificate.subject, key, now_ms, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return ClientCertificate(pem, f"{certificate.serial_number:x}", until)


def make_ca(deployment: bytes, now_ms: int) -> tuple[bytes, bytes]:
    """A new CA: its private key and its certificate, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"sealbus agents {deployment.hex()[:12]}")])
    certificate = (
        _builder("", name, key.public_key(), now_ms, now_ms + CA_MS, subject=name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def make_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate request (PKCS#10, PEM) for ``key``: it proves possession, the authority says the name."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """``key`` as PKCS#8 PEM, for a 0600 file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certified_agent(pem: bytes, deployment: bytes) -> tuple[AgentId, str]:
    """The agent and the serial number (hex) in a certificate whose chain was verified.

    Raises Unverified(certificate) where it is not one of this deployment's agents.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Unverified(f"certificate: {type(error).__name__}", step="certificate") from None
    prefix = _uri(deployment, "")
    if len(uris) != 1 or len(list(names)) != 1 or not uris[0].startswith(prefix):
        raise Unverified("certificate: expected one name, an agent of this deployment", step="certificate")
    agent = uris[0][len(prefix) :]
    if not is_lower_name(agent):
        raise Unverified("certificate: not an agent's name", step="certificate")
    return AgentId(agent), f"{certificate.serial_number:x}"


def life_of(certificate: x509.Certificate) -> tuple[int, int]:
    """Begin and end of a certificate (ms since 1970)."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


def certified_key(pem: bytes) -> bytes:
    """The key (SubjectPublicKeyInfo, DER) in a certificate that ``certified_agent`` read."""
    return _der(x509.load_pem_x509_certificate(pem).public_key())


def requested_key(request_pem: bytes) -> bytes:
    """The key (SubjectPublicKeyInfo, DER) in a request. Raises Refused(credential) as ``AgentCa.issue``."""
    return _der(_requested_key(request_pem))


def _der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _uri(deployment: bytes, name: str, kind: str = "agent") -> str:
    return f"spiffe://{deployment.hex()}/{kind}/{name}"


def _requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    if len(request_pem) > MAX_REQUEST:
        raise Refused(f"request: expected at most {MAX_REQUEST} bytes, found {len(request_pem)}", code=Code.CREDENTIAL)
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key, valid = request.public_key(), request.is_signature_valid
    except (ValueError, InvalidSignature, TypeError) as error:
        raise Refused(f"request: expected PKCS#10 in PEM: {type(error).__name__}", code=Code.CREDENTIAL) from None
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise Refused("request: expected one signed by its own P-256 key", code=Code.CREDENTIAL)
    return key


def _builder(
    common: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin_ms: int,
    end_ms: int,
    *,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp((begin_ms - BACKDATED_MS) / 1000, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(end_ms / 1000, dt.UTC))
    )
