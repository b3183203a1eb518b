"""The file of an agent's stores: SQLite, one an agent. Holds what ``bus.crypto.entries`` sealed, and has no keys.

Several threads and processes may use it at once: SQLite's locks keep them apart, and a write that a process did not end
is not there. Written with ``synchronous=NORMAL``: what was put outlives the process at once, and a power cut can take
the last entries, never the file. Plain to see in it: domains, epochs and their ends, sizes, ends of entries.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater

BUSY_S: Final = 10.0
MAGIC: Final = 0x5EA1B057
"""SQLite's application id of such a file."""
SCHEMA: Final = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists epoch (
    id integer primary key, domain text not null, number integer not null, ends integer not null,
    lost integer not null default 0, unique (domain, number));
create table if not exists entry (
    id integer primary key, epoch integer not null, shelf blob not null,
    token blob not null unique, expires integer not null, body blob not null);
create index if not exists entry_of_epoch on entry (epoch);
create index if not exists entry_of_shelf on entry (shelf);
create index if not exists entry_expires on entry (expires) where expires > 0
"""
DAMAGED: Final = (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""0: it is not SQLite that complains, but who reads what stands there."""
FOR_GOOD: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class StoredEpoch(NamedTuple):
    """An epoch that something is sealed under. ``ends`` as its object says; ``lost``: when its key was first missed.
    Both ms since 1970, 0 for never."""

    id: int
    domain: str
    number: int
    ends: int
    lost: int


class Row(NamedTuple):
    """A sealed entry. ``expires``: ms since 1970, 0 for never."""

    id: int
    epoch: int
    token: bytes
    expires: int
    body: bytes


NEW_EPOCH: Final = "insert into epoch (domain, number, ends) values (?, ?, ?) on conflict do nothing"
ROW: Final = "select entry.id, number, token, expires, body from entry join epoch on epoch.id = entry.epoch"


