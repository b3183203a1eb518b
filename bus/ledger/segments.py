"""Segments of leaves whose hops were taken: what goes, and the note that stays in its place."""

from __future__ import annotations

from typing import Final, NamedTuple

from bus.ledger.database import Database
from bus.ledger.postings import MAX_BLOCK, SEGMENT_BITS, place

SEGMENT: Final = 1 << SEGMENT_BITS
"""Leaves."""
DATED: Final = """select leaf / ? as segment, max(day) from entry where partition = ? and leaf < ?
  group by 1 order by 1"""
EDGE: Final = 'select leaf, "offset" from entry where partition = ? and leaf in (?, ?) order by leaf'
BEGUN: Final = 'select min(leaf) from entry where partition = ? and leaf > ? and "offset" = ?'
BODIES: Final = "delete from entry where partition = ? and leaf >= ? and leaf < ?"
FOUND: Final = (
    "delete from posting where segment >= ? and segment <= ? and place < ?",
    "delete from single where segment >= ? and segment <= ? and place < ?",
)


class Taken(NamedTuple):
    """A segment whose hops are taken; ``note`` says so, signed."""

    partition: int
    segment: int
    note: str


def dated(db: Database, partition: int, upto: int) -> list[tuple[int, int]]:
    """(segment, day of its newest hop) of those below segment ``upto`` that hold hops."""
    return [(row[0], row[1]) for row in db.rows(DATED, (SEGMENT, partition, upto * SEGMENT))]


def take(db: Database, what: Taken) -> None:
    """Within a transaction: bodies and search rows go. Rows of a hop block that ends in a later segment stay until that
    is taken, too: ``bound`` is the first leaf of such a block."""
    partition, segment, _ = what
    after = (segment + 1) * SEGMENT
    bound = after
    edge = db.rows(EDGE, (partition, after - 1, after))
    if len(edge) == 2 and edge[0][1] == edge[1][1]:
        bound = db.rows(BEGUN, (partition, after - MAX_BLOCK, edge[0][1]))[0][0]
    db.insert("retired", [(partition, segment, bound, what.note)])
    db.run(BODIES, [(partition, after - SEGMENT, after)])
    query = "select segment, bound from retired where partition = ?"
    bounds = {row[0]: row[1] for row in db.rows(query, (partition,))}
    first = last = segment
    while first - 1 in bounds:
        first -= 1
    while last + 1 in bounds:
        last += 1
    base = place(partition, 0) >> SEGMENT_BITS
    for statement in FOUND:
        db.run(statement, [(base + first, base + last, place(partition, bounds[last]))])


def notes(db: Database, partition: int) -> dict[int, str]:
    """The note of each segment that was taken."""
    rows = db.rows("select segment, note from retired where partition = ?", (partition,))
    return {row[0]: row[1] for row in rows}
