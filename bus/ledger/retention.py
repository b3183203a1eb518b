"""Retention: whole segments of hops are taken out of the ledger, and their leaves stay.

What is taken is what can be read: bodies, search rows, kept records. Tiles, checkpoints and intervals stay, so that
every root, every proof that was given out, and the tiling verify as before; a note that the ledger's key signs says of
each segment that it was taken on purpose, and under which root. A segment is taken when all of its hops are older than
the retention, none is held, and all of it is under a checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.checkpoint import open_checkpoint, open_note, sign_note, size_of
from bus.ledger.leaf import UNVERIFIED_INDEX, Position, leaf_hash
from bus.ledger.postings import SEGMENT_BITS
from bus.ledger.query import LedgerQuery
from bus.ledger.segments import SEGMENT, Taken
from bus.ledger.store import Ledger
from bus.wire.hop import Hop
from bus.wire.hopblock import DAY_MS
from bus.wire.names import AUDIT


@dataclass(frozen=True, slots=True)
class Due:
    """A segment that is old enough by the days it was recorded under. ``held`` says why it stays, or nothing;
    ``digests`` are the records (SHA-256) that its hops name."""

    partition: int
    segment: int
    held: str = ""
    digests: frozenset[bytes] = frozenset()


def nothing(_: Hop) -> str:
    """No hold."""
    return ""


def due(
    ledger: Ledger, query: LedgerQuery, before_ms: int, held: Callable[[Hop], str], *, unreadable: bool = False
) -> Iterator[Due]:
    """Segments with no hop that was decided at ``before_ms`` (ms since 1970) or later.

    ``held`` names what holds a hop, or nothing. Each hop is opened: its day and time are what is sealed in it. A
    segment with hops that do not open stays, but for those of days whose keys are gone where ``unreadable`` permits it.
    """
    for partition in ledger.partitions():
        note = ledger.checkpoint(partition)
        covered = size_of(note)
        for segment, newest in ledger.segments(partition, covered // SEGMENT):
            if newest * DAY_MS >= before_ms:
                continue
            why, digests, seen = "", set(), 0
            for row in ledger.entries(partition, segment * SEGMENT):
                if row[0] >= (segment + 1) * SEGMENT:
                    break
                seen += 1
                if row[3] == UNVERIFIED_INDEX:
                    why = why or "a hop block in it did not verify"
                    continue
                try:
                    hop = query.open_row(partition, row)
                except FileNotFoundError:
                    why = why or ("" if unreadable else f"the keys of day {row[1]} are gone")
                    continue
                except Unverified:
                    why = why or f"leaf {row[0]} does not open"
                    continue
                digests.add(hop.origin_digest)
                why = why or held(hop)
                if hop.decided_at >= before_ms:
                    why = why or f"leaf {row[0]} is newer than its day says"
            if seen != SEGMENT:
                why = why or f"{SEGMENT - seen} of its hops are missing"
            yield Due(partition, segment, why, frozenset(digests))


def retire(ledger: Ledger, query: LedgerQuery, what: Due, signer: Signer, now_ms: int) -> None:
    """Take one segment. Raises Unverified (retention) where it is not whole, or not what was signed.

    Records stay that hops of other segments name, too: one that was sent again is kept once.
    """
    partition, segment = what.partition, what.segment
    first, after = segment * SEGMENT, (segment + 1) * SEGMENT
    told = f"partition {partition}: segment {segment}"
    note = ledger.checkpoint(partition)
    signed = open_checkpoint(note, signer.public_key) if note is not None else None
    if signed is None or signed.size < after:
        raise Unverified(f"{told} is not under a checkpoint", step="retention")
    view = ledger.tree(partition)
    if view.root(signed.size) != signed.root:
        raise Unverified(f"{told}: the tree is not the one that was signed", step="retention")
    at = first
    for leaf, _, offset, index, body, disclosure in ledger.entries(partition, first):
        if leaf >= after:
            break
        if leaf != at or leaf_hash(Position(AUDIT, partition, offset, index), body, disclosure) != view.leaf(leaf):
            raise Unverified(f"{told}: leaf {at} does not match", step="retention")
        at += 1
    if at != after:
        raise Unverified(f"{told}: leaf {at} is missing", step="retention")
    root = view.subtree(SEGMENT_BITS, segment)
    body_of = _body(ledger.deployment, partition, segment, root, now_ms)
    only = {
        digest
        for digest in what.digests
        if ledger.payload(digest) is not None
        and all(each[0] == partition and first <= each[1] < after for each in query.places(digest))
    }
    ledger.take(Taken(partition, segment, sign_note(_name(ledger.deployment, partition), body_of, signer)), only)


def _name(deployment: bytes, partition: int) -> str:
    return f"sealbus/{deployment.hex()}/{partition}/retired"


def _body(deployment: bytes, partition: int, segment: int, root: bytes, now_ms: int) -> str:
    return f"{_name(deployment, partition)}\n{segment}\n{base64.b64encode(root).decode()}\n{now_ms}\n"


def open_retired(note: str, deployment: bytes, partition: int, segment: int, public_key: bytes) -> bytes:
    """The root of the segment that ``note`` says was taken. Raises Unverified (checkpoint, retention)."""
    name, body = open_note(note, public_key)
    try:
        _, number, root, _ = body.rstrip("\n").split("\n")
        found = base64.b64decode(root, validate=True)
    except ValueError:
        raise Unverified("retention: expected a segment, its root and a time", step="retention") from None
    if (name, number) != (_name(deployment, partition), str(segment)):
        raise Unverified(f"retention: it names segment {number} of {name}", step="retention")
    return found
