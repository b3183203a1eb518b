"""The development CA: one self-signed root and the broker's certificate, ECDSA P-256, one year.

Renewed when less than a month is left. For development and tests; a real deployment brings its own.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus.files import make_folder, read_secret, write_file, write_secret

BROKER_NAME = "sealbus-broker"
_YEAR = dt.timedelta(days=365)
_MONTH = dt.timedelta(days=30)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _YEAR)
    )


def ensure_pki(folder: Path, names: Sequence[str] = ()) -> Path:
    """Make ca.pem, ca.key and broker.pem (key and chain) in ``folder`` where missing or ending; returns ca.pem.

    The broker's certificate is for this machine's loopback and the host ``names``.
    """
    make_folder(folder, 0o711)
    ca, broker = folder / "ca.pem", folder / "broker.pem"
    if not (ca.is_file() and broker.is_file()) or _ends_soon(ca):
        _make(folder, names)
    return ca


def _ends_soon(path: Path) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) < _MONTH


def _make(folder: Path, hosts: Sequence[str]) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = {
        "digital_signature": True,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    ca = (
        _builder("sealbus development CA", "sealbus development CA", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    dns = [x509.DNSName(host) for host in ("localhost", *hosts)]
    names = [*dns, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        _builder(BROKER_NAME, "sealbus development CA", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM) + ca.public_bytes(serialization.Encoding.PEM)
    write_secret(folder / "ca.key", _pem(ca_key))
    write_secret(folder / "broker.pem", _pem(key) + chain)
    write_file(folder / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))


def issue_server(folder: Path, name: str) -> tuple[bytes, bytes]:
    """A key and chain (PEM) for the server ``name`` on this machine, under the development CA in ``folder``."""
    key, ca = ec.generate_private_key(ec.SECP256R1()), x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key(read_secret(folder / "ca.key"), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the development CA has an ECDSA key")
    certificate = (
        _builder(name, "sealbus development CA", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = [each.public_bytes(serialization.Encoding.PEM) for each in (certificate, ca)]
    return _pem(key), b"".join(chain)
