"""An agent's key that a result is bound to (`cnf`, RFC 7800): SubjectPublicKeyInfo in DER, and its JWK.

Ed25519 and P-256 keys sign (P-256 is what the agents' TLS certificates have); X25519 keys are sealed to. Others, and
encodings that are not the one of their key, are refused: a key has one confirmation.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from bus.attestation.base64url import encode
from bus.codes import Code
from bus.errors import Unverified, WireError

MAX_KEY: Final = 128
PublicKey = ed25519.Ed25519PublicKey | x25519.X25519PublicKey | ec.EllipticCurvePublicKey


def to_der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo of ``key``."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_key(der: bytes) -> PublicKey:
    """The key in ``der``. Raises WireError: bounds for its size, decode for anything but one of the three kinds."""
    if not 1 <= len(der) <= MAX_KEY:
        raise WireError(f"confirmation key: {len(der)} bytes, expected 1 to {MAX_KEY}")
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WireError("confirmation key: no public key", code=Code.DECODE) from None
    known = isinstance(key, ed25519.Ed25519PublicKey | x25519.X25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    )
    if not known or not isinstance(key, PublicKey) or to_der(key) != der:
        raise WireError("confirmation key: expected Ed25519, X25519 or P-256 in plain DER", code=Code.DECODE)
    return key


def jwk(der: bytes) -> dict[str, str]:
    """The public JWK of the key in ``der`` (RFC 7517, RFC 8037). Raises as ``read_key``."""
    key = read_key(der)
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        return {"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}
    curve = "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "X25519"
    return {"kty": "OKP", "crv": curve, "x": encode(key.public_bytes_raw())}


def verify(der: bytes, signature: bytes, message: bytes) -> None:
    """Raise Unverified(possession) unless ``signature`` is this key's (P-256: ECDSA with SHA-256, DER)."""
    key = read_key(der)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            raise Unverified("confirmation key: X25519 cannot sign", step="possession")
    except InvalidSignature:
        raise Unverified("confirmation key: its signature does not hold", step="possession") from None
