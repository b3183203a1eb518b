"""The ledger's contract on both databases: a file, and a PostgreSQL that several recorders share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from bus.crypto import tree
from bus.errors import Refused, RetryLater
from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.export import export as make_export
from bus.ledger.export import verify_export
from bus.ledger.payloads import Lost, Payload, Wanted
from bus.ledger.postgres import OPTIONS, PostgresLedger
from bus.ledger.query import LedgerQuery
from bus.ledger.retention import due, nothing, retire
from bus.ledger.segments import SEGMENT
from bus.ledger.sqlite import SqliteFile
from bus.ledger.store import Append, Entry, Interval, Ledger, Overtaken
from bus.ledger.verify import verify_ledger
from bus.wire.hopblock import DAY_MS
from demo.observer import look
from tests.integration.oracle import until
from tests.replicas.cluster import running
from tests.replicas.conftest import NUMBERS
from tests.unit.ledger_build import (
    DAY,
    DEPLOYMENT,
    INPUT,
    LEDGER_SIGNER,
    OTHER_DEPLOYMENT,
    keys_of,
    make_blocks,
    name_of,
    record,
)
from tests.unit.ledger_forks import work_through

KEY = LEDGER_SIGNER.public_key


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request, tmp_path):
    """A function that opens one ledger, each time as a process of its own would."""
    made = []

    def again(deployment=DEPLOYMENT, *, read_only=False):
        if request.param == "sqlite":
            made.append(Ledger(tmp_path / "l" / "ledger.db", deployment, read_only=read_only))
        else:
            made.append(Ledger(PostgresLedger(address, deployment, read_only=read_only), deployment))
        return made[-1]

    address = request.getfixturevalue("cluster").database(f"l{next(NUMBERS)}") if request.param == "postgres" else ""
    yield again
    for each in made:
        each.close()


@pytest.fixture
def shared(cluster):
    """As ``opened``, PostgreSQL alone."""
    made = []
    address = cluster.database(f"l{next(NUMBERS)}")

    def again(*, read_only=False):
        made.append(Ledger(PostgresLedger(address, DEPLOYMENT, read_only=read_only), DEPLOYMENT))
        return made[-1]

    yield again
    for each in made:
        each.close()


def entry(number: int, *more: bytes) -> Entry:
    tokens = (b"token %010d" % number, *more)
    return Entry(DAY, number, 0, b"body", bytes(32), tree.leaf_hash(b"%d" % number), tokens)


def interval(number: int) -> Interval:
    return Interval(INPUT, 0, number, number + 1, number)


def test_hops_are_found_proven_verified_and_exported(opened, tmp_path):
    ledger = opened()
    record(ledger, make_blocks(600, 20))
    assert ledger.sign(1, LEDGER_SIGNER) is not None
    reader = opened(read_only=True)
    report = verify_ledger(reader, KEY)
    assert (report.leaves, report.checkpoints, report.problems) == (600, 1, [])
    query = LedgerQuery(reader, keys_of)
    assert [each.hop.decision_id for each in query.search({"correlation": "session-7"})] == [
        name_of(number) for number in (21, 22, 23)
    ]
    assert len(query.search({"agent": "writer-1", "verdict": "ALLOW"})) == 600
    assert query.search({"agent": "nobody"}) == []
    assert query.prove(name_of(599)).leaf == 599
    made = make_export(reader, tmp_path / "out", LEDGER_SIGNER, 1)
    assert verify_export(tmp_path / "out", KEY).problems == []
    assert made.heads[1][0] == verify_export(tmp_path / "out", KEY).leaves == 600


def test_both_databases_hold_the_same_bytes(shared, tmp_path):
    blocks, paths = make_blocks(300, 30), [tmp_path / name for name in ("one", "two")]
    for path, ledger in zip(paths, (Ledger(tmp_path / "ledger.db", DEPLOYMENT), shared()), strict=True):
        record(ledger, blocks)
        ledger.sign(1, LEDGER_SIGNER)
        ledger.keep([(Wanted(INPUT, 0, 1, b"d" * 32, 3), b"abc")], [])
        ledger.copy(path)
    held = [Ledger(path, DEPLOYMENT, read_only=True) for path in paths]
    for table in ("state", "entry", "tile", "checkpoint", "interval", "day", "posting", "single", "payload"):
        one, two = (each._db.rows(f"select * from {table}") for each in held)
        assert one
        assert sorted(one) == sorted(two), table


@pytest.mark.parametrize("expected", [0, 4, 6])
def test_an_append_elsewhere_than_at_the_stored_position_is_refused(opened, expected):
    ledger = opened()
    ledger.append(1, 0, 5, [entry(0)], [])
    with pytest.raises(Overtaken, match=f"expected position {expected}, found 5"):
        ledger.append(1, expected, 7, [entry(1)], [interval(1)])
    assert (ledger.state(1), ledger.intervals()) == ((1, 5), {})
    assert ledger.append(1, 5, 7, [entry(1)], []) == 2


def test_partitions_are_appended_together_or_not_at_all(opened):
    ledger = opened()
    ledger.append_all([Append(2, 0, 2, [entry(0)], []), Append(1, 0, 1, [entry(1), entry(2)], [])])
    with pytest.raises(Overtaken, match="partition 2"):
        ledger.append_all([Append(1, 1, 2, [entry(3)], []), Append(2, 0, 1, [entry(4)], [])])
    assert (ledger.state(1), ledger.state(2)) == ((2, 1), (1, 2))
    assert ledger.find([b"token %010d" % 3]) == []


def test_a_row_that_is_there_leaves_all_as_it_was(opened):
    ledger = opened()
    ledger.append(1, 0, 1, [entry(0)], [interval(0)])
    with pytest.raises(Refused):
        ledger.append(1, 1, 2, [entry(1)], [interval(1), interval(1)])
    assert ledger.state(1) == (1, 1)
    ledger.append(1, 1, 2, [entry(1)], [interval(1)])
    assert ledger.tree(1).root(2) == tree.root([entry(0).leaf, entry(1).leaf])


def test_signing_is_insert_only(opened):
    ledger, other = opened(), opened()
    notes = []
    for block in make_blocks(6, 2):
        record(ledger, [block])
        notes.append(ledger.sign(1, LEDGER_SIGNER))
        assert (ledger.sign(1, LEDGER_SIGNER), other.sign(1, LEDGER_SIGNER)) == (None, None)
    assert list(other.checkpoints(1)) == notes
    assert [open_checkpoint(note, KEY).size for note in notes] == [2, 4, 6]


def test_what_became_of_kept_records_is_held(opened):
    ledger = opened()
    wanted = [Wanted(INPUT, 0, number, b"%032d" % number, 10) for number in range(3)]
    ledger.append_all([Append(0, 0, 1, [entry(0)], [], wanted)])
    assert (ledger.wanted(), ledger.waiting(), ledger.wanted({(INPUT, 0)})) == (wanted, 3, [])
    ledger.keep([(wanted[0], b"sealed")], [(wanted[1], Lost.DELETED)])
    ledger.keep([], [(wanted[0], Lost.CHANGED)])
    assert ledger.payload(wanted[0].digest) == Payload(b"sealed", "")
    assert ledger.payload(wanted[1].digest) == Payload(None, Lost.DELETED.value)
    assert ledger.payload(wanted[2].digest) == Payload(None, "")
    assert ledger.payload(b"nobody") is None
    assert dict(ledger.payloads()) == {wanted[0].digest: b"sealed", wanted[1].digest: None}
    ledger.append_all([Append(0, 1, 2, [entry(1)], [], wanted[:2])])
    assert ledger.wanted() == wanted[1:]


def test_a_ledger_of_another_deployment_is_refused(opened):
    opened()
    for read_only in (False, True):
        with pytest.raises(Refused, match=f"it belongs to deployment {DEPLOYMENT.hex()}"):
            opened(OTHER_DEPLOYMENT, read_only=read_only)


def test_a_ledger_that_nobody_made_is_refused_for_reading(opened):
    with pytest.raises(Refused, match="no ledger at"):
        opened(read_only=True)


def test_a_segment_is_taken_and_what_is_signed_holds(opened):
    ledger, total = opened(), SEGMENT + 100
    record(ledger, make_blocks(total, 1000), batch=4)
    ledger.sign(1, LEDGER_SIGNER)
    query = LedgerQuery(ledger, keys_of)
    (what,) = due(ledger, query, (DAY + 1) * DAY_MS, nothing)
    retire(ledger, query, what, LEDGER_SIGNER, 1)
    report = verify_ledger(opened(read_only=True), KEY)
    assert (report.problems, report.retired, report.leaves) == ([], SEGMENT, total)
    assert [each.leaf for each in LedgerQuery(ledger, keys_of).search({"agent": "writer-1"})] == [
        *range(SEGMENT, total)
    ]


def test_recorders_that_append_at_once_grow_one_log(shared):
    """Each takes what is the newest position; whoever was overtaken takes it anew. Nothing is lost or doubled."""
    recorders = [shared() for _ in range(4)]
    overtaken: list[int] = []

    def work(ledger: Ledger) -> None:
        for _ in range(25):
            while True:
                at = ledger.state(1)[1]
                try:
                    ledger.append(1, at, at + 1, [entry(at)], [interval(at)])
                    ledger.sign(1, LEDGER_SIGNER)
                    break
                except Overtaken:
                    overtaken.append(at)

    threads = [threading.Thread(target=work, args=(each,)) for each in recorders]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    ledger = shared()
    assert ledger.state(1) == (100, 100)
    assert ledger.tree(1).root(100) == tree.root([entry(number).leaf for number in range(100)])
    assert ledger.intervals() == {(INPUT, 0): [(number, number + 1) for number in range(100)]}
    heads = [open_checkpoint(note, KEY) for note in ledger.checkpoints(1)]
    assert len({each.size for each in heads}) == len(heads)
    assert heads[-1].size == 100


def test_a_server_that_is_restarted_is_waited_for(cluster, shared):
    ledger = shared()
    ledger.append(1, 0, 1, [entry(0)], [])
    cluster.stop()
    try:
        with pytest.raises(RetryLater, match="is away"):
            ledger.append(1, 1, 2, [entry(1)], [])
        with pytest.raises(RetryLater, match="is away"):
            ledger.state(1)
    finally:
        cluster.start()
    assert ledger.append(1, 1, 2, [entry(1)], []) == 2
    assert ledger.sign(1, LEDGER_SIGNER) is not None


def test_nothing_is_readable_in_the_servers_files():
    with running() as own:  # in another the authority's state may stand, which names agents
        ledger = Ledger(PostgresLedger(own.database("ledger"), DEPLOYMENT, read_only=False), DEPLOYMENT)
        with contextlib.closing(ledger):
            record(ledger, make_blocks(60, 10))
            ledger.sign(1, LEDGER_SIGNER)
            ledger._db.run("checkpoint", [()])
        origin = f"sealbus/{DEPLOYMENT.hex()}/1"
        assert look(own.home / "data", ["writer-1", "session-7", "notes.produce", origin]).items == {origin}


def test_recorders_that_are_killed_anywhere_make_one_log(cluster, tmp_path):
    address, forks = cluster.database(f"l{next(NUMBERS)}"), 1000
    PostgresLedger(address, DEPLOYMENT, read_only=False).close()
    blocks = make_blocks(4 * forks, 4)
    killed, ended = work_through(lambda: PostgresLedger(address, DEPLOYMENT, read_only=False), blocks, forks, seed=7)
    assert min(killed, ended) > forks / 20
    ledger = Ledger(PostgresLedger(address, DEPLOYMENT, read_only=False), DEPLOYMENT)
    whole = Ledger(tmp_path / "whole.db", DEPLOYMENT)
    done = ledger.state(1)[1]
    assert done >= ended
    record(whole, blocks[:done])
    ledger.sign_all([1], LEDGER_SIGNER)
    report = verify_ledger(ledger, KEY)
    assert (report.problems, report.leaves) == ([], 4 * done)
    assert ledger.tree(1).root(4 * done) == whole.tree(1).root(4 * done)
    ledger.close()


def test_an_embedded_ledger_is_taken_over_whole_and_once(shared, tmp_path):
    source = Ledger(tmp_path / "ledger.db", DEPLOYMENT)
    blocks = make_blocks(300, 30)
    record(source, blocks[:6])
    source.sign(1, LEDGER_SIGNER)
    source.keep([(Wanted(INPUT, 0, 1, b"d" * 32, 3), b"abc")], [])
    source.close()
    ledger, file = shared(), SqliteFile(tmp_path / "ledger.db", DEPLOYMENT, read_only=True)
    ledger._db.fill(file)
    assert verify_ledger(ledger, KEY).leaves == 180
    record(ledger, blocks[6:])
    ledger.sign(1, LEDGER_SIGNER)
    report = verify_ledger(ledger, KEY)
    assert (report.leaves, report.checkpoints) == (300, 2)
    assert [each for each in report.problems if "payload" not in each] == []
    with pytest.raises(Refused, match="expected an empty ledger"):
        ledger._db.fill(file)
    assert ledger.state(1)[0] == 300


def test_a_full_disk_is_waited_for_and_leaves_all_as_it_was(cluster, tmp_path):
    """The ledger's tables on a small file system of their own, which only root can make here."""
    import psycopg

    place = Path(tempfile.mkdtemp(prefix="sealbus-full-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", place], check=False)
    if mounted.returncode:
        place.rmdir()
        pytest.skip("a file system of 24 MiB cannot be mounted here")
    try:
        folder = place / "space"
        folder.mkdir()
        if not os.getuid():
            shutil.chown(folder, "postgres", "postgres")
        name = f"l{next(NUMBERS)}"
        with psycopg.connect(cluster.address(), autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
            admin.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        ledger = Ledger(PostgresLedger(cluster.address(name), DEPLOYMENT, read_only=False), DEPLOYMENT)
        body = os.urandom(7000)
        large = [Entry(DAY, each, 0, body, bytes(32), tree.leaf_hash(b"%d" % each), ()) for each in range(3000)]
        ledger.append(1, 0, 1, [entry(0)], [])
        for _ in range(2):
            with pytest.raises(RetryLater, match="is away: DiskFull"):
                ledger.append(1, 1, 2, large, [])
            assert ledger.state(1) == (1, 1)
        subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
        assert ledger.append(1, 1, 2, large, []) == 3001
        assert ledger.sign(1, LEDGER_SIGNER) is not None
        ledger.close()
        with psycopg.connect(cluster.address(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name}")
            admin.execute(f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
        place.rmdir()


def test_a_recorder_that_stands_still_within_a_copy_is_ended_by_who_waits(shared, monkeypatch):
    """No timeout of the server ends a COPY whose client is silent: who wants its partition does."""
    monkeypatch.setitem(OPTIONS, "lock_timeout", "1s")
    monkeypatch.setattr("bus.ledger.postgres.SILENT_S", 1)
    still, going, copying = shared(), threading.Event(), threading.Event()

    def rows():
        yield (1, 0, DAY, 0, 0, b"body", bytes(32))
        copying.set()
        going.wait(60)

    def stand():
        with contextlib.suppress(RetryLater), still._db.writing():
            still._db.hold(1)
            still._db.insert("entry", rows())

    thread = threading.Thread(target=stand)
    thread.start()
    assert copying.wait(30)
    other = shared()

    def appended():
        with contextlib.suppress(RetryLater):
            return other.append(1, 0, 1, [entry(0)], [])

    assert until(appended) == 1
    going.set()
    thread.join(30)
    assert other.state(1) == still.state(1) == (1, 1)


def test_a_recorder_that_slept_within_its_transaction_waits_and_goes_on(shared, monkeypatch):
    monkeypatch.setitem(OPTIONS, "idle_in_transaction_session_timeout", "200ms")
    ledger, other = shared(), shared(read_only=True)

    def ended():
        query = "select count(*) from pg_stat_activity where datname = current_database() and pid = ?"
        return other._db.rows(query, (pid,))[0][0] == 0

    def sleep():
        with ledger._db.writing():
            until(ended)
            ledger.state(1)

    pid = ledger._db.rows("select pg_backend_pid()")[0][0]
    with pytest.raises(RetryLater, match="is away"):
        sleep()
    assert ledger.append(1, 0, 1, [entry(0)], []) == 1


def test_recorders_that_sign_in_another_order_do_not_wait_in_a_circle(shared):
    recorders = [shared(), shared()]
    for number in (1, 2, 3):
        recorders[0].append(number, 0, 1, [entry(0)], [])
    failed: list[Exception] = []

    def work(ledger: Ledger, order: list[int]) -> None:
        for _ in range(40):
            try:
                ledger.sign_all(order, LEDGER_SIGNER)
            except RetryLater as error:
                failed.append(error)

    threads = [
        threading.Thread(target=work, args=(ledger, order))
        for ledger, order in zip(recorders, ([1, 2, 3], [3, 2, 1]), strict=True)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert failed == []
