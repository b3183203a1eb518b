"""The ledger, whichever database holds it. Append is compare-and-set on the stored Kafka position.

Entries, tiles and intervals are only ever inserted (an unfinished tile is replaced by a longer one with the same
beginning); checkpoints are insert-only and signed after the commit of what they cover.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

from bus.codes import Code
from bus.crypto.signing import Signer
from bus.errors import Refused
from bus.ledger import payloads, postings, segments
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, origin, sign_checkpoint, size_of
from bus.ledger.database import Database, Row
from bus.ledger.merkle import Edge, TreeView, grow, read_edge, root_of
from bus.ledger.payloads import Lost, Payload, Wanted
from bus.ledger.segments import Taken
from bus.ledger.sqlite import SqliteFile

PAGE: Final = 1000
"""Rows that are read at a time."""
DAY: Final = "insert into day values (?,?) on conflict do nothing"
TILE: Final = """insert into tile values (?,?,?,?)
  on conflict (partition, level, number) do update set hashes = excluded.hashes"""
STATE: Final = """insert into state values (?,?,?)
  on conflict (partition) do update set size = excluded.size, next_offset = excluded.next_offset"""
ENTRY: Final = 'select leaf, day, "offset", hop, body, disclosure from entry'
# From one partition's first entry to the next's: there are millions.
PARTITIONS: Final = """
with recursive held (number) as (
  select min(partition) from entry
  union all select (select min(partition) from entry where partition > number) from held where number is not null)
select number from held where number is not null
union select partition from state union select partition from checkpoint
"""
CHANGED: Final = "the ledger was changed; nothing is signed until an operator decides"


class Entry(NamedTuple):
    """One stored hop (or a block that did not verify: ``hop`` index 2^32-1)."""

    day: int
    offset: int
    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    body: bytes
    disclosure: bytes
    leaf: bytes
    tokens: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """Input positions [first, upto) of one partition that a block accounts for."""

    topic: str
    partition: int
    first: int
    upto: int
    offset: int


class Append(NamedTuple):
    """What moves a partition's position from ``expected`` to ``following``."""

    partition: int
    expected: int
    following: int
    entries: list[Entry]
    intervals: list[Interval]
    wanted: Sequence[Wanted] = ()
    """Records to keep with their hops."""


class Overtaken(Refused):
    """Another recorder has appended to this partition."""


