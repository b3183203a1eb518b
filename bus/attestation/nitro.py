"""AWS Nitro Enclaves: an attestation document (COSE_Sign1, ES384) that the hypervisor signed.

Evidence: document, the agent's key. The document's ``nonce`` is the verifier's, its ``user_data`` the binding. PCR0 is
the digest of the enclave's image; a document of an enclave in debug mode has zeros there and is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bus.attestation import cbor, evidence
from bus.attestation.chain import MAX_PATH, Roots, check_chain, read_certificate
from bus.attestation.confirmation import MAX_KEY, read_key
from bus.attestation.evidence import Appraised, Question
from bus.codes import Code
from bus.errors import Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement

MAX_DOCUMENT: Final = 16 * 1024
MAX_AGE: Final = timedelta(minutes=5)
ES384: Final = -35
_PCR_LENGTH: Final = 48
_ZERO: Final = bytes(_PCR_LENGTH)


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A document whose signature and chain hold. ``pcrs`` by number, 48 bytes each."""

    module: str
    time: datetime
    pcrs: Mapping[int, bytes]
    nonce: bytes
    user_data: bytes
    root: str


@dataclass(frozen=True, slots=True)
class NitroVerifier:
    """``roots``: AWS's root certificates, by name."""

    roots: Roots

    def appraise(self, data: bytes, question: Question, accepted: frozenset[Measurement], now: datetime) -> Appraised:
        """As ``Verifier.appraise``; steps in their order."""
        # 1. Sizes, framing, the agent's key.
        evidence.check_nonce(question)
        document, confirmation = evidence.unpack(EvidenceKind.NITRO, data, (MAX_DOCUMENT, MAX_KEY))
        read_key(confirmation)
        # 2. The document: algorithm, chain to a root, signature, no debug mode.
        found = read_document(document, self.roots, now)
        # 3. Made lately, for this question, this agent and its key.
        if not now - MAX_AGE <= found.time <= now + MAX_AGE:
            raise Unverified("Nitro document: not made lately", step="time")
        evidence.check_binding(found.nonce, question.nonce, "Nitro document")
        evidence.check_binding(found.user_data, question.binding(confirmation), "Nitro document")
        # 4. One of its PCRs has a value that is accepted.
        measured = {Measurement(EvidenceKind.NITRO, number, value) for number, value in found.pcrs.items()}
        if not (good := {each for each in measured & accepted if each.told}):
            raise Unverified("Nitro document: none of its PCRs is accepted for this agent", step="measurement")
        return Appraised(
            EvidenceKind.NITRO,
            min(good),
            question,
            confirmation,
            hashlib.sha256(found.module.encode()).digest(),
            {"module": found.module, "time": int(found.time.timestamp()), "root": found.root},
        )


def read_document(document: bytes, roots: Roots, now: datetime) -> NitroDocument:
    """The document in ``document``. Raises Unverified: algorithm, chain, validity, signature, debug; or WireError."""
    sign1 = cbor.read_sign1(document)
    if sign1.headers != {1: ES384}:
        raise Unverified("Nitro document: expected ES384 and no other protected header", step="algorithm")
    fields: Any = cbor.loads(sign1.payload)
    try:
        leaf = read_certificate(_bytes(fields["certificate"]), "Nitro document")
        # AWS writes the bundle from the root down; the root is the verifier's own.
        bundle = fields["cabundle"]
        if not isinstance(bundle, list) or not 1 <= len(bundle) <= MAX_PATH:
            raise WireError("Nitro document: no certificate bundle", code=Code.DECODE)
        above = [read_certificate(_bytes(each), "Nitro document") for each in bundle[1:]]
        pcrs = {_number(number): _bytes(value) for number, value in fields["pcrs"].items()}
        module, milliseconds = str(fields["module_id"]), _number(fields["timestamp"])
        nonce, user_data = _bytes(fields["nonce"] or b""), _bytes(fields["user_data"] or b"")
        if fields["digest"] != "SHA384" or any(len(value) != _PCR_LENGTH for value in pcrs.values()):
            raise WireError("Nitro document: expected PCRs of SHA-384", code=Code.DECODE)
        time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError):
        raise WireError("Nitro document: not the fields of one", code=Code.DECODE) from None
    root = check_chain([leaf, *reversed(above)], roots, now, "Nitro document")
    _check_signature(leaf, sign1)
    if pcrs.get(0, _ZERO) == _ZERO:
        raise Unverified("Nitro document: the enclave runs in debug mode", step="debug")
    return NitroDocument(module, time, pcrs, nonce, user_data, root)


def _check_signature(leaf: x509.Certificate, sign1: cbor.Sign1) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Unverified("Nitro document: expected a P-384 key", step="algorithm")
    r, s = (int.from_bytes(each, "big") for each in (sign1.signature[:48], sign1.signature[48:]))
    if len(sign1.signature) != 96:
        raise Unverified("Nitro document: expected a signature of 96 bytes", step="signature")
    try:
        key.verify(encode_dss_signature(r, s), sign1.signed(), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Unverified("Nitro document: signature does not hold", step="signature") from None


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise TypeError
    return value
