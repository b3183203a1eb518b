"""The `file` provider: a 0600 file holds the wrapping key. For development and single hosts.

Beside it stand the keys that it replaced, ``<name>.<id>``, for what is not wrapped anew yet. Files are read at each
call, so that a running service follows a rotation.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from bus.authority.providers.base import Wrapped, away, missing, seal, unseal
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.files import ensure_secret, read_secret, write_secret
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
        ensure_secret(path)
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

        The old key is in its second place before it leaves its first: no moment without it. It is linked there and not
        copied, so that ``destroy`` overwrites the only bytes that there are.
        """
        old, new = self._current(), os.urandom(KEY_LENGTH)
        with contextlib.suppress(FileExistsError):  # a rotation that a crash ended
            os.link(self._path, self._beside(_kek_id(old)))
        write_secret(self._path, new, self._path.stat().st_uid)
        return f"{SCHEME}:{_kek_id(new)}"

    def superseded(self) -> list[str]:
        """Keys beside the newest one."""
        current = _kek_id(self._current())
        ids = (path.name.removeprefix(f"{self._path.name}.") for path in self._path.parent.glob(f"{self._path.name}.*"))
        return sorted(f"{SCHEME}:{each}" for each in ids if each != current and not each.endswith(".new"))

    def destroy(self, kek: str) -> None:
        """Overwrite the key, then remove it. Raises ValueError for the newest."""
        name = kek.removeprefix(f"{SCHEME}:")
        if name == _kek_id(self._current()):
            raise ValueError(f"{kek} wraps what is new")
        path = self._beside(name)
        try:
            with path.open("r+b") as file:
                file.write(os.urandom(KEY_LENGTH))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        path.unlink()

    def _beside(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}")

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