class StoreFile:
    """One file. Every method but ``transaction`` and ``close`` is called within a transaction."""

    def __init__(self, path: Path, deployment: bytes) -> None:
        """Raises Refused(store) for a file that is damaged, of something else or of another deployment."""
        self.path = path
        self._lock = threading.RLock()
        with self._typed():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)  # SQLite gives its other files the mode of this one
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with self._typed():
                self._prepare(deployment)
        except BusError:
            self._db.close()
            raise

    def _prepare(self, deployment: bytes) -> None:
        found = self._db.execute("pragma application_id").fetchone()[0]
        empty = self._db.execute("select count(*) from sqlite_master").fetchone()[0] == 0
        if found != MAGIC and not empty:
            raise Refused(f"{self.path}: not a store", code=Code.STORE)
        for name, value in (("journal_mode", "wal"), ("synchronous", "normal"), ("secure_delete", "on")):
            self._db.execute(f"pragma {name} = {value}")
        with self.transaction():
            self._db.execute(f"pragma application_id = {MAGIC}")
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("insert or ignore into meta values ('deployment', ?)", (deployment.hex(),))
            held = self._db.execute("select value from meta where key = 'deployment'").fetchone()[0]
        if held != deployment.hex():
            raise Refused(f"{self.path}: it belongs to deployment {held}", code=Code.STORE, hint="remove it")

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[None]:
        """All of it or nothing. Raises RetryLater(store): busy, disk full; Refused(store): damaged, not writable."""
        with self._lock, self._typed():
            self._db.execute("begin immediate" if write else "begin")
            try:
                yield
                self._db.execute("commit")
            finally:
                if self._db.in_transaction:  # where a write failed SQLite may have ended it itself
                    self._db.execute("rollback")

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refused(f"{self.path}: {error.strerror}", code=Code.STORE) from None
        except sqlite3.ProgrammingError:
            raise Refused(f"{self.path}: closed", code=Code.CLOSED) from None
        except sqlite3.Error as error:
            raise _meaning(self.path, error) from None

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock, self._typed():
            self._db.close()

    def epochs(self, domain: str = "") -> list[StoredEpoch]:
        """Those of ``domain`` or of all, newest first."""
        rows = self._db.execute(
            "select id, domain, number, ends, lost from epoch where ? in ('', domain) order by number desc", (domain,)
        )
        return [StoredEpoch(*row) for row in rows]

    def find(self, tokens: Sequence[bytes]) -> Row | None:
        """The entry that one of ``tokens`` stands for, of the newest epoch."""
        marks = ",".join("?" * len(tokens))
        row = self._db.execute(f"{ROW} where token in ({marks}) order by number desc limit 1", tokens).fetchone()
        return _row(row) if row is not None else None

    def put(self, domain: str, number: int, ends: int, shelf: bytes, row: tuple[bytes, int, bytes]) -> None:
        """A new entry: (token, expires, body) under an epoch of ``domain``."""
        self._db.execute(NEW_EPOCH, (domain, number, ends))
        self._db.execute(
            "insert into entry (epoch, shelf, token, expires, body) "
            "select id, ?, ?, ?, ? from epoch where domain = ? and number = ?",
            (shelf, *row, domain, number),
        )

    def move(self, entry: int, domain: str, number: int, ends: int, sealed: tuple[bytes, bytes, bytes]) -> None:
        """An entry (by id) sealed anew: (shelf, token, body) under another epoch."""
        self._db.execute(NEW_EPOCH, (domain, number, ends))
        self._db.execute(
            "update entry set shelf = ?, token = ?, body = ?, "
            "epoch = (select id from epoch where domain = ? and number = ?) where id = ?",
            (*sealed, domain, number, entry),
        )

    def remove(self, column: str, values: Sequence[bytes]) -> int:
        """Remove the entries whose ``column`` (token or shelf) is among ``values``; how many there were."""
        marks = ",".join("?" * len(values))
        return self._db.execute(f"delete from entry where {column} in ({marks})", values).rowcount  # noqa: S608  # ours

    def after(self, column: str, values: Sequence[bytes | int], last: int, count: int) -> list[Row]:
        """The next ``count`` entries behind id ``last`` whose ``column`` (shelf or epoch) is among ``values``."""
        marks = ",".join("?" * len(values))
        query = f"{ROW} where entry.{column} in ({marks}) and entry.id > ? order by entry.id limit ?"
        return [_row(row) for row in self._db.execute(query, (*values, last, count))]

    def remove_epoch(self, stored: StoredEpoch) -> int:
        """Remove an epoch with all that is sealed under it; how many entries there were."""
        count = self._db.execute("delete from entry where epoch = ?", (stored.id,)).rowcount
        self._db.execute("delete from epoch where id = ?", (stored.id,))
        return count

    def mark(self, stored: StoredEpoch, lost: int) -> None:
        """Note since when its key is missed; 0: it is there."""
        self._db.execute("update epoch set lost = ? where id = ?", (lost, stored.id))

    def expire(self, now_ms: int) -> None:
        """Remove what has ended, and epochs that nothing is sealed under any more."""
        self._db.execute("delete from entry where expires > 0 and expires <= ?", (now_ms,))
        self._db.execute("delete from epoch where id not in (select epoch from entry)")

    def forget(self) -> None:
        """After a removal, outside a transaction: let nothing of it stand in the write-ahead log."""
        with self._lock, self._typed():
            self._db.execute("pragma wal_checkpoint(truncate)").fetchone()


def _row(values: tuple[object, ...]) -> Row:
    kinds = tuple(type(each) for each in values)
    if kinds != (int, int, bytes, int, bytes):  # SQLite keeps whatever type was written
        raise sqlite3.DatabaseError(f"not an entry: {', '.join(each.__name__ for each in kinds)}")
    return Row(*values)  # type: ignore[arg-type]  # checked


def _meaning(path: Path, error: sqlite3.Error) -> BusError:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in DAMAGED:
        return Refused(
            f"{path}: damaged: {error}",
            code=Code.STORE,
            hint=f"remove {path} with its -wal and -shm: its entries are lost",
        )
    if primary == sqlite3.SQLITE_FULL:
        return RetryLater(f"{path}: the disk is full; nothing was written", code=Code.STORE, hint="make room there")
    if primary in FOR_GOOD:
        return Refused(f"{path}: {error}", code=Code.STORE, hint="may this process write there?")
    return RetryLater(f"{path}: {error}", code=Code.STORE)
