"""RETRIEVAL: AES-256-GCM under a DEK that is wrapped per allowed role, or for the one target of a targeted record."""

from __future__ import annotations

from bus.codes import Code
from bus.crypto.dek import Dek, unwrap
from bus.crypto.keys import ReadingKey
from bus.crypto.seal import Opener
from bus.errors import Unverified
from bus.policy.decide import Obligations
from bus.wire import preimage
from bus.wire.derived import Derived
from bus.wire.names import Tier


class Retrieval:
    """Who holds a lease of the record's reader set opens it."""

    tier: Tier = Tier.RETRIEVAL

    def readers(self, obligations: Obligations) -> tuple[tuple[str, str], ...]:
        """The target alone, or every role that may consume."""
        if obligations.target:
            return (("target", obligations.target),)
        return tuple(("role", role) for role in obligations.roles)

    def protect(self, dek: Dek | None, counter: int, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext and tag."""
        if dek is None:
            raise Unverified("retrieval: no DEK", step="protect", code=Code.INTERNAL)
        return dek.aead.encrypt(preimage.counter_nonce(counter), plaintext, aad)

    def open(
        self, bundle: Derived, keys: tuple[ReadingKey, ...], deployment: bytes, topic: str, partition: int
    ) -> list[bytes | None]:
        """Plaintexts of the records that one of ``keys`` may open."""
        opened = [self._dek(bundle, number, keys, deployment, topic) for number in range(len(bundle.sets))]
        prefix = preimage.derived_aad(deployment, topic, partition) + bundle.head_bytes
        covered = [prefix + each.commitment for each in bundle.sets]
        if len(opened) == 1 and (only := opened[0]) is not None:  # most bundles
            return list(only.open_entries(bundle.entries, covered[0]))
        plaintexts: list[bytes | None] = []
        for fixed, number, counter, body in bundle.entries:
            opener = opened[number]
            nonce = preimage.counter_nonce(counter)
            plaintexts.append(None if opener is None else opener.open(nonce, body, covered[number] + fixed[:16]))
        return plaintexts

    def _dek(
        self, bundle: Derived, number: int, keys: tuple[ReadingKey, ...], deployment: bytes, topic: str
    ) -> Opener | None:
        for key in keys:
            found = unwrap(key, bundle.sets[number], deployment, topic, bundle.head.epoch)
            if found is not None:
                return found
        return None


class Sourced(Retrieval):
    """COMPUTATION and FHE with payloads that were protected at their source (``bus.crypto.session``): the enforcer
    seals the envelope around them to its readers like any other, and the payload stays closed to it."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
