"""The embedded ledger: compare-and-set append, nothing by halves, insert-only checkpoints, nothing readable at rest."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from bus.codes import Code
from bus.crypto import tree
from bus.errors import Refused, RetryLater
from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.store import Append, Entry, Interval, Ledger
from bus.ledger.verify import verify_ledger
from demo.observer import encodings
from tests.unit.ledger_build import (
    DAY,
    DEPLOYMENT,
    INPUT,
    LEDGER_SIGNER,
    OTHER_DEPLOYMENT,
    STRANGER,
    make_block,
    make_blocks,
    make_hop,
    make_ledger,
    record,
)

TABLES = ("state", "entry", "tile", "checkpoint", "interval", "posting", "single", "payload", "wanted", "day")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


def token(number: int) -> bytes:
    return b"token %010d" % number


def entry(number: int, *more: bytes, offset: int | None = None) -> Entry:
    block = number if offset is None else offset
    return Entry(DAY, block, 0, b"body", bytes(32), tree.leaf_hash(b"%d" % number), (token(number), *more))


def interval(number: int) -> Interval:
    return Interval(INPUT, 0, number, number + 1, number)


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the file."""
    db = sqlite3.connect(path)
    try:
        return {table: sorted(db.execute(f"select * from {table}")) for table in TABLES}
    finally:
        db.close()


