"""Older copies that are restored, clocks that jump, and what stands in the ledger then."""

from __future__ import annotations

import shutil

import pytest

from bus.crypto.keys import Secret
from bus.errors import Refused
from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.leaf import day_keys
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Append, Ledger
from bus.ledger.verify import verify_ledger
from bus.wire.hop import decode_hop
from bus.wire.hopblock import DAY_MS
from consumers.audit.recorder import record_block
from tests.unit.ledger_build import (
    AUDIT_ROOT,
    DAY,
    DEPLOYMENT,
    LEDGER_SIGNER,
    make_block,
    make_blocks,
    make_hop,
    make_trust,
    record,
)

KEY = LEDGER_SIGNER.public_key
OTHER_ROOT = Secret(bytes([10]) * 32, "audit")


def heads(ledger: Ledger) -> dict[int, bytes]:
    return {each.size: each.root for each in (open_checkpoint(note, KEY) for note in ledger.checkpoints(1))}


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_an_older_copy_that_is_restored_never_signs_another_root_of_a_size(tmp_path, batch):
    blocks, path = make_blocks(120, 4), tmp_path / "ledger.db"
    ledger = Ledger(path, DEPLOYMENT)
    for number, block in enumerate(blocks):
        record(ledger, [block])
        ledger.sign(1, LEDGER_SIGNER)
        if number == 9:
            ledger._db.connection.execute("pragma wal_checkpoint(truncate)")
            shutil.copy(path, tmp_path / "older.db")
    before = heads(ledger)
    ledger.close()
    older = Ledger(tmp_path / "older.db", DEPLOYMENT)
    assert older.state(1) == (40, 10)
    while (at := older.state(1)[1]) < len(blocks):
        record(older, blocks[at : at + batch], batch=batch)
        older.sign(1, LEDGER_SIGNER)
    after = heads(older)
    assert all(before[size] == root for size, root in after.items())
    assert max(after) == max(before) == 120
    assert verify_ledger(older, KEY).problems == []


def test_a_copy_whose_end_was_changed_is_not_signed_again(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db", DEPLOYMENT)
    blocks = make_blocks(12, 4)
    record(ledger, blocks[:2])
    ledger.sign(1, LEDGER_SIGNER)
    ledger._db.connection.execute("update tile set hashes = zeroblob(length(hashes))")
    ledger.close()
    again = Ledger(tmp_path / "ledger.db", DEPLOYMENT)
    record(again, blocks[2:])
    with pytest.raises(Refused, match="not those that were signed"):
        again.sign(1, LEDGER_SIGNER)


def test_a_clock_that_jumps_back_and_forth_loses_no_hop(tmp_path):
    """An enforcer's clock goes back a day for one block: its hops stand under the earlier day, and all are found."""
    keys = {DAY: day_keys(DAY, AUDIT_ROOT), DAY - 1: day_keys(DAY - 1, OTHER_ROOT)}
    ledger = Ledger(tmp_path / "ledger.db", DEPLOYMENT)
    jumped = make_block([make_hop(each) for each in (4, 5)], 4, 6, day=DAY - 1, sealed_with=OTHER_ROOT)
    blocks = [make_blocks(4, 4)[0], jumped, make_block([make_hop(each) for each in (6, 7)], 6, 8)]
    for offset, block in enumerate(blocks):
        entries, intervals = record_block(block, 1, offset, make_trust(), keys.__getitem__)
        ledger.append_all([Append(1, offset, offset + 1, entries, intervals)])
        ledger.sign(1, LEDGER_SIGNER)
    query = LedgerQuery(ledger, keys.__getitem__)
    assert ledger.days() == [DAY - 1, DAY]
    assert [each.hop.offset for each in query.search({"agent": "writer-1"})] == list(range(8))
    assert [each.hop.offset for each in query.within(1, 8, 0)] == list(range(8))
    assert [each.hop.offset for each in query.within(1, 8, (DAY + 1) * DAY_MS)] == []
    report = verify_ledger(ledger, KEY)
    assert (report.problems, report.leaves, report.intervals) == ([], 8, 3)


def test_hops_that_lie_behind_one_with_an_older_time_are_counted(tmp_path):
    """`within` reads the whole log: a time an hour back in its middle does not end it."""
    ledger, later = Ledger(tmp_path / "ledger.db", DEPLOYMENT), 4_000_000  # ms
    for first in (later, 0, later + 3):
        record(ledger, [make_block([make_hop(each) for each in range(first, first + 3)], first, first + 3)])
    query = LedgerQuery(ledger, lambda _: day_keys(DAY, AUDIT_ROOT))
    begin = decode_hop(make_hop(later)).decided_at
    assert [each.leaf for each in query.within(1, 9, begin)] == [0, 1, 2, 6, 7, 8]
    assert [each.leaf for each in query.within(1, 8, begin)] == [0, 1, 2, 6, 7]
