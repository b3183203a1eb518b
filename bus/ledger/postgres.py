"""The shared ledger in PostgreSQL: several recorders, each for the audit partitions that Kafka gives it.

A recorder that was overtaken cannot write: it holds a partition by an advisory lock for as long as a transaction, and
compares the stored position within it. Tables are made and changed by migrations (Alembic, ``migrations/versions``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater
from bus.extras import package
from bus.ledger import postings
from bus.ledger.database import Posting, Row
from bus.ledger.postings import LEAF_BITS, SEGMENT_BITS
from bus.ledger.sqlite import SqliteFile
from bus.postgres import away, checked

SETTING: Final = "ledger_database"
SETUP_LOCK: Final = 0x5EA1B07
HOLD_LOCK: Final = 0x5EA1B08
CONNECT_S: Final = 5
OPTIONS: Final = {
    # A recorder that stands still within a transaction shall not keep the next from its partition.
    "idle_in_transaction_session_timeout": "20s",
    "lock_timeout": "25s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Searches are many short steps: compiling them takes longer than they do.
    "jit": "off",
}
ALIVE: Final = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A server that vanished is noticed within half a minute; libpq's words."""
STANDING: Final = frozenset({"25P03", "25006"})
"""idle_in_transaction_session_timeout, read_only_sql_transaction: not among psycopg's operational errors."""
SILENT_S: Final = 20
END_SILENT: Final = """
select pg_terminate_backend(pid) from pg_locks join pg_stat_activity using (pid)
  where locktype = 'advisory' and classid = %s and objid = %s and granted and wait_event = 'ClientRead'
    and now() - xact_start > make_interval(secs => %s)
"""
_BIG, _BYTES, _TEXT = "int8", "bytea", "text"
TYPES: Final = {
    "state": (_BIG,) * 3,
    "entry": (_BIG, _BIG, _BIG, _BIG, _BIG, _BYTES, _BYTES),
    "tile": (_BIG, _BIG, _BIG, _BYTES),
    "checkpoint": (_BIG, _BIG, _TEXT),
    "cosignature": (_BIG, _TEXT, _BIG, _TEXT),
    "interval": (_TEXT, _BIG, _BIG, _BIG, _BIG, _BIG),
    "retired": (_BIG, _BIG, _BIG, _TEXT),
    "day": (_BIG, _BIG),
    "posting": (_BIG, _BYTES, _BIG, _BYTES),
    "single": (_BIG, _BIG, _BIG, _BYTES),
    "wanted": (_TEXT, _BIG, _BIG, _BYTES, _BIG),
    "payload": (_BYTES, _BYTES, _TEXT),
}
"""Columns of every table that an export holds."""
DURABLE: Final = """select set_config('synchronous_commit', 'on', false)
  where current_setting('synchronous_commit') = 'off'"""
# Each segment by itself, so that the index is used whatever the planner knows of a table that only grows.
FIND: Final = f"""
with segment as (
  select generate_series((partition << {LEAF_BITS}) >> {SEGMENT_BITS},
                         ((partition << {LEAF_BITS}) | (size - 1)) >> {SEGMENT_BITS}) as number, size
    from state where size > 0)
select place, others, ''::bytea, size from segment cross join lateral (
  select place, others from posting where posting.segment = number and token = %(token)s offset 0) as found
union all
select place, ''::bytea, tokens, size from segment cross join lateral (
  select place, tokens from single where single.segment = number and bucket = %(bucket)s offset 0) as found
  where position(%(token)s::bytea in tokens) > 0
"""  # noqa: S608  # numbers of ours


