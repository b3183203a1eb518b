"""Certificate paths from evidence to a root that the verifier was given by name. Bounded, no search, no fetching.

The path is told in order, the evidence's own certificate first; what is checked is issuer and subject, signature, time,
CA and path length, key usage, and that no critical extension is unknown. Revocation is not: whoever runs the verifier
leaves roots out, or names the devices that it trusts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from bus.codes import Code
from bus.errors import Unverified, WireError

MAX_CERTIFICATE: Final = 4096
MAX_PATH: Final = 6
_KNOWN: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}

Roots = Mapping[str, x509.Certificate]
"""Roots by the name that the operator gives them."""


def read_certificate(der: bytes, what: str) -> x509.Certificate:
    """The certificate in ``der``, its extensions read. Raises WireError: bounds, decode."""
    if not 1 <= len(der) <= MAX_CERTIFICATE:
        raise WireError(f"{what}: {len(der)} bytes, expected 1 to {MAX_CERTIFICATE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Everything that later steps look at is parsed here, where a failure is a refusal.
        _ = certificate.extensions, certificate.issuer, certificate.subject, certificate.public_key()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception:  # the library's errors have no root of their own; whatever it dislikes is refused
        raise WireError(f"{what}: no certificate that can be read", code=Code.DECODE) from None
    return certificate


def check_chain(path: Sequence[x509.Certificate], roots: Roots, now: datetime, what: str) -> str:
    """The name of the root that issued the last of ``path``. Raises Unverified: chain, validity."""
    if not 1 <= len(path) <= MAX_PATH:
        raise Unverified(f"{what}: {len(path)} certificates, expected 1 to {MAX_PATH}", step="chain")
    issuers = [each for each in roots if roots[each].subject == path[-1].issuer and _signed(path[-1], roots[each])]
    if not issuers:
        raise Unverified(f"{what}: no root that is trusted issued its chain", step="chain")
    root = roots[issuers[0]]
    whole = [*path, root]
    for below, (certificate, issuer) in enumerate(zip(whole, [*whole[1:], root], strict=True)):
        if certificate.issuer != issuer.subject or not _signed(certificate, issuer):
            raise Unverified(f"{what}: certificate {below} is not issued by the next", step="chain")
        _check_authority(issuer, min(below, len(path) - 1), what)
        if any(each.critical and each.oid not in _KNOWN for each in certificate.extensions):
            raise Unverified(f"{what}: certificate {below} has a critical extension that is unknown", step="chain")
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Unverified(f"{what}: certificate {below} is not valid at this time", step="validity")
    return issuers[0]


def _check_authority(issuer: x509.Certificate, below: int, what: str) -> None:
    """``issuer`` may issue certificates with ``below`` authorities under it."""
    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise Unverified(f"{what}: an issuer is no authority", step="chain") from None
    if not limits.ca or (limits.path_length is not None and limits.path_length < below):
        raise Unverified(f"{what}: an issuer may not issue this", step="chain")
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise Unverified(f"{what}: an issuer's key may not sign certificates", step="chain")


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
