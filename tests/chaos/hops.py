"""Hops read out of the ledger's file by docs/wire-format.md, sections 2, 7 and 14: no code of the product.

Only the wrapping of the day's root is not on that page: AES-256-GCM under the `file` provider's key, with the root's
name as additional data.
"""

import hmac
import json
import sqlite3
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.integration.oracle import varint

DECISIONS = ("ALLOW", "DENY", "RETRY")
UNVERIFIED = (1 << 32) - 1
"""Hop index under which a block that does not verify is kept."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What the oracle needs of a hop."""

    topic: str
    partition: int
    offset: int
    decision: str
    code: str
    origin: bytes
    output: bytes
    message_id: bytes


def part(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def label(use: str) -> bytes:
    return part(b"sealbus/v1/" + use.encode())


def string(data: bytes, at: int) -> tuple[str, int]:
    size, at = varint(data, at)
    return data[at : at + size].decode(), at + size


def parse_hop(data: bytes) -> Hop:
    """Section 7, as far as the code."""
    _, at = string(data, 150)
    count, at = varint(data, at)
    if count:
        at += 16 * count
        _, at = varint(data, at)
    topic, at = string(data, at)
    decision, at = varint(data, at)
    code, _ = string(data, at)
    partition, offset = int.from_bytes(data[114:118], "big"), int.from_bytes(data[118:126], "big")
    return Hop(topic, partition, offset, DECISIONS[decision], code, data[10:42], data[42:74], data[74:90])


class LedgerFile:
    """Reads entries that are new since the last call."""

    def __init__(self, state: Path, deployment: bytes) -> None:
        self._path = state / "ledger" / "ledger.db"
        self._keys = state / "keys"
        self._deployment = deployment
        self._days: dict[int, bytes] = {}
        self._leaves: dict[int, int] = {}

    def new_hops(self) -> list[Hop]:
        """Hops since the last call. Raises AssertionError for a block that the audit consumer could not verify."""
        try:
            db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10)
        except sqlite3.OperationalError:
            return []  # not made yet
        try:
            rows = []
            query = "select leaf, day, offset, hop, body from entry where partition = ? and leaf >= ? order by leaf"
            for (partition,) in db.execute("select partition from state").fetchall():
                found = db.execute(query, (partition, self._leaves.get(partition, 0))).fetchall()
                rows += [(partition, *row) for row in found]
        except sqlite3.OperationalError:
            return []  # its disk is full: all of it is read next time
        finally:
            db.close()
        for partition, leaf, *_ in rows:
            self._leaves[partition] = leaf + 1
        return [self._open(partition, *rest) for partition, _, *rest in rows]

    def _open(self, partition: int, day: int, offset: int, index: int, body: bytes) -> Hop:
        assert index != UNVERIFIED, f"bus.audit/{partition} at {offset}: the ledger holds a block that does not verify"
        numbers = partition.to_bytes(4, "big") + offset.to_bytes(8, "big") + index.to_bytes(4, "big")
        position = part(b"bus.audit") + numbers
        k = hmac.digest(self._day(day), label("ledger/hop") + position, "sha256")
        return parse_hop(AESGCM(k).decrypt(bytes(12), body, position))

    def _day(self, day: int) -> bytes:
        found = self._days.get(day)
        if found is None:
            wrapped = bytes.fromhex(json.loads((self._keys / "audit" / str(day)).read_bytes())["wrapped"])
            context = label("root/audit") + self._deployment + day.to_bytes(4, "big")
            root = AESGCM((self._keys / "kek").read_bytes()).decrypt(wrapped[:12], wrapped[12:], context)
            info = label("key/purpose") + part(b"ledger")
            found = self._days[day] = hmac.digest(root, info + b"\1", "sha256")
        return found


def leaf_hash(value: bytes) -> bytes:
    """The output digest of a dead letter: H(00 | value)."""
    return sha256(b"\0" + value).digest()
