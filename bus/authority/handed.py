"""Keys that were given on an attestation result go sealed to the attested key, and open with it alone (RFC 9180).

HPKE in base mode: DHKEM(P-256), HKDF-SHA256, AES-256-GCM; the key is that of the agent's certificate, which the result
confirms (`cnf`). Its info names the result, the policy and the epoch, so that nothing opens under another of these.
Whoever ends TLS before the agent, or reads what was sent later, has nothing of it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from bus.codes import Code
from bus.errors import Refused, Unverified

_SUITE: Final = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _info(result: str, policy: bytes, epoch: int) -> bytes:
    told = hashlib.sha256(result.encode()).digest()
    return b"sealbus/lease/1\0" + told + policy + epoch.to_bytes(8, "big")


def hand(bundle: bytes, key: bytes, result: str, policy: bytes, epoch: int) -> bytes:
    """``bundle`` for the holder of ``key`` (SubjectPublicKeyInfo, DER), who attested with ``result`` (an EAT);
    ``policy``: digest of the one that gives it. Raises Refused(credential) for a key that is not P-256."""
    public = load_der_public_key(key)
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Refused("lease: expected a P-256 key", code=Code.CREDENTIAL)
    return _SUITE.encrypt(bundle, public, _info(result, policy, epoch))


def take(sealed: bytes, key_pem: bytes, result: str, policy: bytes, epoch: int) -> bytes:
    """The bundle that was handed to this key. Raises Unverified (lease) for another key, result, policy or epoch."""
    key = load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused("lease: expected a P-256 key", code=Code.CREDENTIAL)
    try:
        return _SUITE.decrypt(sealed, key, _info(result, policy, epoch))
    except (InvalidTag, ValueError):
        raise Unverified("lease: keys that are not sealed to this agent's attested key", step="lease") from None
