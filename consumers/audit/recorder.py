"""Hop blocks to ledger entries, pure: verify, open, one entry a hop. A block that fails is kept, not lost."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bus.crypto.seal import open_counted
from bus.crypto.signing import Trust, verify_hop_block
from bus.errors import BusError, Unverified
from bus.ledger.leaf import (
    UNVERIFIED_INDEX,
    DayKeys,
    Position,
    disclosure_digest,
    hop_key,
    leaf_hash,
    seal_hop,
    search_terms,
    token,
)
from bus.ledger.store import Entry, Interval
from bus.wire import hopblock, preimage
from bus.wire.hop import Hop, Verdict, decode_hop
from bus.wire.names import AUDIT, domain_of

log = logging.getLogger("bus.audit")


def record_block(
    value: bytes, partition: int, offset: int, trust: Trust, keys: Callable[[int], DayKeys]
) -> tuple[list[Entry], list[Interval]]:
    """Entries and the interval of one audit record. ``keys`` raises RetryLater where a day's root cannot be had now."""
    try:
        block = hopblock.parse(value)
        verify_hop_block(block, trust, domain_of(block.topic))
    except BusError as error:
        return [_unverified(value, partition, offset, error)], []
    day = keys(block.day)
    try:
        aad = preimage.hop_block_aad(trust.deployment, block.header)
        opened = open_counted(day.blocks, "audit", block.instance, block.sequence, block.body, aad)
        hops = hopblock.split_hops(opened, block.count)
        _check_positions(block, [decode_hop(hop) for hop in hops])
        entries = [_entry(hop, day, Position(AUDIT, partition, offset, index)) for index, hop in enumerate(hops)]
    except BusError as error:
        return [_unverified(value, partition, offset, error)], []
    return entries, [Interval(block.topic, block.partition, block.start, block.end, offset)]


def _check_positions(block: hopblock.HopBlock, hops: list[Hop]) -> None:
    """Raise Unverified unless each record's hop stands in the interval, in order and once; events within it."""
    last = block.start - 1
    for hop in hops:
        event = hop.tail.decision is Verdict.RETRY
        inside = block.start <= hop.offset <= block.end if event else last < hop.offset < block.end
        if (hop.tail.topic, hop.partition) != (block.topic, block.partition) or not inside:
            raise Unverified(f"hop block: a hop of {hop.tail.topic}/{hop.partition}@{hop.offset}", step="interval")
        if not event:
            last = hop.offset


def _entry(hop: bytes, day: DayKeys, at: Position) -> Entry:
    k = hop_key(day, at)
    body = seal_hop(k, hop, at)
    disclosure = disclosure_digest(k, hop)
    tokens = tuple(token(day, field, value) for field, value in search_terms(decode_hop(hop)))
    return Entry(day.day, at.offset, at.index, body, disclosure, leaf_hash(at, body, disclosure), tokens)


def _unverified(value: bytes, partition: int, offset: int, error: BusError) -> Entry:
    """The block as it came: still sealed by whoever wrote it, and named in `bus audit verify`."""
    log.error("%s/%d at %d: hop block does not verify: %s", AUDIT, partition, offset, error)
    at = Position(AUDIT, partition, offset, UNVERIFIED_INDEX)
    disclosure = bytes(32)
    return Entry(0, offset, UNVERIFIED_INDEX, value, disclosure, leaf_hash(at, value, disclosure), ())
