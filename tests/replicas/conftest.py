"""The stores that replicas share: a folder, SQLite, PostgreSQL. Each test of a contract runs on all that there are."""

from __future__ import annotations

import itertools

import pytest

from bus.authority.database import Sqlite
from bus.authority.documents import Folder
from bus.authority.postgres import Postgres
from bus.authority.tables import AUDIT_ROOTS, ROOTS, TOMBSTONES, Table
from bus.authority.tombstones import StoneFolder
from bus.files import make_folder
from tests.replicas.cluster import running

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def cluster():
    """A running PostgreSQL."""
    with running() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def open_again(request, tmp_path):
    """A function that opens one database, each time as a process of its own would."""
    if request.param == "sqlite":
        yield lambda: Sqlite(tmp_path / "state.db")
        return
    address = request.getfixturevalue("cluster").database(f"t{next(NUMBERS)}")
    opened = []

    def again():
        opened.append(Postgres(address, 5000))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


@pytest.fixture(params=["folder", "sqlite", "postgres"])
def stores(request, tmp_path):
    """A function that opens the documents of domains and of the audit, and tombstones, each time as a process of its
    own would."""
    if request.param == "folder":
        roots, audit, stones = (make_folder(tmp_path / name) for name in ("roots", "audit", "tombstones"))
        yield lambda: (Folder(roots), Folder(audit), StoneFolder(stones))
        return
    if request.param == "sqlite":
        database = Sqlite(tmp_path / "state.db")
    else:
        database = Postgres(request.getfixturevalue("cluster").database(f"t{next(NUMBERS)}"), 5000)
    tables = [Table(database, name) for name in (ROOTS, AUDIT_ROOTS, TOMBSTONES)]
    for each in tables:
        each.setup()
    yield lambda: tuple(tables)
    if isinstance(database, Postgres):
        database.close()
