"""The embedded ledger: SQLite (WAL, synchronous=FULL). Append is compare-and-set on the stored Kafka position.

Entries, tiles and intervals are only ever inserted (an unfinished tile is replaced by a longer one with the same
beginning); checkpoints are insert-only and signed after the commit of what they cover.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bus.codes import Code
from bus.crypto.signing import Signer
from bus.errors import Refused
from bus.files import make_folder
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, origin, sign_checkpoint
from bus.ledger.merkle import Edge, TreeView, grow, read_edge

SCHEMA = """
create table if not exists meta (key text primary key, value text) without rowid;
create table if not exists state (partition integer primary key, size integer not null, next_offset integer not null);
create table if not exists entry (partition integer, leaf integer, day integer, offset integer, hop integer,
  body blob not null, disclosure blob not null, primary key (partition, leaf)) without rowid;
create table if not exists tile (partition integer, level integer, number integer, hashes blob not null,
  primary key (partition, level, number)) without rowid;
create table if not exists checkpoint (partition integer, size integer, note text not null,
  primary key (partition, size)) without rowid;
create table if not exists interval (topic text, input integer, first integer, upto integer, partition integer,
  offset integer, primary key (topic, input, first, partition, offset)) without rowid;
create table if not exists token (id integer primary key, value blob unique not null);
create table if not exists posting (token integer, partition integer, leaf integer,
  primary key (token, partition, leaf)) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored hop (or a block that did not verify: ``hop`` index 2^32-1)."""

    day: int
    offset: int
    index: int
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


class Ledger:
    """One database file. ``deployment`` names the logs; a file of another deployment is refused."""

    def __init__(self, path: Path, deployment: bytes, *, read_only: bool = False) -> None:
        if read_only:
            if not path.is_file():
                raise Refused(f"no ledger at {path}", code=Code.LEDGER, hint="does the audit consumer run?")
            self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        else:
            make_folder(path.parent)
            self._db = sqlite3.connect(path, isolation_level=None)
            path.chmod(0o600)
        self.deployment = deployment
        try:
            if not read_only:
                self._db.execute("pragma journal_mode=wal")
                self._db.execute("pragma synchronous=full")
                self._db.executescript(SCHEMA)
                self._db.execute("insert or ignore into meta values ('deployment', ?)", (deployment.hex(),))
            held = self._db.execute("select value from meta where key = 'deployment'").fetchone()
        except sqlite3.DatabaseError as error:
            raise Refused(f"{path}: not a ledger: {error}", code=Code.LEDGER) from None
        if held is None or held[0] != deployment.hex():
            raise Refused(f"{path}: it belongs to deployment {held and held[0]}", code=Code.LEDGER)
        self._edges: dict[int, Edge] = {}
        self._tokens: dict[bytes, int] = {}

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
            self._tokens.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise

    def append(
        self, partition: int, expected: int, following: int, entries: list[Entry], intervals: list[Interval]
    ) -> int:
        """Append and move the position from ``expected`` to ``following``; returns the new size.

        Raises Refused(ledger) when the stored position is another: a second recorder was here.
        """
        with self._transaction() as db:
            size, position = self.state(partition)
            if position != expected or following <= expected:
                raise Refused(
                    f"ledger partition {partition}: expected position {expected}, found {position}", code=Code.LEDGER
                )
            edge = self._edges.get(partition) or read_edge(size, self._reader(partition))
            if edge.size != size:
                edge = read_edge(size, self._reader(partition))
            grown, tiles = grow(edge, [entry.leaf for entry in entries])
            db.executemany(
                "insert into entry values (?,?,?,?,?,?,?)",
                (
                    (partition, size + i, each.day, each.offset, each.index, each.body, each.disclosure)
                    for i, each in enumerate(entries)
                ),
            )
            db.executemany(
                "insert or replace into tile values (?,?,?,?)",
                ((partition, level, number, hashes) for (level, number), hashes in tiles.items()),
            )
            db.executemany(
                "insert into interval values (?,?,?,?,?,?)",
                ((i.topic, i.partition, i.first, i.upto, partition, i.offset) for i in intervals),
            )
            postings = [
                (self._token_id(token), partition, size + i) for i, each in enumerate(entries) for token in each.tokens
            ]
            db.executemany("insert or ignore into posting values (?,?,?)", postings)
            db.execute("insert or replace into state values (?,?,?)", (partition, grown.size, following))
        self._edges[partition] = grown
        return grown.size

    def _token_id(self, value: bytes) -> int:
        found = self._tokens.get(value)
        if found is None:
            if len(self._tokens) > 200_000:
                self._tokens.clear()
            self._db.execute("insert or ignore into token (value) values (?)", (value,))
            found = int(self._db.execute("select id from token where value = ?", (value,)).fetchone()[0])
            self._tokens[value] = found
        return found

    def _reader(self, partition: int) -> TileReader:
        return TileReader(self._db, partition)

    def tree(self, partition: int) -> TreeView:
        """The partition's tree as it is stored."""
        return TreeView(self._reader(partition))

    def sign(self, partition: int, signer: Signer) -> str | None:
        """Sign a checkpoint of what is committed; None when the newest covers it.

        Raises Refused(ledger) when the log is shorter than one that was signed: it was cut.
        """
        size, _ = self.state(partition)
        newest = self.checkpoint(partition)
        if newest is not None:
            signed = open_checkpoint(newest, signer.public_key)
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
                    hint="the ledger was changed; nothing is signed until an operator decides",
                )
            if signed.size == size:
                return None
        if size == 0:
            return None
        root = self.tree(partition).root(size)
        note = sign_checkpoint(Checkpoint(origin(self.deployment, partition), size, root), signer)
        self._db.execute("insert into checkpoint values (?,?,?)", (partition, size, note))
        return note

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

    def entries(self, partition: int, first: int = 0) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
        """(leaf, day, offset, hop index, body, disclosure) from leaf ``first``."""
        return iter(
            self._db.execute(
                "select leaf, day, offset, hop, body, disclosure from entry where partition = ? and leaf >= ? "
                "order by leaf",
                (partition, first),
            )
        )

    def find(self, tokens: list[bytes]) -> list[tuple[int, int]]:
        """(partition, leaf) of the entries that have any of ``tokens``."""
        found: set[tuple[int, int]] = set()
        for token in tokens:
            found.update(
                self._db.execute(
                    "select partition, leaf from posting join token on posting.token = token.id where value = ?",
                    (token,),
                )
            )
        return sorted(found)

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
