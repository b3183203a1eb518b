"""The authority's state in PostgreSQL, for replicas on several machines. Connections are psycopg's pool's.

``bus.postgres`` says what an address is.
"""

from __future__ import annotations

import atexit
import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from bus.authority.database import Rows, Transaction
from bus.extras import package
from bus.postgres import away, checked

POOL: Final = 8
"""Connections of one process, made when they are needed."""
SETUP_LOCK: Final = 0x5EA1B05
"""Two processes that make one table at the same moment trip over each other in PostgreSQL's catalogue."""
ALONE_LOCK: Final = 0x5EA1B06
ALONE_WAIT: Final = "30s"
"""Whoever holds it may wait for a key provider."""
_TYPES: Final = {"BLOB": "BYTEA", "INTEGER": "BIGINT", "WITHOUT ROWID": ""}


class _Statements:
    """A connection that takes ``?`` for values."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        rows: Rows = self._connection.execute(statement.replace("?", "%s"), values or None)
        return rows


class Postgres:
    """The database at ``address``; nothing is spoken to yet. ``close`` ends its connections.

    Raises SettingsError where the address holds a password, or would speak to another machine without TLS.
    """

    def __init__(self, address: str, timeout_ms: int) -> None:
        self._psycopg = package("psycopg", "postgres", "authority_database")
        pool = package("psycopg_pool", "postgres", "authority_database")
        self._told = checked(self._psycopg.conninfo, address, "authority_database")
        self._pool = pool.ConnectionPool(
            address,
            min_size=0,
            max_size=POOL,
            open=False,
            timeout=timeout_ms / 1000,
            reconnect_timeout=timeout_ms / 1000,
            check=pool.ConnectionPool.check_connection,  # a server that was restarted is noticed before it is asked
            kwargs={"connect_timeout": max(timeout_ms // 1000, 1), "application_name": "sealbus"},
            num_workers=1,
        )

    def setup(self, schema: str) -> None:
        """See ``Database``."""
        for word, other in _TYPES.items():
            schema = re.sub(rf"\b{word}\b", other, schema)
        with self.write() as db:
            db.execute("SELECT pg_advisory_xact_lock(?)", (SETUP_LOCK,))
            for statement in filter(str.strip, schema.split(";")):
                db.execute(statement)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """See ``Database``. READ COMMITTED."""
        try:
            self._pool.open()
            with self._pool.connection() as connection:
                yield _Statements(connection)
        except self._psycopg.Error as error:
            raise away(self._told, error) from None

    def read(self) -> AbstractContextManager[Transaction]:
        """See ``Database``."""
        return self.write()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See ``Database``. The server frees the lock of a process that is gone."""
        with self.write() as db:
            db.execute("SELECT set_config('lock_timeout', ?, true)", (ALONE_WAIT,))
            db.execute("SELECT pg_advisory_xact_lock(?)", (ALONE_LOCK,))
            yield

    def close(self) -> None:
        """End every connection."""
        self._pool.close()


@functools.cache
def postgres(address: str, timeout_ms: int) -> Postgres:
    """One pool for all of a process that names this address."""
    made = Postgres(address, timeout_ms)
    atexit.register(made.close)
    return made
