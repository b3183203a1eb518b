"""The embedded ledger: SQLite (WAL, synchronous=FULL). Append is compare-and-set on the stored Kafka position.

Entries, tiles and intervals are only ever inserted (an unfinished tile is replaced by a longer one with the same
beginning); checkpoints are insert-only and signed after the commit of what they cover.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bus.codes import Code
from bus.crypto.signing import Signer
from bus.errors import Refused
from bus.files import make_folder
from bus.ledger import payloads, postings
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, origin, sign_checkpoint
from bus.ledger.merkle import Edge, TreeView, grow, read_edge, root_of
from bus.ledger.payloads import Lost, Payload, Wanted
from bus.ledger.schema import BITS, CONVERSION, FIND, SCHEMA, TUNING

CHANGED = "the ledger was changed; nothing is signed until an operator decides"


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


class Ledger:
    """One database file. ``deployment`` names the logs; a file of another deployment is refused."""

    def __init__(self, path: Path, deployment: bytes, *, read_only: bool = False) -> None:
        if read_only and not path.is_file():
            raise Refused(f"no ledger at {path}", code=Code.LEDGER, hint="does the audit consumer run?")
        self.deployment = deployment
        self._edges: dict[int, Edge] = {}
        self._signed: dict[int, tuple[bytes, str]] = {}
        try:
            if read_only:
                self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
            else:
                make_folder(path.parent)
                self._db = sqlite3.connect(path, isolation_level=None)
                path.chmod(0o600)
                self._db.execute("pragma page_size = 8192")  # of a new file
                self._db.execute("pragma journal_mode = wal")
                self._db.executescript(TUNING)
                self._create(path)
            self._check_deployment(path)
            self._numbered = self._has_numbers()
        except sqlite3.DatabaseError as error:
            raise Refused(f"{path}: not a ledger: {error}", code=Code.LEDGER) from None

    def _check_deployment(self, path: Path) -> None:
        held = self._db.execute("select value from meta where key = 'deployment'").fetchone()
        if held is None or held[0] != self.deployment.hex():
            raise Refused(f"{path}: it belongs to deployment {held and held[0]}", code=Code.LEDGER)

    def _has_numbers(self) -> bool:
        """Whether the search index is of the form before this one."""
        return self._db.execute("select 1 from sqlite_master where name = 'token'").fetchone() is not None

    def _create(self, path: Path) -> None:
        """Make what is not there, and convert a search index of the form before this one."""
        with self._transaction() as db:
            numbered = self._has_numbers()
            if numbered:
                db.execute("alter table posting rename to numbered_posting")
            for statement in (SCHEMA + payloads.SCHEMA).split(";"):
                db.execute(statement)
            if numbered:
                db.execute(CONVERSION, BITS)
                db.execute("drop table numbered_posting")
                db.execute("drop table token")
            db.execute("insert or ignore into meta values ('deployment', ?)", (self.deployment.hex(),))
            self._check_deployment(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def partitions(self) -> list[int]:
        """Audit partitions that hold something, or have signed something."""
        query = "select partition from state union select partition from entry union select partition from checkpoint"
        return sorted(row[0] for row in self._db.execute(query))

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view for several reads, while a recorder writes."""
        self._db.execute("begin")
        try:
            yield
        finally:
            self._db.execute("rollback")

    def state(self, partition: int) -> tuple[int, int]:
        """(leaves, next Kafka offset)."""
        row = self._db.execute("select size, next_offset from state where partition = ?", (partition,)).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("begin immediate")
        try:
            yield self._db
            self._db.execute("commit")
        except BaseException:
            # Memory may be ahead of the file: read it again.
            self._edges.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise

    def append(
        self, partition: int, expected: int, following: int, entries: list[Entry], intervals: list[Interval]
    ) -> int:
        """``append_all`` of one partition."""
        return self.append_all([Append(partition, expected, following, entries, intervals)])[0]

    def append_all(self, appends: Sequence[Append]) -> list[int]:
        """Append to different partitions and move their positions, all or none; returns the new sizes.

        Raises Refused(ledger) when a stored position is another than expected: a second recorder was here.
        """
        with self._transaction() as db:
            grown = {each.partition: self._append(db, each) for each in appends}
        self._edges |= grown
        return [edge.size for edge in grown.values()]

    def _append(self, db: sqlite3.Connection, what: Append) -> Edge:
        partition, entries = what.partition, what.entries
        size, position = self.state(partition)
        if position != what.expected or what.following <= what.expected:
            raise Refused(
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
            db.executemany(
                "insert into entry values (?,?,?,?,?,?,?)",
                zip(repeat(partition), count(size), days, offsets, hops, bodies, disclosures, strict=False),
            )
        db.executemany(
            "insert or replace into tile values (?,?,?,?)",
            ((partition, level, number, hashes) for (level, number), hashes in tiles.items()),
        )
        db.executemany(
            "insert into interval values (?,?,?,?,?,?)",
            ((i.topic, i.partition, i.first, i.upto, partition, i.offset) for i in what.intervals),
        )
        several, single = postings.rows(entries, partition, size)
        db.executemany("insert into posting values (?,?,?,?)", several)
        db.executemany("insert into single values (?,?,?,?)", single)
        payloads.want(db, what.wanted)
        db.execute("insert or replace into state values (?,?,?)", (partition, edge.size, what.following))
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
            covered = int(newest.split("\n")[1]) if own else self._check(partition, size, newest, signer)
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
        self._db.execute("insert into checkpoint values (?,?,?)", (partition, size, note))
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
        row = self._db.execute(
            "select note from checkpoint where partition = ? order by size desc limit 1", (partition,)
        ).fetchone()
        return row[0] if row else None

    def checkpoints(self, partition: int) -> Iterator[str]:
        """Every signed note, oldest first."""
        rows = self._db.execute("select note from checkpoint where partition = ? order by size", (partition,))
        return (row[0] for row in rows)

    def note(self, partition: int, size: int) -> str | None:
        """The signed note over ``size`` leaves."""
        rows = self._read("select note from checkpoint where partition = ? and size = ?", (partition, size))
        return rows[0][0] if rows else None

    def cosign(self, partition: int, witness: str, size: int, line: str) -> None:
        """Keep a witness's cosignature of the checkpoint over ``size`` leaves."""
        with self._transaction() as db:
            db.execute("insert or ignore into cosignature values (?,?,?,?)", (partition, witness, size, line))

    def cosignatures(self, partition: int, witness: str) -> list[tuple[int, str]]:
        """(size, line), largest first; none in a ledger of before there were witnesses."""
        if not self._read("select 1 from sqlite_master where name = 'cosignature'", ()):
            return []
        query = "select size, line from cosignature where partition = ? and witness = ? order by size desc"
        return self._read(query, (partition, witness))

    def entries(self, partition: int, first: int = 0) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
        """(leaf, day, offset, hop index, body, disclosure) from leaf ``first``."""
        return iter(
            self._db.execute(
                "select leaf, day, offset, hop, body, disclosure from entry where partition = ? and leaf >= ? "
                "order by leaf",
                (partition, first),
            )
        )

    def newest(self, partition: int, below: int, count: int) -> list[tuple[int, int, int, int, bytes, bytes]]:
        """As ``entries``: the last ``count`` below leaf ``below``, newest first. Raises Refused(ledger)."""
        return self._read(
            "select leaf, day, offset, hop, body, disclosure from entry where partition = ? and leaf < ? "
            "order by leaf desc limit ?",
            (partition, below, count),
        )

    def sizes(self) -> dict[int, int]:
        """Leaves of each partition. Raises Refused(ledger)."""
        return dict(self._read("select partition, size from state", ()))

    def _read(self, query: str, values: tuple[int | str, ...]) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise Refused(f"the ledger cannot be read: {error}", code=Code.LEDGER) from None

    def find(self, tokens: list[bytes]) -> list[tuple[int, int]]:
        """(partition, leaf) of the entries that have any of ``tokens``."""
        if self._numbered:
            raise Refused(
                "the ledger's search index is of an older form",
                code=Code.LEDGER,
                hint="the audit consumer converts it when it starts",
            )
        found: set[tuple[int, int]] = set()
        for token in tokens:
            told = {**BITS, "token": token, "bucket": postings.bucket(token)}
            for first, others, single, size in self._db.execute(FIND, told):
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
        with self._transaction() as db:
            payloads.settle(db, kept, lost)

    def payload(self, digest: bytes) -> Payload | None:
        """What became of the record with this SHA-256; None where it was not to be kept."""
        return payloads.find(self._db, digest) if payloads.exists(self._db) else None

    def payloads(self) -> Iterator[tuple[bytes, bytes | None]]:
        """SHA-256 and bytes of every record that was wanted; None in place of what was lost."""
        return payloads.everything(self._db) if payloads.exists(self._db) else iter(())

    def days(self) -> list[int]:
        """Days that entries were recorded under."""
        return [row[0] for row in self._db.execute("select distinct day from entry order by day")]

    def intervals(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """Sorted intervals by input (topic, partition)."""
        told: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for topic, number, first, upto in self._db.execute(
            "select topic, input, first, upto from interval order by topic, input, first, upto"
        ):
            told.setdefault((topic, number), []).append((first, upto))
        return told


class TileReader:
    """Reads a partition's tiles."""

    def __init__(self, db: sqlite3.Connection, partition: int) -> None:
        self._db = db
        self._partition = partition

    def __call__(self, level: int, number: int) -> bytes:
        """Hashes of one tile, or nothing."""
        row = self._db.execute(
            "select hashes from tile where partition = ? and level = ? and number = ?",
            (self._partition, level, number),
        ).fetchone()
        return row[0] if row else b""
