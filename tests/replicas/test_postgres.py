"""PostgreSQL as the store: who it speaks to and how, an outage, and what is never told."""

from __future__ import annotations

import pytest

from bus.authority.postgres import Postgres
from bus.authority.tables import ROOTS, Table
from bus.errors import RetryLater, SettingsError
from bus.stack.pki import ensure_pki
from tests.replicas.cluster import PASSWORD


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("host=localhost password=hunter2", "a password does not belong into settings"),
        ("postgresql://bus:hunter2@localhost/bus", "a password does not belong into settings"),
        ("host=db.internal dbname=bus", "expected sslmode=verify-full"),
        ("host=localhost.internal dbname=bus", "expected sslmode=verify-full"),
        ("host=localhost hostaddr=10.0.0.1 dbname=bus", "expected sslmode=verify-full"),
        ("host=/run/pg,db.internal dbname=bus", "expected sslmode=verify-full"),
        ("host=db.internal sslmode=require", "expected sslmode=verify-full"),
        ("dbname=bus", "expected sslmode=verify-full"),
        ("hunter2", "not a connection string"),
    ],
)
def test_an_address_that_tells_a_password_or_trusts_a_network_is_refused(cluster, address, match):
    with pytest.raises(SettingsError, match=match) as refused:
        Postgres(address, 1000)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["host=/run/pg", "host=127.0.0.1", "host=::1", "host=localhost", "host=db.internal sslmode=verify-full"]
)
def test_sockets_loopback_and_verified_tls_are_taken(cluster, address):
    Postgres(f"{address} dbname=bus", 1000).close()


def test_tls_is_spoken_to_who_the_ca_names_and_to_nobody_else(cluster, tmp_path):
    database = Postgres(cluster.address(tls=True), 5000)
    with database.read() as db:
        assert db.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0] is True
    database.close()
    ensure_pki(tmp_path / "other")
    address = cluster.address(tls=True).replace(str(cluster.home / "pki"), str(tmp_path / "other"))
    stranger = Postgres(address, 1000)
    with pytest.raises(RetryLater, match="postgresql localhost/postgres is away"), stranger.read():
        pass
    stranger.close()


def test_a_wrong_password_is_no_way_in_and_is_not_told(cluster, tmp_path):
    wrong = tmp_path / "passfile"
    wrong.write_text("*:*:*:sealbus:hunter2\n")
    wrong.chmod(0o600)
    database = Postgres(cluster.address().replace(str(cluster.home / "passfile"), str(wrong)), 1000)
    with pytest.raises(RetryLater, match="is away") as refused, database.write():
        pass
    assert not {"hunter2", PASSWORD} & {str(refused.value), repr(database)}
    database.close()


def test_a_server_that_is_away_is_waited_for_and_nothing_is_lost(cluster):
    database = Postgres(cluster.database("outage"), 1000)
    table = Table(database, ROOTS)
    table.setup()
    table.add(1, {".notes": b"1"})
    cluster.stop()
    try:
        for ask in (table.places, lambda: table.add(2, {".notes": b"2"}), lambda: table.read(1, ".notes")):
            with pytest.raises(RetryLater, match=r"postgresql .*/outage is away"):
                ask()
    finally:
        cluster.start()
    assert table.add(2, {".notes": b"2"})
    assert (table.places(), table.read(1, ".notes")) == ({(1, ".notes"), (2, ".notes")}, b"1")
    database.close()


def test_a_table_that_is_not_there_is_an_operators_to_mend(cluster):
    database = Postgres(cluster.database("bare"), 1000)
    with pytest.raises(RetryLater, match="is away: UndefinedTable 42P01"):
        Table(database, ROOTS).places()
    database.close()


def test_what_fails_within_a_transaction_leaves_nothing(cluster):
    database = Postgres(cluster.database("whole"), 1000)
    table = Table(database, ROOTS)
    table.setup()

    def cut_off() -> None:
        with database.write() as db:
            db.execute("INSERT INTO root VALUES (1, '', '')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_off()
    assert table.places() == set()
    database.close()