class Ledger:
    """``where`` is a file, or an open database. ``deployment`` names the logs; one of another deployment is refused."""

    def __init__(self, where: Path | Database, deployment: bytes, *, read_only: bool = False) -> None:
        self.deployment = deployment
        self._db: Database = SqliteFile(where, deployment, read_only=read_only) if isinstance(where, Path) else where
        self._edges: dict[int, Edge] = {}
        self._signed: dict[int, tuple[bytes, str]] = {}

    def close(self) -> None:
        """End the connection."""
        self._db.close()

    def copy(self, path: Path) -> None:
        """All of it, of one moment, as a new SQLite file."""
        self._db.copy(path)

    def partitions(self) -> list[int]:
        """Audit partitions that hold something, or have signed something."""
        return sorted(row[0] for row in self._db.rows(PARTITIONS))

    def reading(self) -> AbstractContextManager[None]:
        """One consistent view for several reads, while a recorder writes."""
        return self._db.reading()

    def state(self, partition: int) -> tuple[int, int]:
        """(leaves, next Kafka offset)."""
        rows = self._db.rows("select size, next_offset from state where partition = ?", (partition,))
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._db.writing():
                yield
        except BaseException:
            # Memory may be ahead of the database: read it again.
            self._edges.clear()
            raise

    def append(
        self, partition: int, expected: int, following: int, entries: list[Entry], intervals: list[Interval]
    ) -> int:
        """``append_all`` of one partition."""
        return self.append_all([Append(partition, expected, following, entries, intervals)])[0]

    def append_all(self, appends: Sequence[Append]) -> list[int]:
        """Append to different partitions and move their positions, all or none; returns the new sizes.

        Raises Overtaken when a stored position is another than expected: a second recorder was here.
        """
        with self._transaction():
            grown = {each.partition: self._append(each) for each in sorted(appends, key=_partition)}
        self._edges |= grown
        return [grown[each.partition].size for each in appends]

    def _append(self, what: Append) -> Edge:
        partition, entries, db = what.partition, what.entries, self._db
        db.hold(partition)
        size, position = self.state(partition)
        if position != what.expected or what.following <= what.expected:
            raise Overtaken(
                f"ledger partition {partition}: expected position {what.expected}, found {position}", code=Code.LEDGER
            )
        edge = self._edges.get(partition)
        if edge is None or edge.size != size:
            self._signed.pop(partition, None)  # it was said of the tree in memory
            edge = read_edge(size, self._reader(partition))
        tiles: dict[tuple[int, int], bytes] = {}
        if entries:
            days, offsets, hops, bodies, disclosures, leaves, _ = zip(*entries, strict=True)
            edge, tiles = grow(edge, leaves)
            db.insert(
                "entry",
                zip(repeat(partition), count(size), days, offsets, hops, bodies, disclosures, strict=False),
            )
            db.run(DAY, ((partition, day) for day in sorted(set(days))))
        db.run(TILE, ((partition, level, number, hashes) for (level, number), hashes in tiles.items()))
        db.insert("interval", ((i.topic, i.partition, i.first, i.upto, partition, i.offset) for i in what.intervals))
        several, single = postings.rows(entries, partition, size)
        db.insert("posting", several)
        db.insert("single", single)
        payloads.want(db, what.wanted)
        db.run(STATE, [(partition, edge.size, what.following)])
        return edge

    def _reader(self, partition: int) -> TileReader:
        return TileReader(self._db, partition)

    def tree(self, partition: int) -> TreeView:
        """The partition's tree as it is stored."""
        return TreeView(self._reader(partition))

    def sign(self, partition: int, signer: Signer) -> str | None:
        """``sign_all`` of one partition."""
        return self.sign_all([partition], signer)[0]

    def sign_all(self, partitions: Sequence[int], signer: Signer) -> list[str | None]:
        """Sign a checkpoint of what each partition has committed; None where the newest covers it.

        Raises Refused(ledger) when a log is shorter than one that was signed, or another: it was cut or changed.
        """
        with self._transaction():
            for partition in sorted(partitions):  # as appends are: who waits for whom is never a circle
                self._db.hold(partition)
            return [self._sign(partition, signer) for partition in partitions]

    def _sign(self, partition: int, signer: Signer) -> str | None:
        size, _ = self.state(partition)
        newest = self.checkpoint(partition)
        edge = self._edges.get(partition)
        if edge is not None and edge.size != size:
            edge = None
        # This process signed `newest` over the tree in memory, which it has only grown since (`_append` forgets that
        # when it reads a tree from the file, as it does after every error). So what is signed now extends what was
        # signed, and neither old leaves nor the old signature are looked at again. A file that was changed meanwhile is
        # not what gets signed, and is found when the recorder starts, or by `verify_ledger`.
        own = edge is not None and newest is not None and self._signed.get(partition) == (signer.public_key, newest)
        if newest is not None:
            covered = size_of(newest) if own else self._check(partition, size, newest, signer)
            if covered == size:
                return None
        if size == 0:
            return None
        root = root_of(edge) if edge is not None and own else self.tree(partition).root(size)
        if edge is not None and not own and root_of(edge) != root:
            raise Refused(
                f"ledger partition {partition}: its leaves are not those that were appended",
                code=Code.LEDGER,
                hint=CHANGED,
            )
        note = sign_checkpoint(Checkpoint(origin(self.deployment, partition), size, root), signer)
        self._db.insert("checkpoint", [(partition, size, note)])
        if edge is not None:
            self._signed[partition] = (signer.public_key, note)
        return note

    def _check(self, partition: int, size: int, note: str, signer: Signer) -> int:
        """Leaves that ``note`` covers, after checking that the stored tree begins with what was signed."""
        signed = open_checkpoint(note, signer.public_key)
        if signed.size > size:
            raise Refused(
                f"ledger partition {partition}: {signed.size} leaves were signed, {size} are there",
                code=Code.LEDGER,
                hint="the ledger was cut or is an older copy; nothing is signed until an operator decides",
            )
        if signed.size and self.tree(partition).root(signed.size) != signed.root:
            raise Refused(
                f"ledger partition {partition}: its first {signed.size} leaves are not those that were signed",
                code=Code.LEDGER,
                hint=CHANGED,
            )
        return signed.size

    def checkpoint(self, partition: int) -> str | None:
        """The newest signed note."""
        query = "select note from checkpoint where partition = ? order by size desc limit 1"
        rows = self._db.rows(query, (partition,))
        return rows[0][0] if rows else None

    def checkpoints(self, partition: int) -> Iterator[str]:
        """Every signed note, oldest first."""
        query = "select size, note from checkpoint where partition = ? and size > ? order by size limit ?"
        return (row[1] for row in self._paged(query, (partition,), -1, _first))

    def note(self, partition: int, size: int) -> str | None:
        """The signed note over ``size`` leaves."""
        rows = self._db.rows("select note from checkpoint where partition = ? and size = ?", (partition, size))
        return rows[0][0] if rows else None

    def cosign(self, partition: int, witness: str, size: int, line: str) -> None:
        """Keep a witness's cosignature of the checkpoint over ``size`` leaves."""
        with self._transaction():
            self._db.run(
                "insert into cosignature values (?,?,?,?) on conflict do nothing", [(partition, witness, size, line)]
            )

    def cosigned(self, partition: int, witness: str) -> int:
        """The largest size that this witness co-signed; 0 for none."""
        query = "select max(size) from cosignature where partition = ? and witness = ?"
        return self._db.rows(query, (partition, witness))[0][0] or 0

    def cosignatures(self, partition: int, witness: str) -> list[tuple[int, str]]:
        """(size, line), largest first; none in a ledger of before there were witnesses."""
        if not self._db.has("cosignature"):
            return []
        query = "select size, line from cosignature where partition = ? and witness = ? order by size desc"
        return [(row[0], row[1]) for row in self._db.rows(query, (partition, witness))]

    def entries(self, partition: int, first: int = 0) -> Iterator[Row]:
        """(leaf, day, offset, hop index, body, disclosure) from leaf ``first``."""
        query = f"{ENTRY} where partition = ? and leaf > ? order by leaf limit ?"
        return self._paged(query, (partition,), first - 1, _first)

    def newest(self, partition: int, below: int, count: int) -> list[Row]:
        """As ``entries``: the last ``count`` below leaf ``below``, newest first."""
        query = f"{ENTRY} where partition = ? and leaf < ? order by leaf desc limit ?"
        return self._db.rows(query, (partition, below, count))

    def segments(self, partition: int, upto: int) -> list[tuple[int, int]]:
        """(segment, day of its newest hop) of those below segment ``upto`` that hold hops."""
        return segments.dated(self._db, partition, upto)

    def take(self, what: Taken, digests: Collection[bytes]) -> None:
        """Take the hops of a segment, what finds them, and the records ``digests``; leaves and checkpoints stay."""
        with self._transaction():
            self._db.hold(what.partition)
            segments.take(self._db, what)
            payloads.retire(self._db, digests)

    def retired(self, partition: int) -> dict[int, str]:
        """The note of each segment that was taken."""
        return segments.notes(self._db, partition) if self._db.has("retired") else {}

    def sizes(self) -> dict[int, int]:
        """Leaves of each partition."""
        return {row[0]: row[1] for row in self._db.rows("select partition, size from state")}

    def _paged(
        self, query: str, values: tuple[int, ...], after: Any, key: Callable[[Row], Any], page: int = PAGE
    ) -> Iterator[Row]:
        """The rows of a query that has a lower bound and a limit last, so that none holds them all."""
        while rows := self._db.rows(query, (*values, after, page)):
            yield from rows
            after = key(rows[-1])

    def find(self, tokens: list[bytes]) -> list[tuple[int, int]]:
        """(partition, leaf) of the entries that have any of ``tokens``."""
        found: set[tuple[int, int]] = set()
        for token in tokens:
            for first, others, single, size in self._db.find(token):
                found.update(
                    postings.single_leaves(first, single, token, size)
                    if single
                    else postings.leaves(first, others, size)
                )
        return sorted(found)

    def wanted(self, skip: Collection[tuple[str, int]] = ()) -> list[Wanted]:
        """Some of the records that are to be kept and are not yet, by place (topic, partition); none of ``skip``."""
        return payloads.wanted(self._db, skip)

    def waiting(self) -> int:
        """How many these are."""
        return payloads.waiting(self._db)

    def keep(self, kept: Sequence[tuple[Wanted, bytes]], lost: Sequence[tuple[Wanted, Lost]]) -> None:
        """Store what became of records that were wanted, all or none."""
        with self._transaction():
            payloads.settle(self._db, kept, lost)

    def payload(self, digest: bytes) -> Payload | None:
        """What became of the record with this SHA-256; None where it was not to be kept."""
        return payloads.find(self._db, digest) if self._db.has("payload") else None

    def payloads(self) -> Iterator[tuple[bytes, bytes | None]]:
        """SHA-256 and bytes of every record that was wanted; None in place of what was lost."""
        if self._db.has("payload"):
            yield from self._paged(payloads.EVERY, (), b"", _first, payloads.EVERY_PAGE)

    def days(self) -> list[int]:
        """Days that entries were recorded under."""
        table = "day" if self._db.has("day") else "entry"
        return [row[0] for row in self._db.rows(f"select distinct day from {table} order by day")]  # noqa: S608

    def intervals(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """Sorted intervals by input (topic, partition)."""
        told: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for topic, number, first, upto in self._db.rows(
            "select topic, input, first, upto from interval order by topic, input, first, upto"
        ):
            told.setdefault((topic, number), []).append((first, upto))
        return told


def _partition(append: Append) -> int:
    return append.partition


def _first(row: Row) -> Any:
    return row[0]


class TileReader:
    """Reads a partition's tiles."""

    def __init__(self, db: Database, partition: int) -> None:
        self._db = db
        self._partition = partition

    def __call__(self, level: int, number: int) -> bytes:
        """Hashes of one tile, or nothing."""
        query = "select hashes from tile where partition = ? and level = ? and number = ?"
        rows = self._db.rows(query, (self._partition, level, number))
        return rows[0][0] if rows else b""
