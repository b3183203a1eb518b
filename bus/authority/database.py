"""Transactions on the authority's state: a SQLite file here, PostgreSQL in ``bus.authority.postgres``.

SQL is written once, in words that both take; where they differ, in SQLite's. What must hold between replicas is said in
one statement each (insert if absent, compare and set), so that it holds at either's default isolation.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from bus.authority.documents import reach
from bus.codes import Code
from bus.errors import RetryLater
from bus.files import alone
from bus.settings import Settings

WAIT_S: Final = 5.0
"""How long one process waits for another's transaction."""


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...


class Transaction(Protocol):
    """One transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Run one statement; each ``?`` is a value."""
        ...


class Database(Protocol):
    """Thread-safe. Every method raises RetryLater where the database cannot be had."""

    def setup(self, schema: str) -> None:
        """Make the tables of ``schema`` (``CREATE TABLE IF NOT EXISTS``, separated by semicolons)."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """A transaction, committed where the block ends without an exception."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """One that only reads; needs no right to write."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """One at a time of all processes that share the database; transactions go on. Not twice in one thread."""
        ...


class Sqlite:
    """The file ``path``, for processes of one machine. Only ``setup`` makes it: a file that is away stays away."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def setup(self, schema: str) -> None:
        """See ``Database``."""
        with self._transaction("rwc", "BEGIN IMMEDIATE") as db:
            for statement in schema.split(";"):
                db.execute(statement)

    def write(self) -> AbstractContextManager[Transaction]:
        """See ``Database``. One at a time."""
        return self._transaction("rw", "BEGIN IMMEDIATE")

    def read(self) -> AbstractContextManager[Transaction]:
        """See ``Database``."""
        return self._transaction("ro", "BEGIN")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See ``Database``. By the file's folder: a lock on the file would be lost with any connection to it."""
        reach(self._path.parent)
        with alone(self._path.parent):
            yield

    @contextmanager
    def _transaction(self, mode: str, begin: str) -> Iterator[Transaction]:
        try:
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={mode}", WAIT_S, isolation_level=None, uri=True
            )
        except sqlite3.Error as error:
            raise self._away(error) from error
        try:
            db.execute("PRAGMA synchronous=FULL")
            db.execute(begin)
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._away(error) from error
        finally:
            db.close()

    def _away(self, error: sqlite3.Error) -> RetryLater:
        return RetryLater(f"{self._path}: the store is away: {error}", code=Code.RETRY)


def open_database(settings: Settings, path: Path) -> Database:
    """The database of the settings; the file ``path`` where they name none. Raises SettingsError."""
    if settings.authority_database:
        from bus.authority.postgres import postgres  # its package is an extra

        return postgres(settings.authority_database, settings.key_timeout_ms)
    return Sqlite(path)
