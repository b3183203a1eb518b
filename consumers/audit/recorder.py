"""Hop blocks to ledger entries, pure: verify, open, one entry a hop. A block that fails is kept, not lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bus.crypto.seal import open_counted
from bus.crypto.signing import Trust, verify_hop_block
from bus.errors import BusError, Unverified
from bus.ledger.leaf import (
    UNVERIFIED_INDEX,
    DayKeys,
    Position,
    constant_terms,
    disclosure_digest,
    hop_key,
    leaf_hash,
    seal_hop,
    search_terms,
    token,
    token_prefix,
)
from bus.ledger.store import Entry, Interval
from bus.native import native
from bus.wire import hopblock, preimage
from bus.wire.hop import MAX_CACHED_TAIL, MAX_TAILS, Hop, HopReader, Verdict, tail_start
from bus.wire.names import AUDIT, domain_of

if TYPE_CHECKING:
    from sealbus_native import DayRecorder

MAX_DAYS: Final = 8
MAX_TOKENS: Final = 16384
MAX_CACHED_VALUE: Final = 256
"""Characters; the token of a longer value is made each time, so that what is remembered is bounded."""
UNIQUE: Final = frozenset({"decision", "message"})
"""Fields whose values do not repeat."""

log = logging.getLogger("bus.audit")


class Recorder:
    """Makes entries of hop blocks. ``keys`` raises RetryLater where a day's root cannot be had now.

    It remembers what repeats, within bounds: constant runs of hops, their tokens, and those of sessions. ``compiled``
    permits the compiled steps where they are installed: they take blocks whose constant runs plain Python all read
    before, and leave any block that is unusual to it, which alone finds one wrong. ``look`` is shown each block that
    verified, its hops, and the numbers of policies that hops named since it last returned; what it raises is raised.
    """

    def __init__(
        self,
        keys: Callable[[int], DayKeys],
        *,
        compiled: bool = True,
        look: Callable[[hopblock.HopBlock, bytes, set[int]], None] = lambda *_: None,
    ) -> None:
        self._keys = keys
        self._look = look
        self._met: set[int] = set()
        self._native = compiled and native is not None
        self._reader = HopReader()
        self._days: dict[int, _Day] = {}

    def record(self, value: bytes, partition: int, offset: int, trust: Trust) -> tuple[list[Entry], list[Interval]]:
        """Entries and the interval of one audit record."""
        try:
            block = hopblock.parse(value)
            verify_hop_block(block, trust, domain_of(block.topic))
        except BusError as error:
            return [_unverified(value, partition, offset, error)], []
        day = self._day(block.day)
        try:
            aad = preimage.hop_block_aad(trust.deployment, block.header)
            opened = open_counted(day.keys.blocks, "audit", block.instance, block.sequence, block.body, aad)
            entries = day.compiled(block, opened, partition, offset)
            if entries is None:
                entries = self._judge(day, block, opened, partition, offset)
        except BusError as error:
            return [_unverified(value, partition, offset, error)], []
        self._look(block, opened, self._met)
        self._met.clear()
        return entries, [Interval(block.topic, block.partition, block.start, block.end, offset)]

    def _day(self, number: int) -> _Day:
        found = self._days.get(number)
        if found is None:
            made = _Day(self._keys(number), compiled=self._native)
            if len(self._days) >= MAX_DAYS:
                self._days.clear()
            found = self._days[number] = made
        return found

    def _judge(self, day: _Day, block: hopblock.HopBlock, opened: bytes, partition: int, offset: int) -> list[Entry]:
        """The entries of a block after plain Python has read it. Raises WireError or Unverified(interval)."""
        data = hopblock.split_hops(opened, block.count)
        hops = [self._reader.read(each) for each in data]
        _check_positions(block, hops)
        # Compiled steps know no constant run that was not read here: a policy's number is met here first.
        self._met.update(hop.tail.snapshot for hop in hops)
        day.learn(data, hops)
        # Its constant runs are known now: one that is new shall not make the block's other hops slow.
        entries = day.compiled(block, opened, partition, offset)
        if entries is not None:
            return entries
        return [
            day.entry(each, hop, Position(AUDIT, partition, offset, index))
            for index, (each, hop) in enumerate(zip(data, hops, strict=True))
        ]


def record_block(
    value: bytes, partition: int, offset: int, trust: Trust, keys: Callable[[int], DayKeys]
) -> tuple[list[Entry], list[Interval]]:
    """Entries and the interval of one audit record by plain Python alone, with nothing remembered."""
    return Recorder(keys, compiled=False).record(value, partition, offset, trust)


class _Day:
    """The keys of a day and what was made with them before."""

    def __init__(self, keys: DayKeys, *, compiled: bool) -> None:
        self.keys = keys
        self._tokens: dict[tuple[str, str], bytes] = {}
        self._native: DayRecorder | None = None
        if compiled and native is not None:
            prefixes = (token_prefix(field) for field in ("decision", "correlation", "message"))
            self._native = native.DayRecorder(keys.hops.reveal(), keys.search.reveal(), *prefixes, MAX_TAILS, Entry)

    def entry(self, data: bytes, hop: Hop, at: Position) -> Entry:
        """What is stored of a hop."""
        k = hop_key(self.keys, at)
        body = seal_hop(k, data, at)
        disclosure = disclosure_digest(k, data)
        tokens = tuple(
            token(self.keys, field, value) if field in UNIQUE else self._repeated(field, value)
            for field, value in search_terms(hop)
        )
        return Entry(self.keys.day, at.offset, at.index, body, disclosure, leaf_hash(at, body, disclosure), tokens)

    def _repeated(self, field: str, value: str) -> bytes:
        found = self._tokens.get((field, value))
        if found is None:
            found = token(self.keys, field, value)
            if len(value) <= MAX_CACHED_VALUE:
                if len(self._tokens) >= MAX_TOKENS:
                    self._tokens.clear()
                self._tokens[field, value] = found
        return found

    def compiled(self, block: hopblock.HopBlock, opened: bytes, partition: int, offset: int) -> list[Entry] | None:
        """The entries of a block; None where plain Python must judge it."""
        if self._native is None:
            return None
        return self._native.record(
            opened,
            block.count,
            block.topic,
            block.partition,
            block.start,
            block.end,
            preimage.hop_key(AUDIT, partition, offset, 0)[:-4],
            preimage.audit_position(AUDIT, partition, offset, 0)[:-4],
            block.day,
            offset,
        )

    def learn(self, data: list[bytes], hops: list[Hop]) -> None:
        """Have the constant runs of accepted hops known from now on."""
        if self._native is None:
            return
        tails = {each[tail_start(each) :]: hop.tail for each, hop in zip(data, hops, strict=True)}
        for tail, told in tails.items():
            if len(tail) <= MAX_CACHED_TAIL:
                tokens = [self._repeated(field, value) for field, value in constant_terms(told)]
                self._native.learn(tail, told.topic, told.decision is Verdict.RETRY, tokens)


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


def _unverified(value: bytes, partition: int, offset: int, error: BusError) -> Entry:
    """The block as it came: still sealed by whoever wrote it, and named in `bus audit verify`."""
    log.error("%s/%d at %d: hop block does not verify: %s", AUDIT, partition, offset, error)
    at = Position(AUDIT, partition, offset, UNVERIFIED_INDEX)
    disclosure = bytes(32)
    return Entry(0, offset, UNVERIFIED_INDEX, value, disclosure, leaf_hash(at, value, disclosure), ())