class PostgresLedger:
    """See ``Database``. One that records brings the tables up to date; one that reads refuses where there are none.

    Raises SettingsError for an address that cannot be used, RetryLater where the server is away.
    """

    def __init__(self, address: str, deployment: bytes, *, read_only: bool) -> None:
        self._psycopg = package("psycopg", "postgres", SETTING)
        self.name = checked(self._psycopg.conninfo, address, SETTING)
        self._address = address
        self._held: Any = None
        if not read_only:
            self._migrate()
            self.run("insert into meta values ('deployment', ?) on conflict do nothing", [(deployment.hex(),)])
        elif not self.has("meta"):
            raise Refused(f"no ledger at {self.name}", code=Code.LEDGER, hint="does the audit consumer run?")
        held = self.rows("select value from meta where key = 'deployment'")
        if not held or held[0][0] != deployment.hex():
            found = held[0][0] if held else None
            raise Refused(f"{self.name}: it belongs to deployment {found}", code=Code.LEDGER)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """See ``Database``."""
        with self._errors():
            found: list[Row] = self._connection().execute(_words(query), values or None).fetchall()
        return found

    def run(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """See ``Database``."""
        with self._errors(), self._connection().cursor() as cursor:
            cursor.executemany(_words(statement), rows)

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """See ``Database``: COPY in binary form."""
        with (
            self._errors(),
            self._connection().cursor() as cursor,
            cursor.copy(f"copy {table} from stdin (format binary)") as copy,
        ):
            copy.set_types(TYPES[table])
            for row in rows:
                copy.write_row(row)

    def find(self, token: bytes) -> list[Posting]:
        """See ``Database``."""
        with self._errors():
            told = {"token": token, "bucket": postings.bucket(token)}
            found: list[Posting] = self._connection().execute(FIND, told).fetchall()
        return found

    def has(self, table: str) -> bool:
        """See ``Database``."""
        return bool(self.rows("select to_regclass(?) is not null", (table,))[0][0])

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Database``. READ COMMITTED: what counts is read behind ``hold``."""
        with self._transaction("begin isolation level read committed", "commit"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See ``Database``."""
        with self._transaction("begin isolation level repeatable read read only", "rollback"):
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str, end: str) -> Iterator[None]:
        with self._errors():
            held = self._connection()
            held.execute(begin)
        try:
            yield
            with self._errors():
                held.execute(end)
        except BaseException:
            with contextlib.suppress(BusError), self._errors():
                held.execute("rollback")
            raise

    def hold(self, partition: int) -> None:
        """See ``Database``. A recorder that stands still in the middle of its transaction is ended by who waits for it:
        no timeout of the server ends a COPY whose client is silent."""
        try:
            with self._errors():
                self._connection().execute("select pg_advisory_xact_lock(%s, %s)", (HOLD_LOCK, partition))
        except RetryLater:
            with contextlib.suppress(self._psycopg.Error), self._open() as other:
                other.execute(END_SILENT, (HOLD_LOCK, partition, SILENT_S))
            raise

    def copy(self, path: Path) -> None:
        """See ``Database``."""
        deployment = self.rows("select value from meta where key = 'deployment'")[0][0]
        copied = SqliteFile(path, bytes.fromhex(deployment), read_only=False)
        try:
            with self.reading(), copied.writing():
                for table, types in TYPES.items():
                    into = f"insert into {table} values ({','.join('?' * len(types))})"  # noqa: S608  # our names
                    with self._errors(), self._connection().cursor(name="copying") as cursor:
                        copied.run(into, cursor.execute(f"select * from {table}"))  # noqa: S608  # our names
            copied.rows("pragma journal_mode = delete")
        finally:
            copied.close()

    def fill(self, source: SqliteFile) -> None:
        """Take over all of an embedded ledger, or nothing. Raises Refused (ledger) where this one holds any."""
        with self.writing(), source.reading():
            self.rows("select pg_advisory_xact_lock(?)", (SETUP_LOCK,))
            if self.rows("select 1 from state limit 1"):
                raise Refused(f"{self.name}: expected an empty ledger", code=Code.LEDGER)
            for table in TYPES:
                self.insert(table, source.connection.execute(f"select * from {table}"))  # noqa: S608  # our names

    def close(self) -> None:
        """See ``Database``."""
        if self._held is not None:
            self._held.close()

    def _connection(self) -> Any:
        """The connection; a new one where the last was lost."""
        if self._held is None or self._held.closed:
            self._held = self._open()
            for name, value in OPTIONS.items():
                self._held.execute("select set_config(%s, %s, false)", (name, value))
            # What is signed must be on the disk; a server may have been told to say so before it is.
            self._held.execute(DURABLE)
        return self._held

    def _open(self, *, autocommit: bool = True) -> Any:
        return self._psycopg.connect(
            self._address, autocommit=autocommit, connect_timeout=CONNECT_S, application_name="sealbus-ledger", **ALIVE
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (self._psycopg.OperationalError, self._psycopg.InterfaceError) as error:
            raise away(self.name, error) from None
        except self._psycopg.Error as error:
            # Whatever cost the connection, or a server that is a standby just now, may be otherwise the next time.
            if error.sqlstate in STANDING or self._held is None or self._held.closed:
                raise away(self.name, error) from None
            told = f"{type(error).__name__} {error.sqlstate or ''}".rstrip()
            raise Refused(f"the ledger cannot be used: {told}", code=Code.LEDGER) from None

    def _migrate(self) -> None:
        command, config = (package(f"alembic.{each}", "postgres", SETTING) for each in ("command", "config"))
        sqlalchemy = package("sqlalchemy", "postgres", SETTING)
        told = config.Config()
        told.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=functools.partial(self._open, autocommit=False),
            poolclass=sqlalchemy.pool.NullPool,
        )
        try:
            with self._errors(), engine.begin() as connection:
                connection.execute(sqlalchemy.text(f"select pg_advisory_xact_lock({SETUP_LOCK})"))
                told.attributes["connection"] = connection
                command.upgrade(told, "head")
        except sqlalchemy.exc.DBAPIError as error:
            raise away(self.name, error.orig) from None


@functools.lru_cache(maxsize=256)
def _words(statement: str) -> str:
    return statement.replace("?", "%s")
