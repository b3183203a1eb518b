"""Seal and open Sealed records, and the AEAD helper for records that one process counts.

The sealer owns the counters: a sequence is consumed when sealing starts and is never used for other bytes, so a
(key, nonce) pair cannot repeat whatever fails later. The opener verifies the MAC before anything is decrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC

from bus.codes import Code
from bus.crypto.keys import AgentKeys, Secret, fresh_instance, instance_key
from bus.errors import Refused, Unverified
from bus.native import native
from bus.wire import codec, preimage, sealed
from bus.wire.derived import Entry

if TYPE_CHECKING:
    from sealbus_native import Cipher
    from sealbus_native import Sealer as CompiledSealer

MAX_USES: Final = 2**32
"""Messages under one AES-GCM key before it is refused (NIST SP 800-38D, section 8.3)."""


def mac_state(key: Secret, prefix: bytes = b"") -> HMAC:
    """A keyed HMAC-SHA256 state that has taken ``prefix``; copy it per record."""
    state = HMAC(key.reveal(), hashes.SHA256())
    state.update(prefix)
    return state


class Sealer:
    """Seals one process's records to one topic under one agent key and a fresh instance.

    Not thread-safe: the owner serialises calls. A forked child must make its own.
    """

    __slots__ = ("_deployment", "_header", "_lanes", "_seal", "_sequences", "_topic", "compiled", "instance", "keys")

    def __init__(
        self, keys: AgentKeys, deployment: bytes, topic: str, instance: bytes | None = None, *, compiled: bool = True
    ) -> None:
        """``compiled`` permits the compiled steps where they are installed."""
        self.keys = keys
        self.instance = fresh_instance() if instance is None else instance
        self.compiled = compiled and native is not None
        self._deployment = deployment
        self._topic = topic
        self._seal = instance_key(keys.seal, "seal", self.instance)
        self._header = sealed.HEAD + keys.key_id + self.instance
        self._sequences: dict[int, int] = {}
        self._lanes: dict[int, _Lane | CompiledSealer] = {}

    def next_sequence(self, partition: int) -> int:
        """The sequence that the next record of ``partition`` will get."""
        return self._sequences.get(partition, 0)

    def seal(self, partition: int, plaintext: bytes) -> tuple[int, bytes]:
        """(sequence, value) of a Sealed for ``partition``. Raises Refused when the key is used up."""
        sequence = self._sequences.get(partition, 0)
        if sequence >= MAX_USES:
            raise Refused("seal key: used up; a new epoch brings a new one", code=Code.EPOCH_LATE)
        self._sequences[partition] = sequence + 1  # consumed, whatever happens below
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = self._lane(partition)
        return sequence, lane.seal(sequence, plaintext)

    def _lane(self, partition: int) -> _Lane | CompiledSealer:
        make: type[_Lane | CompiledSealer] = native.Sealer if native is not None and self.compiled else _Lane
        return make(
            self.keys.mac.reveal(),
            preimage.sealed_mac(self._deployment, self._topic, partition),
            self._seal.reveal(),
            preimage.sealed_aad(self._deployment, self._topic, partition),
            self._header,
            partition,
        )


class _Lane:
    """Keys and preimages of one sending process on one partition: what ``sealbus_native.Sealer`` is in plain Python."""

    __slots__ = ("_aad", "_aead", "_header", "_mac", "_partition")

    def __init__(
        self, mac_key: bytes, mac_prefix: bytes, seal_key: bytes, aad: bytes, header: bytes, partition: int
    ) -> None:
        self._mac = HMAC(mac_key, hashes.SHA256())
        self._mac.update(mac_prefix)
        self._aead = AESGCM(seal_key)
        self._aad = aad
        self._header = header
        self._partition = partition

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        header = self._header + sequence.to_bytes(8, "big")
        body = self._aead.encrypt(preimage.sealed_nonce(self._partition, sequence), plaintext, self._aad + header)
        size = codec.length(len(body))
        mac = self._mac.copy()
        mac.update(header + size)
        mac.update(body)
        return b"".join((header, mac.finalize(), size, body))


def verify_mac(state: HMAC, record: sealed.Sealed) -> None:
    """Check the MAC of ``record`` with a state from ``mac_state``; raises Unverified(mac)."""
    mac = state.copy()
    mac.update(record.header)
    mac.update(record.tail)
    try:
        mac.verify(record.mac)
    except InvalidSignature:
        raise Unverified("sealed: MAC does not hold", step="mac", code=Code.MAC) from None


def open_sealed(keys: AgentKeys, deployment: bytes, topic: str, partition: int, value: bytes) -> bytes:
    """The plaintext of a Sealed, MAC first. Raises WireError, Unverified(mac) or Unverified(open)."""
    record = sealed.parse(value)
    verify_mac(mac_state(keys.mac, preimage.sealed_mac(deployment, topic, partition)), record)
    aad = preimage.sealed_aad(deployment, topic, partition) + record.header
    aead = AESGCM(instance_key(keys.seal, "seal", record.instance).reveal())
    return open_with(aead, preimage.sealed_nonce(partition, record.sequence), record.body, aad)


def open_with(aead: AESGCM, nonce: bytes, body: bytes, aad: bytes) -> bytes:
    """AES-GCM decryption; raises Unverified(open) when the tag does not hold."""
    try:
        return aead.decrypt(nonce, body, aad)
    except InvalidTag:
        raise Unverified("body: does not open under this key and context", step="open", code=Code.OPEN) from None


class Opener:
    """AES-256-GCM under one key, for opening alone; compiled where it is installed."""

    __slots__ = ("_aead", "_cipher")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._cipher: Cipher | None = native.Cipher(key) if native is not None else None

    def open(self, nonce: bytes, body: bytes, aad: bytes) -> bytes:
        """Raises Unverified(open) when the tag does not hold."""
        found = self._cipher.open(nonce, body, aad) if self._cipher is not None else None
        return found if found is not None else open_with(self._aead, nonce, body, aad)

    def open_entries(self, entries: Sequence[Entry], covered: bytes) -> list[bytes]:
        """Plaintexts of a bundle's entries; ``covered`` is their AAD before the record id. Raises Unverified(open)."""
        found = self._cipher.open_entries(covered, entries) if self._cipher is not None else []
        whole = [each for each in found if each is not None]
        if len(whole) == len(entries):
            return whole
        return [
            open_with(self._aead, preimage.counter_nonce(counter), body, covered + fixed[:16])
            for fixed, _, counter, body in entries
        ]


class CountingAead:
    """AES-256-GCM under a process's own subkey of a shared key; the counter is the nonce and only rises."""

    __slots__ = ("_aead", "_counter", "instance")

    def __init__(self, key: Secret, use: str, instance: bytes) -> None:
        self.instance = instance
        self._aead = AESGCM(instance_key(key, use, instance).reveal())
        self._counter = 0

    def next(self) -> int:
        """Consume and return the next counter. Raises Refused when the key is used up."""
        counter = self._counter
        if counter >= MAX_USES:
            raise Refused("instance key: used up", code=Code.EPOCH_LATE)
        self._counter = counter + 1
        return counter

    def seal(self, counter: int, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext and tag under a counter from ``next``."""
        return self._aead.encrypt(preimage.counter_nonce(counter), plaintext, aad)


def open_counted(key: Secret, use: str, instance: bytes, counter: int, body: bytes, aad: bytes) -> bytes:
    """Open what a ``CountingAead`` of another process sealed. Raises Unverified(open)."""
    aead = AESGCM(instance_key(key, use, instance).reveal())
    return open_with(aead, preimage.counter_nonce(counter), body, aad)
