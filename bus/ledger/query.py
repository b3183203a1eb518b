"""Search, trace and prove over a ledger, for whoever holds the days' keys."""

from __future__ import annotations

import functools
import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bus.codes import Code
from bus.errors import Refused, RetryLater, Unverified
from bus.ledger.checkpoint import size_of
from bus.ledger.database import Row
from bus.ledger.leaf import UNVERIFIED_INDEX, DayKeys, Position, hop_key, open_hop, token
from bus.ledger.proof import Proof
from bus.ledger.store import Ledger
from bus.wire.hop import Hop, HopReader, decision_id, decode_hop, parse_decision_id
from bus.wire.hopblock import DAY_MS
from bus.wire.names import AUDIT

MAX_FOUND = 100_000
PAGE = 1000
"""Entries that are read at a time."""
APART_MS = 600_000
"""Entries of a partition are in the order of their decisions but for what one transaction, or clocks, may be apart."""


@dataclass(frozen=True, slots=True)
class Found:
    """A hop and where it stands in the ledger."""

    partition: int
    leaf: int
    day: int
    at: Position
    hop: Hop
    data: bytes
    body: bytes


class LedgerQuery:
    """Opens stored hops; ``keys`` gives the keys of a day, ``passed`` is told once of each that a search passed over:
    its keys are gone."""

    def __init__(
        self, ledger: Ledger, keys: Callable[[int], DayKeys], passed: Callable[[int], None] = lambda _: None
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._passed: Callable[[int], None] = functools.cache(passed)

    def search(self, terms: dict[str, str], limit: int = MAX_FOUND) -> list[Found]:
        """Hops that have every one of ``terms`` (field -> value), oldest first; all hops without terms."""
        places: set[tuple[int, int]] | None = None
        for field, value in terms.items():
            found = set(self._ledger.find(self._tokens(field, value)))
            places = found if places is None else places & found
        if places is None:
            places = {
                (p, row[0])
                for p in self._ledger.partitions()
                for row in self._ledger.entries(p)
                if row[3] != UNVERIFIED_INDEX
            }
        hops = [each for place in sorted(places) if (each := self._found(*place)) is not None]
        return sorted(hops, key=lambda each: (each.hop.decided_at, each.hop.tail.topic, each.hop.offset))[:limit]

    def _tokens(self, field: str, value: str) -> list[bytes]:
        """Of every day that has keys."""
        made = []
        for day in filter(None, self._ledger.days()):
            try:
                made.append(token(self._keys(day), field, value))
            except FileNotFoundError:
                self._passed(day)
        return made

    def places(self, digest: bytes) -> list[tuple[int, int]]:
        """(partition, leaf) of the hops that name the record with this SHA-256, as far as days have keys."""
        return self._ledger.find(self._tokens("decision", decision_id(digest)))

    def since(self, begin: int) -> Iterator[Hop]:
        """Hops that were decided at ``begin`` (ms since 1970) or later, newest first but for what lies seconds apart.

        Reads back from the end of each partition, and no further than it must. Raises Refused(ledger), Unverified, and
        OSError where a day's keys are not there.
        """
        streams = [self._backwards(partition, size, begin) for partition, size in self._ledger.sizes().items()]
        merged = heapq.merge(*streams, key=lambda each: each.hop.decided_at, reverse=True)
        return (each.hop for each in merged)

    def _backwards(self, partition: int, below: int, begin: int) -> Iterator[Found]:
        """As ``since``, of one partition and below leaf ``below``."""
        reader = HopReader()
        while rows := self._ledger.newest(partition, below, PAGE):
            for row in rows:
                if row[3] == UNVERIFIED_INDEX:
                    continue
                if (row[1] + 1) * DAY_MS < begin - APART_MS:
                    self._checked_day(partition, row)
                    return  # that day's keys may be gone
                found = self._read(partition, row, reader.read)
                if found.hop.decided_at >= begin:
                    yield found
                elif found.hop.decided_at < begin - APART_MS:
                    return
            below = rows[-1][0]

    def trace(self, name: str) -> list[Found]:
        """All hops of the session that a decision id, message id or correlation id belongs to."""
        for terms in ({"decision": name}, {"message": name.replace("-", "")}, {"correlation": name}):
            found = self.search(terms)
            if found:
                sessions = {each.hop.correlation_id for each in found if each.hop.correlation_id}
                traced = {(f.partition, f.leaf): f for s in sessions for f in self.search({"correlation": s})}
                traced |= {(f.partition, f.leaf): f for f in found}
                return sorted(traced.values(), key=lambda each: (each.hop.decided_at, each.hop.offset))
        raise Refused(f"no decision, message or correlation {name!r} in the ledger", code=Code.LEDGER)

    def decided(self, name: str) -> Found:
        """The hop of one decision. Of those of a record that was sent again, or copied to where it is nobody's, the
        first that names its agent. Raises Refused when there is none."""
        parse_decision_id(name)
        found = self.search({"decision": name})
        if not found:
            raise Refused(f"no decision {name!r} in the ledger", code=Code.LEDGER)
        return next((each for each in found if each.hop.tail.agent), found[0])

    def payload(self, hop: Hop) -> bytes:
        """The record that was decided, as it was sent. Raises Refused where it was not kept, RetryLater where it is
        wanted and not kept yet, Unverified for other bytes than its hop names."""
        held = self._ledger.payload(hop.origin_digest)
        told = f"the record of decision {hop.decision_id!r}"
        if held is None:
            hint = "audit_payload: sealed keeps records with their hops from then on"
            raise Refused(f"{told} was not to be kept", code=Code.LEDGER, hint=hint)
        if held.lost:
            raise Refused(f"{told} is not kept: {held.lost}", code=Code.LEDGER)
        if held.sealed is None:
            raise RetryLater(f"{told} is not kept yet", code=Code.RETRY, hint="does the audit consumer run?")
        if hashlib.sha256(held.sealed).digest() != hop.origin_digest:
            raise Unverified(f"{told}: other bytes are kept", step="payload")
        return held.sealed

    def prove(self, name: str, *, payload: bool = False, witnesses: Iterable[str] = ()) -> Proof:
        """The proof of one decision, with the record itself if ``payload``, under the checkpoint that most of
        ``witnesses`` (verifier keys) co-signed. Raises Refused when it is not there or not yet under a checkpoint, and
        what ``payload`` raises."""
        each = self.decided(name)
        note = self._cosigned(each, witnesses) or self._ledger.checkpoint(each.partition)
        size = size_of(note)
        if note is None or size <= each.leaf:
            raise Refused(f"decision {name!r} is not under a checkpoint yet", code=Code.LEDGER, hint="try again")
        return self.disclosed(each, note, size, self.payload(each.hop) if payload else None)

    def _cosigned(self, each: Found, witnesses: Iterable[str]) -> str | None:
        """The newest checkpoint over a leaf that as many witnesses co-signed as any, with their lines."""
        lines: dict[int, list[str]] = {}
        for witness in witnesses:
            for size, line in self._ledger.cosignatures(each.partition, witness):
                if size > each.leaf:
                    lines.setdefault(size, []).append(f"{line}\n")
        if not lines:
            return None
        size = max(lines, key=lambda at: (len(lines[at]), at))
        note = self._ledger.note(each.partition, size)
        return note + "".join(lines[size]) if note is not None else None

    def disclosed(self, each: Found, note: str, size: int, record: bytes | None = None) -> Proof:
        """The proof of one hop under the checkpoint ``note`` over ``size`` leaves."""
        path = self._ledger.tree(each.partition).inclusion(each.leaf, size)
        k = hop_key(self._keys(each.day), each.at)
        return Proof(each.at, each.leaf, each.data, k, each.body, tuple(path), note, record)

    def within(self, partition: int, below: int, begin: int) -> Iterator[Found]:
        """All that was decided at ``begin`` (ms since 1970) or later, below leaf ``below``, as the log has it.

        Reads every leaf, whatever clocks did, and opens none of days that ended long before, but the last of each run
        of them: a day that was changed does not open. Raises as ``since``.
        """
        reader = HopReader()
        passed: Row | None = None
        for row in self._ledger.entries(partition):
            leaf, day, _, index, *_ = row
            if leaf >= below:
                break
            if index == UNVERIFIED_INDEX:
                continue
            old = (day + 1) * DAY_MS < begin - APART_MS
            if passed is not None and (not old or passed[1] != day):
                self._checked_day(partition, passed)
            passed = row if old else None
            if not old and (found := self._read(partition, row, reader.read)).hop.decided_at >= begin:
                yield found
        if passed is not None:
            self._checked_day(partition, passed)

    def _checked_day(self, partition: int, row: Row) -> None:
        """Raises Unverified where a leaf does not open under the day that it says; nothing where that has no keys."""
        try:
            self.open_row(partition, row)
        except FileNotFoundError:
            return
        except Unverified:
            raise Unverified(f"partition {partition}: leaf {row[0]} is not of day {row[1]}", step="day") from None

    def open_row(self, partition: int, row: Row) -> Hop:
        """The hop of a row of ``Ledger.entries``. Raises Unverified, FileNotFoundError where its day has no keys."""
        return self._read(partition, row).hop

    def _found(self, partition: int, leaf: int) -> Found | None:
        """The hop of a leaf; None where it was taken and a search row of its block is there yet, and without keys."""
        rows = self._ledger.newest(partition, leaf + 1, 1)
        if not rows or rows[0][0] != leaf:
            return None
        try:
            return self._read(partition, rows[0])
        except FileNotFoundError:
            self._passed(rows[0][1])
            return None

    def _read(self, partition: int, row: Row, decode: Callable[[bytes], Hop] = decode_hop) -> Found:
        """The hop of a row, and where it stands."""
        leaf, day, offset, index, body, _ = row
        at = Position(AUDIT, partition, offset, index)
        data = open_hop(hop_key(self._keys(day), at), body, at)
        return Found(partition, leaf, day, at, decode(data), data, body)
