"""The tier protocol: protect at the enforcer, open at a reader. One module a tier; the policy alone chooses.

What a domain lacks for its tier the PDP refuses (``tier-unavailable``) before this is reached.
"""

from __future__ import annotations

from typing import Final, Protocol

from bus.crypto.dek import Dek
from bus.crypto.keys import ReadingKey
from bus.policy.decide import Obligations
from bus.tiers.plaintext import Plaintext
from bus.tiers.retrieval import Retrieval, Sourced
from bus.wire.derived import Derived
from bus.wire.names import Tier


class TierModule(Protocol):
    """How one tier protects a released plaintext (``uint32 length | Released | zeros``)."""

    tier: Tier

    def readers(self, obligations: Obligations) -> tuple[tuple[str, str], ...]:
        """Who may open, as ("role" | "target", name); empty where the tier has no keys."""
        ...

    def protect(self, dek: Dek | None, counter: int, plaintext: bytes, aad: bytes) -> bytes:
        """The body of a record."""
        ...

    def open(
        self, bundle: Derived, keys: tuple[ReadingKey, ...], deployment: bytes, topic: str, partition: int
    ) -> list[bytes | None]:
        """Plaintexts of a verified bundle; None where no entry is the reader's. Raises Unverified(open)."""
        ...


TIERS: Final[dict[Tier, TierModule]] = {
    Tier.PLAINTEXT: Plaintext(),
    Tier.RETRIEVAL: Retrieval(),
    Tier.COMPUTATION: Sourced(Tier.COMPUTATION),
    Tier.FHE: Sourced(Tier.FHE),
}
