"""The embedded ledger's file: SQLite (WAL, synchronous=FULL), one process that writes, any that read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater
from bus.files import make_folder
from bus.ledger import postings
from bus.ledger.database import Posting, Row
from bus.ledger.schema import BITS, CONVERSION, DAYS, FIND, SCHEMA, TUNING

MAY_MEND: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
    }
)
COLUMNS: Final = {"entry": 7, "interval": 6, "posting": 4, "single": 4, "checkpoint": 3, "retired": 4}


class SqliteFile:
    """See ``Database``. Raises Refused (ledger) where there is no file to read, or one of something else."""

    def __init__(self, path: Path, deployment: bytes, *, read_only: bool) -> None:
        if read_only and not path.is_file():
            raise Refused(f"no ledger at {path}", code=Code.LEDGER, hint="does the audit consumer run?")
        self.name = str(path)
        self._deployment = deployment.hex()
        try:
            if read_only:
                self.connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
            else:
                make_folder(path.parent)
                self.connection = sqlite3.connect(path, isolation_level=None)
                path.chmod(0o600)
                self.connection.execute("pragma page_size = 8192")  # of a new file
                self.connection.execute("pragma journal_mode = wal")
                self.connection.executescript(TUNING)
                self._create()
            self._check()
            self._numbered = self.has("token")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _told(error) from None
            raise Refused(f"{path}: not a ledger: {error}", code=Code.LEDGER) from None

    def _check(self) -> None:
        held = self.connection.execute("select value from meta where key = 'deployment'").fetchone()
        if held is None or held[0] != self._deployment:
            raise Refused(f"{self.name}: it belongs to deployment {held and held[0]}", code=Code.LEDGER)

    def _create(self) -> None:
        """Make what is not there, and convert what an earlier release wrote."""
        with self.writing():
            db = self.connection
            numbered, dated = self.has("token"), self.has("day")
            if numbered:
                db.execute("alter table posting rename to numbered_posting")
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            if numbered:
                db.execute(CONVERSION, BITS)
                db.execute("drop table numbered_posting")
                db.execute("drop table token")
            if not dated:
                db.execute(DAYS)
            db.execute("insert or ignore into meta values ('deployment', ?)", (self._deployment,))
            self._check()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """See ``Database``."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _told(error) from error

    def run(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """See ``Database``."""
        try:
            self.connection.executemany(statement, rows)
        except sqlite3.DatabaseError as error:
            raise _told(error) from error

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """See ``Database``."""
        self.run(f"insert into {table} values ({','.join('?' * COLUMNS[table])})", rows)  # noqa: S608  # our names

    def find(self, token: bytes) -> list[Posting]:
        """See ``Database``."""
        if self._numbered:
            raise Refused(
                "the ledger's search index is of an older form",
                code=Code.LEDGER,
                hint="the audit consumer converts it when it starts",
            )
        try:
            told = {**BITS, "token": token, "bucket": postings.bucket(token)}
            return self.connection.execute(FIND, told).fetchall()
        except sqlite3.DatabaseError as error:
            raise _told(error) from error

    def has(self, table: str) -> bool:
        """See ``Database``."""
        return bool(self.rows("select 1 from sqlite_master where type = 'table' and name = ?", (table,)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Database``."""
        self.rows("begin immediate")
        try:
            yield
            self.rows("commit")
        except BaseException:
            with contextlib.suppress(BusError):
                self.rows("rollback")
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See ``Database``."""
        self.rows("begin")
        try:
            yield
        finally:
            self.rows("rollback")

    def hold(self, partition: int) -> None:
        """See ``Database``: ``begin immediate`` holds the whole file."""

    def copy(self, path: Path) -> None:
        """See ``Database``."""
        with contextlib.closing(sqlite3.connect(path)) as copied:
            self.connection.backup(copied)
            copied.execute("pragma journal_mode = delete")

    def close(self) -> None:
        """See ``Database``."""
        self.connection.close()


def _told(error: sqlite3.DatabaseError) -> BusError:
    """The error as the ledger's callers know it."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in MAY_MEND:
        return RetryLater(f"the ledger is away: {error}", code=Code.RETRY)
    return Refused(f"the ledger cannot be used: {error}", code=Code.LEDGER)
