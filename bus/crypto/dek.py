"""DEKs: one per enforcer process, epoch and reader set, wrapped for its readers, never stored.

A DEK is opaque: it seals and counts, and ends after 2^32 uses. Its commitment stands in the key table because AES-GCM
does not commit to its key. Wrapping is AES-256-GCM with a random nonce under a role or reading KEK; a KEK wraps
some DEKs an epoch, far from the 2^32 at which random nonces wear out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto.keys import KEY_LENGTH, ReadingKey
from bus.crypto.seal import MAX_USES, Opener, open_with
from bus.errors import Refused, Unverified
from bus.native import native
from bus.wire import preimage
from bus.wire.derived import ReaderSet

if TYPE_CHECKING:
    from sealbus_native import Cipher


class Dek:
    """A data encryption key with its reader set. ``take`` hands out nonce counters that only rise.

    ``cipher`` is the same key for the compiled steps, where there are any.
    """

    __slots__ = ("_counter", "_pid", "aead", "cipher", "reader_set")

    def __init__(
        self, deployment: bytes, topic: str, epoch: int, readers: Iterable[ReadingKey], *, compiled: bool = False
    ) -> None:
        key = os.urandom(KEY_LENGTH)
        commitment = commit(key)
        aad = preimage.wrap_aad(deployment, topic, epoch, commitment)
        entries = []
        for reader in sorted(readers, key=lambda each: each.key_id):
            nonce = os.urandom(12)
            entries.append((reader.key_id, nonce + AESGCM(reader.kek.reveal()).encrypt(nonce, key, aad)))
        self.reader_set = ReaderSet(commitment, tuple(entries))
        self.aead = AESGCM(key)
        self.cipher: Cipher | None = native.Cipher(key) if native is not None and compiled else None
        self._counter = 0
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"Dek({self.reader_set.commitment.hex()[:16]})"

    def take(self, count: int) -> int:
        """Reserve ``count`` counters; returns the first. Raises Refused after 2^32 uses or in a forked child."""
        first = self._counter
        if first + count > MAX_USES or self._pid != os.getpid():
            raise Refused("DEK: used up or inherited by a fork", code=Code.EPOCH_LATE)
        self._counter = first + count
        return first


def commit(dek: bytes) -> bytes:
    """SHA-256 commitment to a DEK (32 bytes)."""
    return hashlib.sha256(preimage.dek_commitment(dek)).digest()


def unwrap(reader: ReadingKey, readers: ReaderSet, deployment: bytes, topic: str, epoch: int) -> Opener | None:
    """The DEK that ``readers`` holds for ``reader``; None where it has no entry. Raises Unverified."""
    wrapped = next((each for key_id, each in readers.entries if key_id == reader.key_id), None)
    if wrapped is None:
        return None
    aad = preimage.wrap_aad(deployment, topic, epoch, readers.commitment)
    key = open_with(AESGCM(reader.kek.reveal()), wrapped[:12], wrapped[12:], aad)
    if not hmac.compare_digest(commit(key), readers.commitment):
        raise Unverified("DEK: does not match its commitment", step="commitment", code=Code.OPEN)
    return Opener(key)
