"""Framing of a Derived bundle (enforcer -> readers): head, key table, 1 to 32 records, one signature.

``parse`` slices and checks bounds before anything is verified; the RFC 6962 leaves and what is signed are in
``bus.crypto.signing``. The Avro layout is schemas/derived.v1.avsc and schemas/key_table.v1.avsc.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.names import Tier
from bus.wire.schemas import schema

SUITE: Final = (1).to_bytes(2, "big")
MARK: Final = schema("derived").head
HEAD_LENGTH: Final = 93
MAX_RECORDS: Final = 32
MAX_BUNDLE: Final = 256 * 1024
"""Bytes of bodies that are put into one bundle; one larger record travels alone."""
MAX_SETS: Final = 32
MAX_ENTRIES: Final = 63
MAX_TOKENS: Final = 64
"""Blind index tokens of one record, over all its readers."""
TOKEN_LENGTH: Final = 16
WRAPPED_LENGTH: Final = 60
FIXED_LENGTH: Final = 26
ENTRY_LENGTH: Final = 8 + WRAPPED_LENGTH
NO_SET: Final = 0xFFFF
NO_COMMITMENT: Final = bytes(32)
MAX_OVERHEAD: Final = (
    10 + HEAD_LENGTH + 3 + (32 + 3 + MAX_ENTRIES * ENTRY_LENGTH + 1) + (3 + MAX_TOKENS * (2 + TOKEN_LENGTH)) + 64 + 128
)
"""Bytes that a bundle of one adds, at worst, to the plaintext of the Sealed it came from."""
MAX_VALUE: Final = 1_048_576 - 512
"""Bytes of the largest bundle that the broker's default `max.message.bytes` takes."""


@dataclass(frozen=True, slots=True)
class Head:
    """What all records of a bundle share. Times in ms since 1970."""

    tier: Tier
    epoch: int
    policy_digest: bytes
    enforcer_key_id: bytes
    instance: bytes
    sequence: int
    decided_at: int
    count: int

    def encode(self) -> bytes:
        """The 93 bytes of the head."""
        return b"".join(
            (
                SUITE,
                self.tier.to_bytes(1, "big"),
                self.epoch.to_bytes(8, "big"),
                self.policy_digest,
                self.enforcer_key_id,
                self.instance,
                self.sequence.to_bytes(8, "big"),
                self.decided_at.to_bytes(8, "big"),
                self.count.to_bytes(2, "big"),
            )
        )


@dataclass(frozen=True, slots=True)
class ReaderSet:
    """A DEK's commitment and its wrapped copies: (reader key id, wrapped DEK)."""

    commitment: bytes
    entries: tuple[tuple[bytes, bytes], ...]


Index = tuple[tuple[int, bytes], ...]
"""(Place of a record in the bundle, blind token), ascending: what records are found by without being opened."""


class Entry(NamedTuple):
    """One record of a bundle, sealed. ``fixed`` = record id | set | counter, as it stands."""

    fixed: bytes
    reader_set: int
    counter: int
    body: bytes

    @property
    def record_id(self) -> bytes:
        """16 random bytes that its AAD covers."""
        return self.fixed[:16]

    @property
    def leaf_tail(self) -> bytes:
        """What its leaf hash covers after the head."""
        return self.fixed + self.body


@dataclass(frozen=True, slots=True)
class Derived:
    """A framed, unverified bundle. ``head_bytes`` and ``key_table`` are as they stand on the wire."""

    head: Head
    head_bytes: bytes
    key_table: bytes
    sets: tuple[ReaderSet, ...]
    index: Index
    entries: tuple[Entry, ...]
    signature: bytes


def encode_key_table(sets: tuple[ReaderSet, ...], index: Index = ()) -> bytes:
    """Reader sets and index: an Avro array each, of one block, with shortest lengths."""
    out = []
    if sets:
        out.append(codec.length(len(sets)))
        for each in sets:
            out.append(each.commitment)
            out.append(codec.length(len(each.entries)))
            out.extend(key_id + wrapped for key_id, wrapped in each.entries)
            out.append(b"\x00")
    out.append(b"\x00")
    if index:
        out.append(codec.length(len(index)))
        out.extend(number.to_bytes(2, "big") + token for number, token in index)
    out.append(b"\x00")
    return b"".join(out)


def encode(head: bytes, key_table: bytes, entries: list[bytes], signature: bytes) -> bytes:
    """A bundle from its encoded parts; ``entries`` are record id | set | counter | length | body."""
    return b"".join(
        (
            MARK,
            head,
            codec.prefixed(key_table),
            codec.length(len(entries)),
            *entries,
            b"\x00",
            signature,
        )
    )