def execute(path: Path, statement: str) -> None:
    """One statement past the ledger."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement)
    db.close()


def test_what_is_appended_is_stored_whole(path):
    ledger = Ledger(path, DEPLOYMENT)
    assert (ledger.partitions(), ledger.state(1), ledger.checkpoint(1)) == ([], (0, 0), None)
    assert ledger.append(1, 0, 5, [entry(0), entry(1)], [interval(0)]) == 2
    assert ledger.append(1, 5, 6, [entry(5)], [interval(5)]) == 3
    assert (ledger.partitions(), ledger.state(1), ledger.state(2)) == ([1], (3, 6), (0, 0))
    assert [row[:4] for row in ledger.entries(1)] == [(0, DAY, 0, 0), (1, DAY, 1, 0), (2, DAY, 5, 0)]
    assert [row[0] for row in ledger.entries(1, 2)] == [2]
    assert ledger.tree(1).root(3) == tree.root([entry(number).leaf for number in (0, 1, 5)])
    assert ledger.find([token(1), token(5), token(9)]) == [(1, 1), (1, 2)]
    assert ledger.days() == [DAY]
    assert ledger.intervals() == {(INPUT, 0): [(0, 1), (5, 6)]}


def test_a_transaction_without_hops_moves_the_position_only(path):
    ledger = Ledger(path, DEPLOYMENT)
    assert ledger.append(1, 0, 9, [], []) == 0
    assert ledger.state(1) == (0, 9)
    assert ledger.sign(1, LEDGER_SIGNER) is None


@pytest.mark.parametrize("expected", [0, 4, 6])
def test_an_append_at_another_position_than_the_stored_one_is_refused(path, expected):
    ledger = Ledger(path, DEPLOYMENT)
    ledger.append(1, 0, 5, [entry(0)], [])
    before = rows(path)
    with pytest.raises(Refused, match=f"expected position {expected}, found 5") as refused:
        ledger.append(1, expected, 7, [entry(1)], [interval(1)])
    assert refused.value.code is Code.LEDGER
    assert rows(path) == before
    ledger.append(1, 5, 7, [entry(1)], [])


def test_a_second_recorder_is_refused_and_goes_on_from_what_the_first_wrote(path):
    first, second = Ledger(path, DEPLOYMENT), Ledger(path, DEPLOYMENT)
    first.append(1, 0, 1, [entry(0)], [])
    second.append(1, 1, 2, [entry(1)], [])
    with pytest.raises(Refused, match="expected position 1, found 2"):
        first.append(1, 1, 2, [entry(1)], [])
    first.append(1, 2, 3, [entry(2)], [])
    assert first.tree(1).root(3) == tree.root([entry(number).leaf for number in range(3)])


def test_two_recorders_that_take_turns_grow_one_tree(path):
    recorders = [Ledger(path, DEPLOYMENT), Ledger(path, DEPLOYMENT)]
    for number in range(6):
        recorders[number % 2].append(1, number, number + 1, [entry(number)], [])
    assert recorders[0].tree(1).root(6) == tree.root([entry(number).leaf for number in range(6)])


@pytest.mark.parametrize("table", ["entry", "tile", "interval", "posting", "single", "state"])
def test_an_error_in_the_middle_leaves_file_and_memory_as_they_were(path, table):
    ledger = Ledger(path, DEPLOYMENT)
    ledger.append(1, 0, 1, [entry(0)], [interval(0)])
    before = rows(path)
    both = [entry(1, token(7)), entry(2, token(7), offset=1)]
    execute(path, f"create trigger broken before insert on {table} begin select raise(abort, 'disk on fire'); end")
    with pytest.raises(Refused, match="disk on fire"):
        ledger.append(1, 1, 2, both, [interval(1)])
    assert rows(path) == before
    execute(path, "drop trigger broken")
    ledger.append(1, 1, 2, both, [interval(1)])
    assert ledger.tree(1).root(3) == tree.root([entry(number).leaf for number in range(3)])
    assert (ledger.find([token(1)]), ledger.find([token(7)])) == ([(1, 1)], [(1, 1), (1, 2)])


def test_a_full_disk_leaves_file_and_memory_as_they_were(path):
    ledger = make_ledger(path)
    before = rows(path)
    # Only the ledger's own connection can be given a limit that it meets.
    pages = ledger._db.connection.execute("pragma page_count").fetchone()[0]
    ledger._db.connection.execute(f"pragma max_page_count = {pages}")
    large = Entry(DAY, 4, 0, bytes(100_000), bytes(32), tree.leaf_hash(b"large"), ())
    with pytest.raises(RetryLater, match="full"):
        ledger.append(1, 4, 5, [entry(4), large], [])
    assert rows(path) == before
    ledger._db.connection.execute("pragma max_page_count = 1000000")
    assert ledger.append(1, 4, 5, [large], []) == 13
    ledger.sign(1, LEDGER_SIGNER)
    assert open_checkpoint(ledger.checkpoint(1), LEDGER_SIGNER.public_key).root == ledger.tree(1).root(13)


def test_a_crash_before_the_commit_leaves_the_file_as_it_was(path, monkeypatch):
    ledger = make_ledger(path)
    before = rows(path)

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr("bus.ledger.store.postings.rows", crash)
    with pytest.raises(Crash):
        ledger.append(1, 4, 5, [entry(4)], [])
    ledger.close()
    assert rows(path) == before


def test_a_reopened_ledger_goes_on_as_if_it_had_not_been_closed(path, tmp_path):
    blocks = make_blocks(300, 30)
    whole = Ledger(tmp_path / "whole" / "ledger.db", DEPLOYMENT)
    record(whole, blocks)
    for block in blocks:
        ledger = Ledger(path, DEPLOYMENT)
        record(ledger, [block])
        ledger.close()
    reopened = Ledger(path, DEPLOYMENT)
    assert reopened.state(1) == whole.state(1) == (300, 10)
    assert reopened.tree(1).root(300) == whole.tree(1).root(300)


def test_two_recorders_given_the_same_blocks_make_the_same_bytes(tmp_path):
    blocks = make_blocks(280, 20)
    paths = [tmp_path / name / "ledger.db" for name in ("one", "two")]
    for path, batch in zip(paths, (1, 5), strict=True):
        ledger = Ledger(path, DEPLOYMENT)
        record(ledger, blocks, batch=batch)
        ledger.sign(1, LEDGER_SIGNER)
        ledger.close()
    one, two = map(rows, paths)
    assert len(one["entry"]) == 280
    assert one == two


def test_signing_is_insert_only_and_says_nothing_twice(path):
    ledger = Ledger(path, DEPLOYMENT)
    assert ledger.sign(1, LEDGER_SIGNER) is None
    notes = []
    for block in make_blocks(4, 2):
        record(ledger, [block])
        notes.append(ledger.sign(1, LEDGER_SIGNER))
        assert ledger.sign(1, LEDGER_SIGNER) is None
    assert list(ledger.checkpoints(1)) == notes
    assert ledger.checkpoint(1) == notes[-1]
    opened = [open_checkpoint(note, LEDGER_SIGNER.public_key) for note in notes]
    assert [each.size for each in opened] == [2, 4]
    assert opened[0].root == ledger.tree(1).root(2)


def test_a_log_that_was_cut_below_a_checkpoint_is_not_signed(path):
    ledger = make_ledger(path)
    execute(path, "delete from entry where leaf >= 9")
    execute(path, "update state set size = 9, next_offset = 3")
    before = rows(path)
    with pytest.raises(Refused, match="12 leaves were signed, 9 are there") as refused:
        ledger.sign(1, LEDGER_SIGNER)
    assert refused.value.code is Code.LEDGER
    assert "operator" in refused.value.hint
    assert rows(path) == before


def test_a_recorder_signs_what_it_appended_and_not_what_was_put_into_the_file_since(path):
    ledger, other = make_ledger(path), path.parent / "other.db"
    execute(path, f"vacuum into '{other}'")
    execute(path, "update tile set hashes = zeroblob(length(hashes))")
    record(ledger, [make_block([make_hop(12)], 12, 13)])
    honest = Ledger(other, DEPLOYMENT)
    record(honest, [make_block([make_hop(12)], 12, 13)])
    assert ledger.sign(1, LEDGER_SIGNER) == honest.sign(1, LEDGER_SIGNER)


def test_leaves_that_were_changed_between_the_first_append_and_its_signing_are_not_signed(path):
    ledger = Ledger(path, DEPLOYMENT)
    record(ledger, make_blocks(6, 3))
    execute(path, "update tile set hashes = zeroblob(length(hashes))")
    with pytest.raises(Refused, match="its leaves are not those that were appended"):
        ledger.sign(1, LEDGER_SIGNER)
    assert ledger.checkpoint(1) is None


@pytest.mark.parametrize("again", ["reopened", "error"])
def test_changed_leaves_stop_the_signing_after_a_start_and_after_an_error(path, again):
    ledger = make_ledger(path)
    execute(path, "update tile set hashes = zeroblob(length(hashes))")
    if again == "reopened":
        ledger.close()
        ledger = Ledger(path, DEPLOYMENT)
    else:
        with pytest.raises(Refused, match="expected position"):
            ledger.append(1, 0, 1, [entry(0)], [])
    for number in (12, 13):
        record(ledger, [make_block([make_hop(number)], number, number + 1)])
        with pytest.raises(Refused, match="its first 12 leaves are not those that were signed"):
            ledger.sign(1, LEDGER_SIGNER)


def test_a_checkpoint_that_was_put_into_the_file_since_is_looked_at(path):
    ledger = make_ledger(path)
    ledger.append(1, 4, 5, [entry(4)], [])
    execute(path, "update checkpoint set note = replace(note, 'sealbus', 'sealbos')")
    with pytest.raises(Refused, match="checkpoint"):
        ledger.sign(1, LEDGER_SIGNER)


@pytest.mark.parametrize("signed", [12, 13])
def test_leaves_that_a_second_recorder_appended_are_checked_before_they_are_signed(path, signed):
    first, second = make_ledger(path), Ledger(path, DEPLOYMENT)
    second.append(1, 4, 5, [entry(4)], [])
    if signed == 13:
        second.sign(1, LEDGER_SIGNER)
    execute(path, "update tile set hashes = zeroblob(length(hashes))")
    first.append(1, 5, 6, [entry(5)], [])
    with pytest.raises(Refused, match=f"its first {signed} leaves are not those that were signed"):
        first.sign(1, LEDGER_SIGNER)


def test_partitions_are_appended_and_signed_together_or_not_at_all(path):
    ledger = Ledger(path, DEPLOYMENT)
    both = [Append(1, 0, 2, [entry(0)], [interval(0)]), Append(2, 0, 1, [entry(1), entry(2)], [])]
    assert ledger.append_all(both) == [1, 2]
    notes = ledger.sign_all([1, 2], LEDGER_SIGNER)
    assert notes == [ledger.checkpoint(1), ledger.checkpoint(2)]
    before = rows(path)
    with pytest.raises(Refused, match="ledger partition 2: expected position 0, found 1"):
        ledger.append_all([Append(1, 2, 3, [entry(3)], []), Append(2, 0, 1, [entry(4)], [])])
    assert rows(path) == before
    assert ledger.append_all([Append(1, 2, 3, [entry(3)], []), Append(2, 1, 2, [entry(4)], [])]) == [2, 3]
    execute(
        path,
        "create trigger broken before insert on checkpoint when new.partition = 2 "
        "begin select raise(abort, 'disk on fire'); end",
    )
    with pytest.raises(Refused, match="disk on fire"):
        ledger.sign_all([1, 2], LEDGER_SIGNER)
    assert [ledger.checkpoint(1), ledger.checkpoint(2)] == notes
    execute(path, "drop trigger broken")
    assert None not in ledger.sign_all([1, 2], LEDGER_SIGNER)
    assert verify_ledger(ledger, LEDGER_SIGNER.public_key).problems[:1] == ["partition 1: leaf 0 does not match"]


def tokens_of(ledger: Ledger) -> list[bytes]:
    """Every token of the search index."""
    found = {row[0] for row in ledger._db.connection.execute("select token from posting")}
    for (tokens,) in ledger._db.connection.execute("select tokens from single"):
        found |= {tokens[at : at + 16] for at in range(0, len(tokens), 18)}
    return sorted(found)


def with_numbered_tokens(path: Path) -> None:
    """Give a ledger the search index that ledgers had before segments."""
    ledger = Ledger(path, DEPLOYMENT)
    tokens = tokens_of(ledger)
    found = [(number, *each) for number, value in enumerate(tokens, 1) for each in ledger.find([value])]
    for statement in (
        "drop table posting",
        "drop table single",
        "create table token (id integer primary key, value blob unique not null)",
        "create table posting (token integer, partition integer, leaf integer, primary key (token, partition, leaf))",
    ):
        ledger._db.connection.execute(statement)
    ledger._db.connection.executemany("insert into token values (?,?)", enumerate(tokens, 1))
    ledger._db.connection.executemany("insert into posting values (?,?,?)", found)
    ledger.close()


def test_a_search_index_with_numbered_tokens_is_converted_and_goes_on(path):
    blocks = make_blocks(60, 10)
    ledger = Ledger(path, DEPLOYMENT)
    for number, block in enumerate(blocks[:5]):
        record(ledger, [block], partition=number % 2)
    expected = {value: ledger.find([value]) for value in tokens_of(ledger)}
    ledger.close()
    with_numbered_tokens(path)
    converted = Ledger(path, DEPLOYMENT)
    assert {value: converted.find([value]) for value in expected} == expected
    assert sorted({len(each) for each in expected.values()}) == [1, 2, 3, 50]
    record(converted, [blocks[5]], partition=1)
    assert max(len(converted.find([value])) for value in expected) == 60
    left = converted._db.connection.execute("select 1 from sqlite_master where name in ('token', 'numbered_posting')")
    assert left.fetchall() == []


def test_a_ledger_with_numbered_tokens_is_read_and_verified_but_not_searched(path):
    make_ledger(path).close()
    with_numbered_tokens(path)
    before = path.read_bytes()
    ledger = Ledger(path, DEPLOYMENT, read_only=True)
    assert verify_ledger(ledger, LEDGER_SIGNER.public_key).problems == []
    with pytest.raises(Refused, match="search index is of an older form") as refused:
        ledger.find([token(1)])
    assert refused.value.code is Code.LEDGER
    ledger.close()
    with pytest.raises(Refused, match="it belongs to deployment"):
        Ledger(path, OTHER_DEPLOYMENT)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_key_stops_the_signing(path):
    ledger = make_ledger(path, total=3)
    record(ledger, [make_block([make_hop(3)], 3, 4)])
    with pytest.raises(Refused, match="no signature by this key"):
        ledger.sign(1, STRANGER)
    assert ledger.sign(1, LEDGER_SIGNER) is not None


@pytest.mark.parametrize("read_only", [False, True])
def test_a_ledger_of_another_deployment_is_refused(path, read_only):
    make_ledger(path).close()
    before = rows(path)
    with pytest.raises(Refused, match=f"it belongs to deployment {DEPLOYMENT.hex()}") as refused:
        Ledger(path, OTHER_DEPLOYMENT, read_only=read_only)
    assert refused.value.code is Code.LEDGER
    assert rows(path) == before


def test_a_read_only_ledger_reads_all_and_writes_nothing(path):
    make_ledger(path).close()
    before = path.read_bytes()
    ledger = Ledger(path, DEPLOYMENT, read_only=True)
    assert verify_ledger(ledger, LEDGER_SIGNER.public_key).problems == []
    with pytest.raises(RetryLater, match="readonly"):
        ledger.append(1, 4, 5, [entry(4)], [])
    ledger.close()
    assert path.read_bytes() == before


def test_a_read_only_ledger_that_is_missing_is_refused_and_not_made(path):
    path.parent.mkdir()
    for missing in (path, path.parent):
        with pytest.raises(Refused, match="no ledger at"):
            Ledger(missing, DEPLOYMENT, read_only=True)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["with space", "a#b", "a?b", "a%41b", "a?mode=rwc"])
def test_a_read_only_ledger_is_found_under_any_name(tmp_path, name):
    path = tmp_path / name / "ledger.db"
    make_ledger(path).close()
    ledger = Ledger(path, DEPLOYMENT, read_only=True)
    assert ledger.state(1) == (12, 4)
    with pytest.raises(RetryLater, match="readonly"):
        ledger.append(1, 4, 5, [entry(4)], [])


@pytest.mark.parametrize(
    "data", [b"not a database, but long enough to be looked at " * 40, b"SQLite format 3\0" + bytes(100)]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_ledger_is_refused_as_such(path, data, read_only):
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(Refused) as refused:
        Ledger(path, DEPLOYMENT, read_only=read_only)
    assert refused.value.code is Code.LEDGER


def test_a_database_of_something_else_is_refused_for_reading(path):
    path.parent.mkdir()
    execute(path, "create table other (a)")
    with pytest.raises(Refused):
        Ledger(path, DEPLOYMENT, read_only=True)


def test_all_files_of_a_ledger_are_closed_to_others(path):
    ledger = make_ledger(path)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm"], 0o600)
    ledger.close()


def test_nothing_that_a_hop_says_is_readable_at_rest(path):
    told = {
        "agent": "zeppelin-pilot-77",
        "purpose": "quarterly salary review",
        "rule": "wolpertinger.produce",
        "location": "unmistakable-file.yaml:4711",
        "domain": "quixotic-domain",
        "target": "yodeller-12",
        "tool": "sql.drop_everything",
    }
    lists = {
        "labels": ("label-of-gold",),
        "metadata_keys": ("inner_routing_key",),
        "facts": {"fact-name": "fact-value"},
    }
    words = [*told.values(), "label-of-gold", "inner_routing_key", "fact-name", "fact-value", "session-of-mr-x"]
    hops = [make_hop(number, correlation="session-of-mr-x", **told, **lists) for number in range(6)]
    forms = {form for word in words for form in encodings(word)}
    assert [form for form in (word.encode() for word in words) if form not in hops[0]] == []
    ledger = Ledger(path, DEPLOYMENT)
    record(ledger, [make_block(hops[:3], 0, 3), make_block(hops[3:], 3, 6)])
    ledger.sign(1, LEDGER_SIGNER)
    ledger.append(1, 2, 3, [Entry(DAY, 2, 0, b"a planted control", bytes(32), tree.leaf_hash(b""), ())], [])

    def on_disk() -> bytes:
        return b"".join(each.read_bytes() for each in sorted(path.parent.iterdir()))

    open_bytes = on_disk()
    assert (path.parent / "ledger.db-wal").stat().st_size > 0
    ledger.close()
    for data in (open_bytes, on_disk()):
        assert b"a planted control" in data
        assert [form for form in forms if form in data] == []


def test_a_ledger_without_a_table_of_days_is_searched_and_converted(path):
    make_ledger(path).close()
    execute(path, "drop table day")
    assert Ledger(path, DEPLOYMENT, read_only=True).days() == [DAY]
    Ledger(path, DEPLOYMENT).close()
    assert Ledger(path, DEPLOYMENT, read_only=True).days() == [DAY]
    assert rows(path)["day"] == [(1, DAY)]
