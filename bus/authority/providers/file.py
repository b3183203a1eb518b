"""The `file` provider: a 0600 file holds the wrapping key. For development and single hosts.

Beside it stand the keys that it replaced, ``<name>.<id>``, for what is not wrapped anew yet. Files are read at each
call, so that a running service follows a rotation.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bus.authority.providers.base import Wrapped, away, missing, seal, unseal
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.files import make_folder, read_secret, write_secret
from bus.wire import preimage

SCHEME = "file"


def _kek_id(key: bytes) -> str:
    return hashlib.sha256(preimage.label("kek-id") + key).hexdigest()[:16]


class FileProvider:
    """AES-256-GCM with a random nonce under the key in ``path``; some roots a day stay far below 2^32 wraps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read(path)

    @classmethod
    def create(cls, path: Path) -> FileProvider:
        """The provider of ``path``; makes a random key where there is none."""
        if not path.exists():
            make_folder(path.parent)
            write_secret(path, os.urandom(KEY_LENGTH))
        return cls(path)

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """nonce | ciphertext | tag."""
        kek = self._current()
        return Wrapped(f"{SCHEME}:{_kek_id(kek)}", seal(kek, key, context))

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """The key."""
        return unseal(self._find(wrapped), wrapped.data, context, name)

    def rotate(self) -> str:
        """A new wrapping key; the old one stays beside it. Returns the new one's name.

        The old key is in its second place before it leaves its first: no moment without it.
        """
        old, new = self._current(), os.urandom(KEY_LENGTH)
        owner = self._path.stat().st_uid
        write_secret(self._path.with_name(f"{self._path.name}.{_kek_id(old)}"), old, owner)
        write_secret(self._path, new, owner)
        return f"{SCHEME}:{_kek_id(new)}"

    def _current(self) -> bytes:
        try:
            return self._read(self._path)
        except OSError as error:
            raise away(SCHEME, error) from None

    def _find(self, wrapped: Wrapped) -> bytes:
        current = self._current()
        if wrapped.key == _kek_id(current):
            return current
        for path in self._path.parent.glob(f"{self._path.name}.*"):
            if path.name == f"{self._path.name}.{wrapped.key}":
                return self._read(path)
        raise missing(wrapped, f"put it back beside {self._path}")

    @staticmethod
    def _read(path: Path) -> bytes:
        key = read_secret(path)
        if len(key) != KEY_LENGTH:
            raise ValueError(f"{path}: expected {KEY_LENGTH} bytes, found {len(key)}")
        return key
