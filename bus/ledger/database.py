"""What the ledger asks of a database: a SQLite file (``sqlite``) or PostgreSQL (``postgres``).

Statements are in words that both take, each ``?`` a value. Every method raises RetryLater where the database cannot do
it now (away, locked, full), Refused (ledger) where it holds what no recorder writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Row = tuple[Any, ...]
Posting = tuple[int, bytes, bytes, int]
"""Place of the first leaf, the others, a bucket's tokens, leaves of the partition: see ``postings``."""


class Database(Protocol):
    """One connection, for one thread."""

    name: str
    """How it is called in messages."""

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query gives."""
        ...

    def run(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """A statement for each row of values."""
        ...

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Rows that are not there yet; the fastest way that the database has. Refused where one is."""
        ...

    def find(self, token: bytes) -> list[Posting]:
        """Rows of the search index that a token may be in."""
        ...

    def has(self, table: str) -> bool:
        """Whether there is such a table: what an earlier release wrote may lack it."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """A transaction, committed where the block ends without an exception."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """One consistent view for several reads."""
        ...

    def hold(self, partition: int) -> None:
        """Within ``writing``: no other recorder changes this audit partition until it ends."""
        ...

    def copy(self, path: Path) -> None:
        """All of it, of one moment, as the new SQLite file ``path``, readable where nothing can be written."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...
