"""The key provider protocol: custody of the key that wraps roots.

A provider is called once per epoch, domain and process. What it may raise is the same for all: ``Unverified`` is final,
because the bytes are not what was wrapped; everything that an operator can mend (no network, a refused credential, a
disabled key) is ``RetryLater``, because records wait for keys but are never refused for want of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.crypto.seal import open_with
from bus.errors import RetryLater, Unverified

RETRY_S: Final = 1.0
NONCE_LENGTH: Final = 12
TAG_LENGTH: Final = 16
SEALED_LENGTH: Final = NONCE_LENGTH + KEY_LENGTH + TAG_LENGTH


@dataclass(frozen=True, slots=True)
class Wrapped:
    """``data`` wrapped by the key that ``kek`` names: ``<provider>:<key>``, with its version where it is told."""

    kek: str
    data: bytes

    @property
    def provider(self) -> str:
        """The part of ``kek`` before its first colon."""
        return self.kek.partition(":")[0]

    @property
    def key(self) -> str:
        """The part of ``kek`` behind its first colon."""
        return self.kek.partition(":")[2]


class KeyProvider(Protocol):
    """Wraps and unwraps 32-byte keys; ``context`` (bytes) is bound to the wrapping and must be equal at unwrap."""

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """``key`` under the newest wrapping key. Raises RetryLater when the provider cannot do it now."""
        ...

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """The key, called ``name``. Raises Unverified for another context or other bytes, RetryLater when the provider
        cannot do it now: unreachable, not permitted, or the wrapping key is not there."""
        ...


class OwnKeys(Protocol):
    """A provider whose wrapping keys are ours to make and destroy."""

    def rotate(self) -> str:
        """A new wrapping key; the earlier ones stay. Returns its name (``Wrapped.kek``)."""
        ...

    def superseded(self) -> list[str]:
        """Names of the wrapping keys that are not the newest."""
        ...

    def destroy(self, kek: str) -> None:
        """Destroy a superseded wrapping key, for good. One that is not there is no error."""
        ...


def away(provider: str, error: BaseException, hint: str = "") -> RetryLater:
    """The provider cannot do it now. Only the error's kind is told: its text may hold what was sent."""
    return RetryLater(
        f"key provider {provider}: {type(error).__name__}",
        after=RETRY_S,
        code=Code.RETRY,
        hint=hint or "roots wait until it answers again; docs/operations.md says what to look at",
    )


def missing(wrapped: Wrapped, hint: str) -> RetryLater:
    """The wrapping key of ``wrapped`` is not to be had from here: an operator can bring it back."""
    return RetryLater(f"the wrapping key {wrapped.kek} is not there", after=RETRY_S, code=Code.RETRY, hint=hint)


def does_not_open(name: str) -> Unverified:
    """Another context, another key or other bytes than those that were wrapped."""
    return Unverified(f"{name}: does not open under its wrapping key and context", step="unwrap", code=Code.OPEN)


def seal(kek: bytes, key: Secret, context: bytes) -> bytes:
    """``key`` under AES-256-GCM with a random nonce: nonce | ciphertext | tag, ``SEALED_LENGTH`` bytes."""
    nonce = os.urandom(NONCE_LENGTH)
    return nonce + AESGCM(kek).encrypt(nonce, key.reveal(), context)


def unseal(kek: bytes, sealed: bytes, context: bytes, name: str) -> Secret:
    """What ``seal`` sealed. Raises Unverified for another key or context or other bytes."""
    if len(sealed) != SEALED_LENGTH:
        raise does_not_open(name)
    try:
        return Secret(open_with(AESGCM(kek), sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:], context), name)
    except Unverified:
        raise does_not_open(name) from None


def unwrapped(value: bytes, name: str) -> Secret:
    """What a provider returned, as a key. Raises Unverified where it is none."""
    if len(value) != KEY_LENGTH:
        raise Unverified(f"{name}: expected {KEY_LENGTH} bytes, found {len(value)}", step="unwrap", code=Code.OPEN)
    return Secret(value, name)