def parse_head(data: bytes) -> Head:
    """A head from its 93 bytes. Raises WireError: version (suite), bounds (tier, count)."""
    if data[:2] != SUITE:
        raise WireError(f"derived: expected suite {SUITE.hex()}, found {data[:2].hex()}", code=Code.VERSION)
    count = int.from_bytes(data[91:93], "big")
    if data[2] > max(Tier) or not 1 <= count <= MAX_RECORDS:
        raise WireError(f"derived: tier {data[2]}, count {count}: expected tier 0 to 3, count 1 to 32")
    return Head(
        tier=Tier(data[2]),
        epoch=int.from_bytes(data[3:11], "big"),
        policy_digest=data[11:43],
        enforcer_key_id=data[43:59],
        instance=data[59:75],
        sequence=int.from_bytes(data[75:83], "big"),
        decided_at=int.from_bytes(data[83:91], "big"),
        count=count,
    )


def parse_key_table(data: bytes) -> tuple[tuple[ReaderSet, ...], Index]:
    """The reader sets and the index of a key table; raises WireError(bounds) for what ``encode_key_table`` would not
    write."""
    sets, at = _sets(data)
    index, at = _index(data, at)
    if at != len(data):
        raise WireError("key table: bytes after the index")
    return sets, index


def _sets(data: bytes) -> tuple[tuple[ReaderSet, ...], int]:
    if data[:1] == b"\x00":
        return (), 1
    sets = []
    count, at = codec.read_length(data, 0)
    if not 1 <= count <= MAX_SETS:
        raise WireError(f"key table: expected 1 to {MAX_SETS} reader sets, found {count}")
    for _ in range(count):
        commitment = data[at : at + 32]
        entries, at = codec.read_length(data, at + 32)
        end = at + entries * ENTRY_LENGTH
        if not 1 <= entries <= MAX_ENTRIES or data[end : end + 1] != b"\x00":
            raise WireError(f"key table: reader set of {entries} entries is over its bounds")
        cut = range(at, end, ENTRY_LENGTH)
        sets.append(ReaderSet(commitment, tuple((data[i : i + 8], data[i + 8 : i + ENTRY_LENGTH]) for i in cut)))
        at = end + 1
    return tuple(sets), _end(data, at, "reader set")


def _index(data: bytes, at: int) -> tuple[Index, int]:
    if data[at : at + 1] == b"\x00":
        return (), at + 1
    count, at = codec.read_length(data, at)
    size = 2 + TOKEN_LENGTH
    if not 1 <= count <= MAX_RECORDS * MAX_TOKENS or len(data) < at + count * size:
        raise WireError(f"key table: an index of {count} tokens is over its bounds")
    entries = [data[start : start + size] for start in range(at, at + count * size, size)]
    if any(one >= other for one, other in pairwise(entries)):
        raise WireError("key table: the index is not in order")
    index = tuple((int.from_bytes(each[:2], "big"), each[2:]) for each in entries)
    return index, _end(data, at + count * size, "token")


def _end(data: bytes, at: int, what: str) -> int:
    if data[at : at + 1] != b"\x00":
        raise WireError(f"key table: expected the end of an array behind the last {what}")
    return at + 1


def parse(value: bytes) -> Derived:
    """Slice ``value``. Raises WireError: bounds (sizes, counts, trailing bytes) or version (marker, suite)."""
    codec.check_marker(schema("derived"), value)
    if not 10 + HEAD_LENGTH + 64 < len(value) <= MAX_VALUE:
        raise WireError(f"derived: expected up to {MAX_VALUE} bytes, found {len(value)}")
    head_bytes = value[10 : 10 + HEAD_LENGTH]
    head = parse_head(head_bytes)
    key_table, at = codec.read_prefixed(value, 10 + HEAD_LENGTH, MAX_VALUE)
    sets, index = parse_key_table(key_table)
    count, at = codec.read_length(value, at)
    if count != head.count:
        raise WireError(f"derived: head says {head.count} records, found {count}")
    if index and index[-1][0] >= count:
        raise WireError(f"derived: its index names record {index[-1][0]} of {count}")
    entries = []
    for _ in range(count):
        fixed = value[at : at + FIXED_LENGTH]
        number, counter = int.from_bytes(fixed[16:18], "big"), int.from_bytes(fixed[18:], "big")
        body, at = codec.read_prefixed(value, at + FIXED_LENGTH, MAX_VALUE)
        if number >= len(sets) and (number != NO_SET or head.tier is not Tier.PLAINTEXT):
            raise WireError(f"derived: reader set {number} of {len(sets)}")
        entries.append(Entry(fixed, number, counter, body))
    if value[at : at + 1] != b"\x00" or len(value) != at + 65:
        raise WireError("derived: expected one block and a signature of 64 bytes at the end")
    return Derived(head, head_bytes, key_table, sets, index, tuple(entries), value[at + 1 :])
