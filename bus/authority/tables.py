"""Numbered documents in a table, for an authority whose replicas share a database (``bus.authority.documents``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from bus.authority.database import Database
from bus.authority.documents import WHOLE, Documents, Place

ROOTS: Final = "root"
AUDIT_ROOTS: Final = "audit_root"
TOMBSTONES: Final = "tombstone"
"""Tables of their own: whoever reads the audit's roots needs no right to those of domains."""
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS {} (number BIGINT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (number, name))"
)
_INSERT: Final = "INSERT INTO {} VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


class Table:
    """One table, called ``name``. The row without a name claims a number: the second who inserts it is refused. It is
    a place of tombstones, too (``bus.authority.tombstones.Stones``), whose numbers nobody claims."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    def setup(self) -> None:
        """Make the table where it is missing."""
        self._database.setup(self._sql(_SCHEMA))

    def reach(self) -> None:
        """Nothing: a database that is away says so at each call."""

    def alone(self) -> AbstractContextManager[None]:
        """See ``Documents``. One lock for all tables of a database."""
        return self._database.alone()

    def places(self, since: int = 0) -> frozenset[Place]:
        """See ``Documents`` and ``Stones``."""
        with self._database.read() as db:
            found = db.execute(
                self._sql("SELECT number, name FROM {} WHERE number >= ? AND length(data) > 0"), (since,)
            )
            return frozenset((row[0], row[1]) for row in found.fetchall())

    def names(self, number: int) -> frozenset[str]:
        """See ``Documents``."""
        with self._database.read() as db:
            found = db.execute(self._sql("SELECT name FROM {} WHERE number = ? AND length(data) > 0"), (number,))
            return frozenset(row[0] for row in found.fetchall())

    def read(self, number: int, name: str) -> bytes:
        """See ``Documents``."""
        with self._database.read() as db:
            found = db.execute(
                self._sql("SELECT data FROM {} WHERE number = ? AND name = ?"), (number, name)
            ).fetchone()
        if found is None:
            raise FileNotFoundError(f"{self._name} {number}/{name}")
        return bytes(found[0])

    def add(self, number: int, documents: Mapping[str, bytes]) -> bool:
        """See ``Documents``."""
        with self._database.write() as db:
            claim = (number, WHOLE, documents.get(WHOLE, b""))
            if db.execute(self._sql(_INSERT), claim).rowcount == 0:
                return False
            for name, data in documents.items():
                if name != WHOLE:
                    db.execute(self._sql(_INSERT), (number, name, data))
        return True

    def replace(self, number: int, name: str, before: bytes, after: bytes) -> bool:
        """See ``Documents``."""
        update = self._sql("UPDATE {} SET data = ? WHERE number = ? AND name = ? AND data = ?")
        with self._database.write() as db:
            return db.execute(update, (after, number, name, before)).rowcount == 1

    def put(self, number: int, name: str, data: bytes) -> None:
        """See ``Stones``."""
        with self._database.write() as db:
            db.execute(self._sql(_INSERT), (number, name, data))

    def discard(self, number: int, name: str) -> bool:
        """See ``Documents``."""
        with self._database.write() as db:
            done = db.execute(self._sql("DELETE FROM {} WHERE number = ? AND name = ?"), (number, name))
            left = db.execute(self._sql("SELECT 1 FROM {} WHERE number = ? AND length(data) > 0"), (number,))
            if left.fetchone() is None:
                db.execute(self._sql("DELETE FROM {} WHERE number = ?"), (number,))  # its claim
            return done.rowcount == 1

    def remove(self, number: int) -> None:
        """See ``Documents``."""
        with self._database.write() as db:
            db.execute(self._sql("DELETE FROM {} WHERE number = ?"), (number,))

    def _sql(self, text: str) -> str:
        return text.format(self._name)


def move(source: Documents, target: Documents) -> int:
    """Move every document to ``target``, for a deployment that changes how it issues; how many numbers. What is there
    already stays; cut off, it goes on when it is called again."""
    numbers = sorted({number for number, _ in source.places()})
    for number in numbers:
        with contextlib.suppress(FileNotFoundError):  # another process moves, too, and was first
            documents = {name: source.read(number, name) for name in source.names(number)}
            if documents:
                target.add(number, documents)
        with source.alone():
            source.remove(number)
    return len(numbers)
