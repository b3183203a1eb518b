"""The search index: which leaves a blind token finds. Pure.

A place is partition and leaf in one number. Within a hop block, a token of several leaves takes a row of its own: the
first leaf and, behind it, the others as lengths of runs and of the gaps between them. Most tokens are of one leaf;
those that begin with the same six bits share a row. Rows are kept by segments of 2^14 leaves, so that tokens, which are
as good as random, are written into a small part of the index at a time; a search looks into every segment once. Rows
end with their hop block, so that the index does not depend on how many blocks a database transaction holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from bus.ledger.leaf import TOKEN_LENGTH
from bus.native import native
from bus.wire import codec

if TYPE_CHECKING:
    from bus.ledger.store import Entry

LEAF_BITS: Final = 40
SEGMENT_BITS: Final = 14
BUCKET_BITS: Final = 6
MAX_BLOCK: Final = 1 << 16
"""Leaves that share rows: more than a hop block can have."""
Row: TypeAlias = tuple[int, bytes, int, bytes]
"""Segment of the first leaf, token, place of the first leaf, the others."""
Single: TypeAlias = tuple[int, int, int, bytes]
"""Segment of a block's first leaf, bucket, place of that leaf; each token, and its leaf counted from there (uint16)."""
SINGLE_LENGTH: Final = TOKEN_LENGTH + 2


def place(partition: int, leaf: int) -> int:
    """Partition and leaf in one number."""
    return partition << LEAF_BITS | leaf


def bucket(token: bytes) -> int:
    """The bits by which tokens of one leaf share a row."""
    return token[0] >> (8 - BUCKET_BITS)


def rows(entries: Sequence[Entry], partition: int, leaf: int) -> tuple[list[Row], list[Single]]:
    """The rows of ``entries``, the first of which becomes ``leaf``: ``plain_rows``, compiled where it is installed."""
    if native is None:
        return plain_rows(entries, partition, leaf)
    made: tuple[list[Row], list[Single]] = native.postings(
        entries, place(partition, leaf), SEGMENT_BITS, BUCKET_BITS, MAX_BLOCK
    )
    return made


def plain_rows(entries: Sequence[Entry], partition: int, leaf: int) -> tuple[list[Row], list[Single]]:
    """Rows block by block, in the order in which their tokens are met; single ones by bucket."""
    several: list[Row] = []
    single: list[Single] = []
    found: dict[bytes, list[int]] = {}
    block, start = None, place(partition, leaf)

    def flush() -> None:
        buckets: dict[int, bytes] = {}
        for token, (first, *others) in found.items():
            if others:
                several.append((first >> SEGMENT_BITS, token, first, _others(first, others)))
            else:
                number = bucket(token)
                buckets[number] = buckets.get(number, b"") + token + (first - start).to_bytes(2, "big")
        single.extend((start >> SEGMENT_BITS, number, start, buckets[number]) for number in sorted(buckets))
        found.clear()

    for at, each in enumerate(entries, start):
        if each.offset != block or at - start == MAX_BLOCK:
            flush()
            block, start = each.offset, at
        for token in each.tokens:
            if len(token) != TOKEN_LENGTH:
                raise ValueError(f"token: expected {TOKEN_LENGTH} bytes, found {len(token)}")
            places = found.setdefault(token, [])
            if not places or places[-1] != at:
                places.append(at)
    flush()
    return several, single


def _others(last: int, others: list[int]) -> bytes:
    run, made = 0, b""
    for at in others:
        if at == last + 1:
            run += 1
        else:
            made += codec.length(run) + codec.length(at - last - 2)
            run = 0
        last = at
    return made + codec.length(run)


def leaves(first: int, others: bytes, size: int) -> Iterator[tuple[int, int]]:
    """(partition, leaf) that a row finds, below ``size`` leaves. Raises WireError for a row that no recorder writes."""
    partition, leaf = first >> LEAF_BITS, first & (1 << LEAF_BITS) - 1
    run = at = 0
    while True:
        if others:
            run, at = codec.read_length(others, at)
        for number in range(leaf, min(leaf + run + 1, size)):
            yield partition, number
        if at == len(others):
            return
        gap, at = codec.read_length(others, at)
        leaf += run + gap + 2


def single_leaves(first: int, tokens: bytes, token: bytes, size: int) -> Iterator[tuple[int, int]]:
    """(partition, leaf) of ``token`` in a row of single ones, below ``size`` leaves."""
    for at in range(0, len(tokens), SINGLE_LENGTH):
        if tokens[at : at + TOKEN_LENGTH] == token:
            leaf = first + int.from_bytes(tokens[at + TOKEN_LENGTH : at + SINGLE_LENGTH], "big")
            yield from leaves(leaf, b"", size)
