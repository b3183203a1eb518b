"""The bytes of one party's share: `SBM1` | head | HPKE of the share to the party's key, for one domain and source.

Head: rule 32 (SHA-256 of what is added up and by whom) | batch 16 | rows u32 | party u8 | parties u8. The share itself:
`S` and a seed of 32 bytes, which stands for a whole vector, or `V` and the vector.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from bus.codes import Code
from bus.errors import Unverified, WireError
from bus.wire import preimage

MAGIC: Final = b"SBM1"
CONTENT_TYPE: Final = "application/vnd.sealbus.share"
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
"""RFC 9180. Shares travel inside the session's AES-256 as well, so that only who has its keys could wait for a quantum
computer."""
_HEAD: Final = struct.Struct(">4s32s16sIBB")


@dataclass(frozen=True, slots=True)
class ShareFrame:
    """A share of one batch for one party, sealed to that party's key."""

    rule: bytes
    batch: bytes
    rows: int
    party: int
    parties: int
    sealed: bytes = field(repr=False)

    @classmethod
    def seal(cls, head: tuple[bytes, bytes, int, int, int], share: bytes, key: bytes, domain: str, source: str) -> Self:
        """``head``: rule, batch, rows, party and parties; ``key``: the party's X25519 public key."""
        info = preimage.share_info(_HEAD.pack(MAGIC, *head), domain, source)
        return cls(*head, SUITE.encrypt(share, X25519PublicKey.from_public_bytes(key), info))

    def open(self, key: X25519PrivateKey, domain: str, source: str) -> bytes:
        """The share. Raises Unverified (share) for one of another key, domain or source, or changed."""
        try:
            return SUITE.decrypt(self.sealed, key, preimage.share_info(self._head(), domain, source))
        except (InvalidTag, ValueError):
            raise Unverified(
                "share: not sealed to this party's key, or changed", step="share", code=Code.OPEN
            ) from None

    def encode(self) -> bytes:
        """Its bytes."""
        return self._head() + self.sealed

    def _head(self) -> bytes:
        return _HEAD.pack(MAGIC, self.rule, self.batch, self.rows, self.party, self.parties)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The frame in ``data``. Raises WireError(decode)."""
        if len(data) <= _HEAD.size or data[:4] != MAGIC:
            raise WireError("share: expected a share of a batch", code=Code.DECODE)
        _, rule, batch, rows, party, parties = _HEAD.unpack_from(data)
        if not rows or not party < parties:
            raise WireError(
                f"share: expected rows, and a party below {parties}; found {rows}, {party}", code=Code.DECODE
            )
        return cls(rule, batch, rows, party, parties, data[_HEAD.size :])
