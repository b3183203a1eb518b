"""The structures of TPM 2.0 (Library Specification, part 2) that a quote needs, read strictly: no byte is left over.

Only what verifiers take is known: SHA-256, ECDSA on P-256 for attestation keys, RSA 2048 by the default template for
endorsement keys (TCG EK Credential Profile, template L-1).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bus.codes import Code
from bus.errors import WireError

MAGIC: Final = 0xFF544347
ST_QUOTE: Final = 0x8018
SHA256: Final = 0x000B
_ECC, _ECDSA, _P256, _NULL = 0x0023, 0x0018, 0x0003, 0x0010
_ENDORSEMENT: Final = bytes.fromhex("4000000b")
FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED, DECRYPT, SIGN = 1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 17, 1 << 18
# type RSA, name SHA-256, attributes, policy "endorsement authority", AES-128-CFB, no scheme, 2048 bits, exponent 65537
_EK_TEMPLATE: Final = bytes.fromhex(
    "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa0006008000430010080000000000"
)


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """The public area of an attestation key: its object attributes (bits), its name (34 bytes), the key."""

    attributes: int
    name: bytes
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Quote:
    """A TPMS_ATTEST of type quote. ``selection``: banks (algorithm) with their PCRs' numbers; ``clock`` in ms."""

    signer: bytes
    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    firmware: int
    selection: tuple[tuple[int, tuple[int, ...]], ...]
    digest: bytes


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) != length:
            raise self.refused("it ends too early")
        self._at += length
        return found

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def sized(self, limit: int) -> bytes:
        length = self.number(2)
        if length > limit:
            raise self.refused(f"a field of {length} bytes, expected at most {limit}")
        return self.take(length)

    def expect(self, *numbers: int) -> None:
        for expected in numbers:
            if (found := self.number(2)) != expected:
                raise self.refused(f"expected {expected:#06x}, found {found:#06x}")

    def end(self) -> None:
        if self._at != len(self._data):
            raise self.refused(f"{len(self._data) - self._at} bytes behind its end")

    def refused(self, why: str) -> WireError:
        return WireError(f"{self._what}: {why}", code=Code.DECODE)


def read_attestation_key(public: bytes) -> AttestationKey:
    """A TPMT_PUBLIC of an ECDSA P-256 key. Raises WireError(decode)."""
    reader = _Reader(public, "TPM attestation key")
    reader.expect(_ECC, SHA256)
    attributes = reader.number(4)
    reader.sized(32)  # its authorisation policy is its owner's business
    reader.expect(_NULL, _ECDSA, SHA256, _P256, _NULL)
    x, y = (int.from_bytes(reader.sized(32), "big") for _ in range(2))
    reader.end()
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise reader.refused("its point is not on the curve") from None
    return AttestationKey(attributes, name_of(public), key)


def read_quote(attest: bytes) -> Quote:
    """A TPMS_ATTEST. Raises WireError(decode) for other types of it, and for what no TPM made (its magic)."""
    reader = _Reader(attest, "TPM quote")
    if reader.number(4) != MAGIC:
        raise reader.refused("not made by a TPM")
    reader.expect(ST_QUOTE)
    signer, extra = reader.sized(34), reader.sized(64)
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    firmware = reader.number(8)
    banks = reader.number(4)
    if banks > 4 or safe > 1:
        raise reader.refused("too many banks, or a flag that is none")
    selection = []
    for _ in range(banks):
        algorithm, length = reader.number(2), reader.number(1)
        if length > 4:
            raise reader.refused("a selection of more than 32 PCRs")
        bits = int.from_bytes(reader.take(length), "little")
        selection.append((algorithm, tuple(each for each in range(32) if bits >> each & 1)))
    digest = reader.sized(64)
    reader.end()
    return Quote(signer, extra, clock, resets, restarts, bool(safe), firmware, tuple(selection), digest)


def read_signature(data: bytes) -> bytes:
    """A TPMT_SIGNATURE by ECDSA with SHA-256, as DER. Raises WireError(decode)."""
    reader = _Reader(data, "TPM signature")
    reader.expect(_ECDSA, SHA256)
    r, s = (int.from_bytes(reader.sized(32), "big") for _ in range(2))
    reader.end()
    return encode_dss_signature(r, s)


def name_of(public: bytes) -> bytes:
    """The name of an object: its name algorithm and the digest of its public area."""
    return SHA256.to_bytes(2, "big") + hashlib.sha256(public).digest()


def qualified_name(ek: rsa.RSAPublicKey, name: bytes) -> bytes:
    """The qualified name of an object right under the endorsement key ``ek``, which stands in its hierarchy."""
    modulus = ek.public_numbers().n.to_bytes(256, "big")
    public = _EK_TEMPLATE + len(modulus).to_bytes(2, "big") + modulus
    parent = hashlib.sha256(_ENDORSEMENT + name_of(public)).digest()
    return SHA256.to_bytes(2, "big") + hashlib.sha256(SHA256.to_bytes(2, "big") + parent + name).digest()
