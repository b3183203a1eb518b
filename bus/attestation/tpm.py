"""TPM 2.0: a quote by a key that is proved to live beside a certified endorsement key (EK).

Two messages. The attester *offers* its EK certificates and the public part of its attestation key (AK); the verifier
answers with a *challenge*, a secret that only this TPM can open, and only for this AK. *Evidence* is: certificates, AK,
the secret, quote, signature, the agent's key. The secret is derived, so that the verifier keeps nothing but the nonce.

A quote proves what was extended into a PCR, not what ran afterwards.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bus.attestation import evidence
from bus.attestation import tpm_structures as tpm
from bus.attestation.chain import Roots, check_chain, read_certificate
from bus.attestation.confirmation import MAX_KEY, read_key
from bus.attestation.evidence import Appraised, Question
from bus.attestation.tpm_credential import make_credential
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.preimage import attestation_activation

MAX_CHAIN: Final = 8192
MAX_CERTIFICATES: Final = 4
MAX_PUBLIC: Final = 256
MAX_QUOTE: Final = 512
EK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.1")
_NEEDED: Final = tpm.FIXED_TPM | tpm.FIXED_PARENT | tpm.ORIGIN | tpm.RESTRICTED | tpm.SIGN


@dataclass(frozen=True, slots=True)
class _Identity:
    """An AK beside a certified EK; whether it really is beside it, the secret tells."""

    ek: rsa.RSAPublicKey
    certificate: bytes
    ak: tpm.AttestationKey
    root: str

    def secret(self, key: Secret, question: Question) -> bytes:
        told = attestation_activation(question.nonce, question.agent, self.certificate, self.ak.name)
        return hmac.digest(key.reveal(), told, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class TpmVerifier:
    """``roots``: the makers' root certificates by name. ``key``: 32 random bytes, the verifier's own."""

    roots: Roots
    key: Secret

    def challenge(self, offer: bytes, question: Question, now: datetime) -> bytes:
        """What the TPM behind ``offer`` must open (TPM2B_ID_OBJECT | TPM2B_ENCRYPTED_SECRET).

        Raises Unverified (chain, validity, endorsement, key) or WireError.
        """
        evidence.check_nonce(question)
        chain, public = evidence.unpack(EvidenceKind.TPM, offer, (MAX_CHAIN, MAX_PUBLIC))
        identity = _identity(chain, public, self.roots, now)
        return make_credential(identity.ek, identity.ak.name, identity.secret(self.key, question))

    def appraise(self, data: bytes, question: Question, accepted: frozenset[Measurement], now: datetime) -> Appraised:
        """As ``Verifier.appraise``; steps in their order."""
        # 1. Sizes, framing, the agent's key.
        evidence.check_nonce(question)
        limits = (MAX_CHAIN, MAX_PUBLIC, 32, MAX_QUOTE, MAX_QUOTE, MAX_KEY)
        chain, public, secret, attest, signature, confirmation = evidence.unpack(EvidenceKind.TPM, data, limits)
        read_key(confirmation)
        # 2. The EK's certificates lead to a root; the AK is restricted to what its TPM says of itself.
        identity = _identity(chain, public, self.roots, now)
        # 3. The TPM of that EK opened the challenge for this AK and this question.
        if not hmac.compare_digest(secret, identity.secret(self.key, question)):
            raise Unverified("TPM: the challenge was not opened by this TPM for this key", step="activation")
        # 4. The AK signed the quote.
        _check_signature(identity.ak, signature, attest)
        quote = tpm.read_quote(attest)
        # 5. It names its key as one right under that EK.
        if quote.signer != tpm.qualified_name(identity.ek, identity.ak.name):
            raise Unverified("TPM quote: signed by a key elsewhere in the TPM", step="qualified-name")
        # 6. Made for this question, this agent and its key.
        evidence.check_binding(quote.extra, question.binding(confirmation), "TPM quote")
        # 7. One SHA-256 PCR, with a value that is accepted.
        measured = _measured(quote, accepted)
        facts: dict[str, str | int] = {
            "clock_ms": quote.clock,
            "resets": quote.resets,
            "restarts": quote.restarts,
            "clock_safe": "yes" if quote.safe else "no",
            "firmware": f"{quote.firmware:016x}",
            "root": identity.root,
        }
        return Appraised(EvidenceKind.TPM, measured, question, confirmation, identity.certificate, facts)


def split_certificates(chain: bytes) -> list[bytes]:
    """Certificates (DER) that stand one behind the other. Raises WireError: bounds, decode."""
    found: list[bytes] = []
    while chain:
        if len(found) == MAX_CERTIFICATES:
            raise WireError(f"TPM: expected at most {MAX_CERTIFICATES} certificates")
        length = 4 + int.from_bytes(chain[2:4], "big")
        if chain[:2] != b"\x30\x82" or length > len(chain):
            raise WireError("TPM: not certificates in DER", code=Code.DECODE)
        found.append(chain[:length])
        chain = chain[length:]
    return found


def _identity(chain: bytes, public: bytes, roots: Roots, now: datetime) -> _Identity:
    path = split_certificates(chain)
    certificates = [read_certificate(each, "TPM EK") for each in path]
    root = check_chain(certificates, roots, now, "TPM EK")
    leaf = certificates[0]
    ek = leaf.public_key()
    if not isinstance(ek, rsa.RSAPublicKey) or ek.key_size != 2048 or ek.public_numbers().e != 65537:
        raise Unverified("TPM EK: expected RSA 2048", step="endorsement")
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    if EK_USAGE not in usage:
        raise Unverified("TPM EK: its certificate is not for an endorsement key", step="endorsement")
    ak = tpm.read_attestation_key(public)
    if ak.attributes & _NEEDED != _NEEDED or ak.attributes & tpm.DECRYPT:
        raise Unverified("TPM AK: expected a restricted signing key that cannot leave its TPM", step="key")
    return _Identity(ek, hashlib.sha256(path[0]).digest(), ak, root)


def _check_signature(ak: tpm.AttestationKey, signature: bytes, attest: bytes) -> None:
    try:
        ak.key.verify(tpm.read_signature(signature), attest, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Unverified("TPM quote: signature does not hold", step="signature") from None


def _measured(quote: tpm.Quote, accepted: frozenset[Measurement]) -> Measurement:
    """The quote holds the digest of the PCR's value, so the accepted values are tried: there are few."""
    if len(quote.selection) != 1 or quote.selection[0][0] != tpm.SHA256 or len(quote.selection[0][1]) != 1:
        raise Unverified("TPM quote: expected one PCR of the SHA-256 bank", step="selection")
    register = quote.selection[0][1][0]
    for each in sorted(accepted):
        named = (each.kind, each.register) == (EvidenceKind.TPM, register) and each.told
        if named and hmac.compare_digest(hashlib.sha256(each.digest).digest(), quote.digest):
            return each
    raise Unverified(f"TPM quote: PCR {register} has no value that is accepted for this agent", step="measurement")
