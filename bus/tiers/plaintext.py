"""PLAINTEXT: the payload as it is, authenticated by the bundle's signature. Development mode only."""

from __future__ import annotations

from bus.crypto.dek import Dek
from bus.crypto.keys import ReadingKey
from bus.policy.decide import Obligations
from bus.wire.derived import Derived
from bus.wire.names import Tier


class Plaintext:
    """No keys: anyone with READ on the topic."""

    tier = Tier.PLAINTEXT

    def readers(self, _obligations: Obligations) -> tuple[tuple[str, str], ...]:
        """Nobody in particular."""
        return ()

    def protect(self, _dek: Dek | None, _counter: int, plaintext: bytes, _aad: bytes) -> bytes:
        """The plaintext."""
        return plaintext

    def open(
        self, bundle: Derived, _keys: tuple[ReadingKey, ...], _deployment: bytes, _topic: str, _partition: int
    ) -> list[bytes | None]:
        """Every body."""
        return [entry.body for entry in bundle.entries]
