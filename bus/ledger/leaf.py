"""What a hop becomes in the ledger: a sealed body, a leaf, blind search tokens. Pure and deterministic.

k = HMAC(day key, position); body = AES-GCM under k with a zero nonce (k is used once); leaf data = position |
SHA-256(body) | SHA-256(k | hop). Two recorders make the same bytes; disclosing one hop and its k opens no other.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.crypto import tree
from bus.crypto.keys import Secret, purpose_key
from bus.crypto.seal import open_with
from bus.errors import Unverified
from bus.wire import preimage
from bus.wire.hop import Hop, HopTail

ZERO_NONCE: Final = bytes(12)
TOKEN_LENGTH: Final = 16
UNVERIFIED_INDEX: Final = 2**32 - 1
"""Hop index of an entry that holds a whole block which did not verify."""


@dataclass(frozen=True, slots=True)
class DayKeys:
    """Keys of one audit day: ``hops`` gives each k, ``search`` blinds tokens, ``blocks`` opens hop blocks."""

    day: int
    hops: Secret
    search: Secret
    blocks: Secret


def day_keys(day: int, root: Secret) -> DayKeys:
    """Keys from root(audit, day)."""
    return DayKeys(day, purpose_key(root, "ledger"), purpose_key(root, "search"), purpose_key(root, "block"))


def days_keys(root: Callable[[int], Secret]) -> Callable[[int], DayKeys]:
    """Keys by day, made once each; ``root`` gives root(audit, day), and what it raises is raised each time."""
    return functools.cache(lambda day: day_keys(day, root(day)))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a hop stands in the audit log."""

    topic: str
    partition: int
    offset: int
    index: int

    def encode(self) -> bytes:
        """Its bytes in a leaf."""
        return preimage.audit_position(self.topic, self.partition, self.offset, self.index)


def hop_key(keys: DayKeys, at: Position) -> bytes:
    """k of one hop (32 bytes)."""
    message = preimage.hop_key(at.topic, at.partition, at.offset, at.index)
    return hmac.digest(keys.hops.reveal(), message, "sha256")


def seal_hop(k: bytes, hop: bytes, at: Position) -> bytes:
    """The stored body."""
    return AESGCM(k).encrypt(ZERO_NONCE, hop, at.encode())


def open_hop(k: bytes, body: bytes, at: Position) -> bytes:
    """The hop in a stored body. Raises Unverified(open)."""
    return open_with(AESGCM(k), ZERO_NONCE, body, at.encode())


def disclosure_digest(k: bytes, hop: bytes) -> bytes:
    """SHA-256(k | hop): commits to what `prove` discloses."""
    return hashlib.sha256(k + hop).digest()


def leaf_hash(at: Position, body: bytes, disclosure: bytes) -> bytes:
    """The leaf in the tree."""
    return tree.leaf_hash(at.encode() + hashlib.sha256(body).digest() + disclosure)


def token_prefix(field: str) -> bytes:
    """What stands before the value (behind its length) in the preimage of a token."""
    return preimage.label("ledger/token") + preimage.part(field.encode())


def token(keys: DayKeys, field: str, value: str) -> bytes:
    """Blind token of a searchable value on one day."""
    message = token_prefix(field) + preimage.part(value.encode())
    return hmac.digest(keys.search.reveal(), message, "sha256")[:TOKEN_LENGTH]


def constant_terms(tail: HopTail) -> list[tuple[str, str]]:
    """What every hop with this constant run can be found by."""
    terms = [
        ("verdict", tail.decision.value),
        ("code", tail.code.value),
        ("agent", tail.agent),
        ("domain", tail.domain),
    ]
    return [(field, value) for field, value in terms if value]


def search_terms(hop: Hop) -> list[tuple[str, str]]:
    """What a hop can be found by."""
    terms = [
        ("decision", hop.decision_id),
        *constant_terms(hop.tail),
        ("correlation", hop.correlation_id),
        ("message", hop.message_id.hex() if any(hop.message_id) else ""),
    ]
    terms += [("message", each.hex()) for each in hop.causation_ids]
    return [(field, value) for field, value in terms if value]


def verify_disclosure(k: bytes, hop: bytes, body: bytes, at: Position) -> bytes:
    """The leaf of a disclosed hop, after checking that ``body`` holds it. Raises Unverified(open, disclosure)."""
    if open_hop(k, body, at) != hop:
        raise Unverified("disclosure: the body holds another hop", step="disclosure")
    return leaf_hash(at, body, disclosure_digest(k, hop))
