"""Entries of an agent's store, sealed: AES-256-GCM under a key of each entry's own, their names as keyed tokens.

The key of an entry comes from the agent's store key and 16 random bytes, and seals one plaintext: there is no counter
that a copied file, a second process or a restart could set back. Domain, epoch, the token of the name and the end of
the entry are authenticated with it, so that an entry opens in its own place alone. Pure; what keeps the bytes is
``bus.client.storefile``.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto.keys import Secret, expand
from bus.crypto.seal import open_with
from bus.errors import TooLarge, Unverified
from bus.wire import preimage

SALT_LENGTH: Final = 16
MAX_NAME: Final = 1024
"""Bytes of an entry's name in UTF-8."""
MAX_VALUE: Final = 16 * 1024 * 1024
_NONCE: Final = preimage.counter_nonce(0)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is sealed: the names of its store and its own, and a value that is JSON or bytes."""

    store: str
    name: str
    data: bytes = field(repr=False)
    is_json: bool


def check_size(name: str, data: bytes) -> None:
    """Raise TooLarge where a name or a value is over its bound."""
    for what, size, limit in (("name", len(name.encode()), MAX_NAME), ("value", len(data), MAX_VALUE)):
        if size > limit:
            raise TooLarge(f"store: a {what} of {size} bytes: expected at most {limit}", limit=limit)


class EntryKeys:
    """What an agent seals and finds entries with in one domain and epoch."""

    __slots__ = ("_deployment", "_key", "_names", "domain", "epoch")

    def __init__(self, key: Secret, deployment: bytes, domain: str, epoch: int) -> None:
        self.domain = domain
        self.epoch = epoch
        self._deployment = deployment
        self._key = key
        self._names = expand(key, preimage.store_names_info(), f"{key.name} names")

    def shelf(self, store: str) -> bytes:
        """What stands for the name of a store (32 bytes)."""
        return hmac.digest(self._names.reveal(), preimage.store_shelf(store), "sha256")

    def token(self, store: str, name: str) -> bytes:
        """What stands for the name of an entry (32 bytes)."""
        return hmac.digest(self._names.reveal(), preimage.store_name(store, name), "sha256")

    def seal(self, token: bytes, entry: Entry, expires_ms: int) -> bytes:
        """salt | ciphertext of ``entry``; ``expires_ms`` since 1970, 0 for none."""
        salt = secrets.token_bytes(SALT_LENGTH)
        names = preimage.part(entry.store.encode()) + preimage.part(entry.name.encode())
        plain = bytes([entry.is_json]) + names + entry.data
        return salt + self._aead(salt).encrypt(_NONCE, plain, self._aad(token, expires_ms))

    def open(self, token: bytes, body: bytes, expires_ms: int) -> Entry:
        """The entry in ``body``. Raises Unverified(open) for one that was changed, moved or sealed by another key."""
        salt, sealed = body[:SALT_LENGTH], body[SALT_LENGTH:]
        if len(salt) < SALT_LENGTH:
            raise Unverified("entry: too short", step="open", code=Code.OPEN)
        plain = open_with(self._aead(salt), _NONCE, sealed, self._aad(token, expires_ms))
        store, begin = _part(plain, 1)
        name, begin = _part(plain, begin)
        return Entry(store, name, plain[begin:], bool(plain[0]))

    def _aead(self, salt: bytes) -> AESGCM:
        return AESGCM(expand(self._key, preimage.store_entry_info(salt), "entry").reveal())

    def _aad(self, token: bytes, expires_ms: int) -> bytes:
        return preimage.store_aad(self._deployment, self.domain, self.epoch, token, expires_ms)


def _part(plain: bytes, begin: int) -> tuple[str, int]:
    """The text behind a length at ``begin``, and where it ends. What was opened was written here: lengths fit."""
    end = begin + 2 + int.from_bytes(plain[begin : begin + 2], "big")
    return plain[begin + 2 : end].decode(), end
