"""Verification of a whole ledger: a clean one has no problems; every kind of tampering is named and raises nothing.

Whoever tampers here may write the database as he likes and holds no key.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bus.ledger.checkpoint import Checkpoint, origin, sign_checkpoint
from bus.ledger.leaf import Position, leaf_hash
from bus.ledger.store import Ledger
from bus.ledger.verify import Report, verify_ledger
from bus.wire.names import AUDIT
from tests.unit.ledger_build import (
    DEPLOYMENT,
    INPUT,
    LEDGER_SIGNER,
    OTHER_DEPLOYMENT,
    STRANGER,
    make_block,
    make_hop,
    make_ledger,
    record,
)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


def tamper(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Change the file past the ledger; each statement changes at least one row."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        assert db.execute(statement, values).rowcount > 0, statement
    db.close()


def verified(path: Path) -> Report:
    ledger = Ledger(path, DEPLOYMENT, read_only=True)
    try:
        return verify_ledger(ledger, LEDGER_SIGNER.public_key)
    finally:
        ledger.close()


def problems(path: Path) -> str:
    """Every problem that is named, one a line."""
    return "\n".join(verified(path).problems)


def flipped(path: Path, table: str, column: str, where: str) -> bytes:
    """One bit of a stored value flipped."""
    db = sqlite3.connect(path, isolation_level=None)
    value = bytearray(db.execute(f"select {column} from {table} where {where}").fetchone()[0])
    value[len(value) // 2] ^= 1
    db.execute(f"update {table} set {column} = ? where {where}", (bytes(value),))
    db.close()
    return bytes(value)


def test_a_clean_ledger_has_no_problems_and_says_what_was_checked(path):
    ledger = make_ledger(path, total=12, width=3)
    for partition, at in ((2, 12), (3, 13)):
        record(ledger, [make_block([make_hop(at)], at, at + 1)], partition)
        ledger.sign(partition, LEDGER_SIGNER)
    ledger.close()
    assert verified(path) == Report(leaves=14, checkpoints=6, intervals=6, sizes={1: 12, 2: 1, 3: 1})


def test_ledgers_of_several_sizes_hold(tmp_path):
    for total, width in ((0, 1), (1, 1), (5, 2), (300, 150)):
        path = tmp_path / str(total) / "ledger.db"
        make_ledger(path, total=total, width=width).close()
        blocks = -(-total // width)
        assert verified(path) == Report(
            leaves=total, checkpoints=blocks, intervals=blocks, sizes={1: total} if total else {}
        )


def test_another_public_key_verifies_no_checkpoint(path):
    report = verify_ledger(make_ledger(path), STRANGER.public_key)
    assert [each for each in report.problems if "no signature by this key" in each] == report.problems[:4]
    assert "partition 1: leaves 0 to 11 are not signed" in report.problems


@pytest.mark.parametrize("leaf", [0, 7, 11])
@pytest.mark.parametrize("column", ["body", "disclosure"])
def test_a_flipped_bit_of_an_entry_is_named_with_its_leaf(path, column, leaf):
    make_ledger(path).close()
    flipped(path, "entry", column, f"leaf = {leaf}")
    found = problems(path)
    assert f"partition 1: leaf {leaf} does not match" in found
    assert "root over 12 leaves does not match" in found


@pytest.mark.parametrize("change", ["offset = offset + 1", "hop = hop + 1", "body = x''", "disclosure = x'00'"])
def test_an_entry_with_another_position_or_emptied_is_named(path, change):
    make_ledger(path).close()
    tamper(path, f"update entry set {change} where leaf = 4")
    assert "partition 1: leaf 4 does not match" in problems(path)


def test_two_entries_that_change_places_are_named(path):
    make_ledger(path).close()
    tamper(
        path,
        "update entry set leaf = 99 where leaf = 4",
        "update entry set leaf = 4 where leaf = 5",
        "update entry set leaf = 5 where leaf = 99",
    )
    found = problems(path)
    assert "leaf 4 does not match" in found
    assert "leaf 5 does not match" in found


def test_an_entry_with_its_tile_rewritten_is_named_by_the_checkpoints(path):
    ledger = make_ledger(path)
    record(ledger, [make_block([make_hop(12)], 12, 13)])
    ledger.close()
    body = flipped(path, "entry", "body", "leaf = 4")
    db = sqlite3.connect(path, isolation_level=None)
    offset, index, disclosure = db.execute("select offset, hop, disclosure from entry where leaf = 4").fetchone()
    leaf = leaf_hash(Position(AUDIT, 1, offset, index), body, disclosure)
    tile = db.execute("select hashes from tile").fetchone()[0]
    db.execute("update tile set hashes = ?", (tile[: 4 * 32] + leaf + tile[5 * 32 :],))
    db.close()
    found = problems(path)
    assert "leaf 4 does not match" not in found
    assert "root over 12 leaves does not match" in found


@pytest.mark.parametrize("leaf", [0, 5, 11])
def test_a_deleted_entry_is_named(path, leaf):
    make_ledger(path).close()
    tamper(path, f"delete from entry where leaf = {leaf}")
    assert "partition 1: expected 12 leaves, found 11" in problems(path)


def test_a_deleted_tail_is_named_by_the_checkpoint_though_the_state_agrees(path):
    make_ledger(path).close()
    tamper(
        path,
        "delete from entry where leaf >= 9",
        "update state set size = 9, next_offset = 3",
        "update tile set hashes = substr(hashes, 1, 9 * 32)",
        "delete from interval where first >= 9",
    )
    (found,) = verified(path).problems
    assert "covers 12 leaves, 9 are there" in found


def test_a_changed_tile_is_named(path):
    make_ledger(path).close()
    flipped(path, "tile", "hashes", "level = 0")
    assert "partition 1: leaf 6 does not match" in problems(path)


def test_a_changed_tile_above_the_leaves_is_named(path):
    make_ledger(path, total=300, width=150).close()
    flipped(path, "tile", "hashes", "level = 1")
    assert "tile 1/0" in problems(path)


@pytest.mark.parametrize("level", [0, 1])
def test_a_deleted_tile_is_named(path, level):
    make_ledger(path, total=300, width=150).close()
    tamper(path, f"delete from tile where level = {level}")
    assert problems(path) != ""


def test_a_checkpoint_with_a_flipped_signature_is_named(path):
    make_ledger(path).close()
    note = note_of(path, 12)
    changed = note[:-6] + ("A" if note[-6] != "A" else "B") + note[-5:]
    tamper(path, "update checkpoint set note = ? where size = 12", values=(changed,))
    found = problems(path)
    assert "checkpoint 4: checkpoint: signature does not hold" in found
    assert "leaves 9 to 11 are not signed" in found


def note_of(path: Path, size: int) -> str:
    db = sqlite3.connect(path)
    try:
        return str(db.execute("select note from checkpoint where size = ?", (size,)).fetchone()[0])
    finally:
        db.close()


@pytest.mark.parametrize("name", [origin(DEPLOYMENT, 2), origin(OTHER_DEPLOYMENT, 1)])
def test_a_checkpoint_of_another_log_is_named(path, name):
    ledger = make_ledger(path)
    note = sign_checkpoint(Checkpoint(name, 12, ledger.tree(1).root(12)), LEDGER_SIGNER)
    ledger.close()
    tamper(path, "update checkpoint set note = ? where size = 12", values=(note,))
    assert "partition 1: checkpoint 4: it names another log" in problems(path)


def test_a_checkpoint_in_anothers_place_is_named(path):
    make_ledger(path).close()
    tamper(path, "update checkpoint set note = ? where size = 12", values=(note_of(path, 3),))
    assert "leaves 9 to 11 are not signed" in problems(path)


def test_deleted_checkpoints_leave_leaves_that_nobody_signed(path):
    make_ledger(path).close()
    tamper(path, "delete from checkpoint where size > 6")
    assert problems(path) == "partition 1: leaves 6 to 11 are not signed"
    tamper(path, "delete from checkpoint")
    assert problems(path) == "partition 1: leaves 0 to 11 are not signed"


def test_a_removed_interval_is_named_as_a_gap(path):
    make_ledger(path).close()
    tamper(path, "delete from interval where first = 3")
    assert problems(path) == f"{INPUT}/0: input [3, 6) is covered by no hop block"


def test_a_doubled_interval_is_named(path):
    make_ledger(path).close()
    tamper(path, f"insert into interval values ('{INPUT}', 0, 3, 6, 1, 99)")
    assert problems(path) == f"{INPUT}/0: input [3, 6) is covered twice"


def test_an_interval_that_reaches_into_the_next_is_named(path):
    make_ledger(path).close()
    tamper(path, "update interval set upto = 8 where first = 3")
    assert "is covered twice" in problems(path)


def test_a_partition_that_was_taken_out_of_the_state_is_still_looked_at(path):
    ledger = make_ledger(path)
    record(ledger, [make_block([make_hop(12)], 12, 13)], 2)
    ledger.sign(2, LEDGER_SIGNER)
    ledger.close()
    assert problems(path) == ""
    flipped(path, "entry", "body", "partition = 1 and leaf = 4")
    tamper(path, "delete from state where partition = 1")
    assert "partition 1" in problems(path)


def test_a_block_that_did_not_verify_is_named(path):
    ledger = make_ledger(path)
    record(ledger, [make_block([make_hop(12)], 12, 13, signer=STRANGER)])
    ledger.sign(1, LEDGER_SIGNER)
    ledger.close()
    assert problems(path) != ""


@pytest.mark.parametrize(
    "statement",
    [
        "update entry set offset = -1 where leaf = 4",
        "update entry set hop = -1 where leaf = 4",
        "update entry set hop = 4294967296 where leaf = 4",
        "update entry set body = 'text' where leaf = 4",
        "update entry set disclosure = 7 where leaf = 4",
        "update tile set hashes = 'text'",
        "update checkpoint set note = x'ff' where size = 12",
        "update checkpoint set note = 5 where size = 12",
        "update state set size = 'many'",
        "update interval set upto = 'text' where first = 3",
        "update interval set first = 'text' where first = 3",
    ],
)
def test_values_of_another_type_are_named_and_raise_nothing(path, statement):
    make_ledger(path).close()
    tamper(path, statement)
    assert problems(path) != ""


def test_a_damaged_page_is_named_and_raises_nothing(path):
    ledger = make_ledger(path, total=300, width=150)
    body = next(ledger.entries(1, 150))[4]
    ledger.close()
    data = bytearray(path.read_bytes())
    page = data.index(body) // 4096 * 4096
    data[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    assert problems(path) != ""


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("update entry set day = 0 where leaf = 5", "leaf 5: it has no day"),
        ("update entry set day = 1 where leaf = 11", "leaf 11: day 1, and day 20300 for others of its hop block"),
        ("update entry set day = 20200 where leaf >= 9", "leaf 9: day 20200 after day 20300"),
    ],
)
def test_a_day_that_was_changed_is_named(path, statement, problem):
    """No leaf covers it, and readers go by it."""
    make_ledger(path, total=12, width=3).close()
    tamper(path, statement)
    assert f"partition 1: {problem}" in verified(path).problems
