"""The key provider protocol: custody of the key that wraps roots."""

from __future__ import annotations

from typing import Protocol

from bus.crypto.keys import Secret


class KeyProvider(Protocol):
    """Wraps and unwraps 32-byte keys; ``context`` (bytes) is bound to the wrapping and must be equal at unwrap."""

    @property
    def kek_id(self) -> str:
        """Name of the wrapping key, stored beside what it wrapped."""
        ...

    def wrap(self, key: Secret, context: bytes) -> bytes:
        """``key`` wrapped. Raises RetryLater when the provider cannot be reached."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes, name: str) -> Secret:
        """The key. Raises Unverified for another context or key, RetryLater when the provider cannot be reached."""
        ...
