"""AMD SEV-SNP: an attestation report that the chip's firmware signed with its VCEK (Milan and Genoa).

Evidence: report (1,184 bytes, AMD document 56860), VCEK and ASK certificates (DER), the agent's key. The report's
``report_data`` holds the binding and 32 zeros. Not supported and refused: VLEK, Turin (its TCB is laid out otherwise).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bus.attestation import evidence
from bus.attestation.chain import MAX_CERTIFICATE, Roots, check_chain, read_certificate
from bus.attestation.confirmation import MAX_KEY, read_key
from bus.attestation.evidence import Appraised, Question
from bus.errors import Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement

REPORT_LENGTH: Final = 1184
_SIGNED: Final = 0x2A0
_OID: Final = "1.3.6.1.4.1.3704.1."
_TCB_BYTES: Final = {"3.1": 0, "3.2": 1, "3.3": 6, "3.8": 7}
"""Extension of the VCEK to byte of reported_tcb: boot loader, TEE, SNP firmware, microcode."""
_PRODUCTS: Final = (b"Milan", b"Genoa")


@dataclass(frozen=True, slots=True)
class SnpReport:
    """A report whose signature and chain hold. ``tcb``: boot loader, TEE, SNP firmware, microcode."""

    version: int
    policy: int
    report_data: bytes
    measurement: bytes
    chip: bytes
    tcb: tuple[int, ...]
    root: str


@dataclass(frozen=True, slots=True)
class SnpVerifier:
    """``roots``: AMD's root certificates (ARK) of the products that are trusted, by name."""

    roots: Roots

    def appraise(self, data: bytes, question: Question, accepted: frozenset[Measurement], now: datetime) -> Appraised:
        """As ``Verifier.appraise``; steps in their order."""
        # 1. Sizes, framing, the agent's key.
        evidence.check_nonce(question)
        limits = (REPORT_LENGTH, MAX_CERTIFICATE, MAX_CERTIFICATE, MAX_KEY)
        report, vcek, ask, confirmation = evidence.unpack(EvidenceKind.SNP, data, limits)
        read_key(confirmation)
        # 2. The report: chain to a root, signature, the chip and TCB that the certificate names, no debug mode.
        found = read_report(report, vcek, ask, self.roots, now)
        # 3. Made for this question, this agent and its key.
        evidence.check_binding(found.report_data, question.binding(confirmation) + bytes(32), "SNP report")
        # 4. What was launched is accepted.
        measured = evidence.check_accepted(Measurement(EvidenceKind.SNP, 0, found.measurement), accepted)
        facts: dict[str, str | int] = {
            "version": found.version,
            "tcb": ".".join(map(str, found.tcb)),
            "root": found.root,
        }
        return Appraised(EvidenceKind.SNP, measured, question, confirmation, hashlib.sha256(found.chip).digest(), facts)


def read_report(report: bytes, vcek: bytes, ask: bytes, roots: Roots, now: datetime) -> SnpReport:
    """The report in ``report``.

    Raises WireError, or Unverified: chain, validity, algorithm, signature, chip, tcb, debug, policy, vmpl.
    """
    if len(report) != REPORT_LENGTH:
        raise WireError(f"SNP report: {len(report)} bytes, expected {REPORT_LENGTH}")
    leaf, above = read_certificate(vcek, "SNP VCEK"), read_certificate(ask, "SNP ASK")
    root = check_chain([leaf, above], roots, now, "SNP VCEK")
    version, policy = struct.unpack_from("<I4xQ", report)
    level, algorithm = struct.unpack_from("<II", report, 0x30)
    (signer,) = struct.unpack_from("<I", report, 0x48)
    if algorithm != 1 or signer >> 2 & 7 or not 2 <= version <= 5:
        raise Unverified("SNP report: expected version 2 to 5, ECDSA P-384 and a VCEK", step="algorithm")
    _check_signature(leaf, report)
    _check_chip(_extensions(leaf), report)
    if policy >> 19 & 1:
        raise Unverified("SNP report: the guest may be debugged", step="debug")
    if policy >> 18 & 1 or not policy >> 17 & 1:
        raise Unverified("SNP report: the guest may migrate, or its policy is none", step="policy")
    if level:
        raise Unverified("SNP report: asked for from another privilege level than 0", step="vmpl")
    tcb = tuple(report[0x180 + at] for at in _TCB_BYTES.values())
    return SnpReport(version, policy, report[0x50:0x90], report[0x90:0xC0], report[0x1A0:0x1E0], tcb, root)


def _check_signature(leaf: x509.Certificate, report: bytes) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Unverified("SNP VCEK: expected a P-384 key", step="algorithm")
    r, s, rest = report[_SIGNED : _SIGNED + 72], report[_SIGNED + 72 : _SIGNED + 144], report[_SIGNED + 144 :]
    if any(rest):
        raise Unverified("SNP report: bytes behind its signature", step="signature")
    try:
        signature = encode_dss_signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))
        key.verify(signature, report[:_SIGNED], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Unverified("SNP report: signature does not hold", step="signature") from None


def _check_chip(named: Mapping[str, bytes], report: bytes) -> None:
    """The certificate is of this chip and this TCB: a key of an older firmware must not vouch for a newer one."""
    product = named.get(_OID + "2", b"")[2:]
    if not product.startswith(_PRODUCTS):
        raise Unverified("SNP VCEK: expected a Milan or Genoa", step="chip")
    if named.get(_OID + "4", b"")[-64:] != report[0x1A0:0x1E0]:
        raise Unverified("SNP VCEK: it is another chip's", step="chip")
    for oid, at in _TCB_BYTES.items():
        found = named.get(_OID + oid, b"")
        if found[:1] != b"\x02" or len(found) not in (3, 4) or int.from_bytes(found[2:], "big") != report[0x180 + at]:
            raise Unverified("SNP VCEK: it is another TCB's", step="tcb")


def _extensions(certificate: x509.Certificate) -> dict[str, bytes]:
    return {
        each.oid.dotted_string: each.value.value
        for each in certificate.extensions
        if isinstance(each.value, x509.UnrecognizedExtension)
    }
