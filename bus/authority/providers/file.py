"""The `file` provider: a 0600 file holds the wrapping key. For development and single hosts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.crypto.seal import open_with
from bus.errors import Unverified
from bus.files import make_folder, read_secret, write_secret
from bus.wire import preimage

NONCE_LENGTH = 12


class FileProvider:
    """AES-256-GCM with a random nonce under the key in ``path``; some roots a day stay far below 2^32 wraps."""

    def __init__(self, path: Path) -> None:
        key = read_secret(path)
        if len(key) != KEY_LENGTH:
            raise ValueError(f"{path}: expected {KEY_LENGTH} bytes, found {len(key)}")
        self._aead = AESGCM(key)
        self.kek_id = "file:" + hashlib.sha256(preimage.label("kek-id") + key).hexdigest()[:16]

    @classmethod
    def create(cls, path: Path) -> FileProvider:
        """The provider of ``path``; makes a random key where there is none."""
        if not path.exists():
            make_folder(path.parent)
            write_secret(path, os.urandom(KEY_LENGTH))
        return cls(path)

    def wrap(self, key: Secret, context: bytes) -> bytes:
        """nonce | ciphertext | tag."""
        nonce = os.urandom(NONCE_LENGTH)
        return nonce + self._aead.encrypt(nonce, key.reveal(), context)

    def unwrap(self, wrapped: bytes, context: bytes, name: str) -> Secret:
        """The key. Raises Unverified(open) for another context or wrapping key."""
        if len(wrapped) < NONCE_LENGTH + KEY_LENGTH:
            raise Unverified(f"{name}: not a wrapped key: {len(wrapped)} bytes", step="unwrap", code=Code.OPEN)
        return Secret(open_with(self._aead, wrapped[:NONCE_LENGTH], wrapped[NONCE_LENGTH:], context), name)
