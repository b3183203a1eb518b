"""kill -9 between any two statements of a recorder: no leaf lost or doubled, one root a size, everything signed."""

from __future__ import annotations

import pytest

from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.sqlite import SqliteFile
from bus.ledger.store import Ledger
from bus.ledger.verify import verify_ledger
from tests.unit.ledger_build import DEPLOYMENT, LEDGER_SIGNER, make_blocks, record
from tests.unit.ledger_forks import work_through


@pytest.mark.parametrize("forks", [80, pytest.param(1000, marks=pytest.mark.long)])
def test_recorders_that_are_killed_anywhere_make_one_log(tmp_path, forks):
    blocks = make_blocks(4 * forks, 4)
    path = tmp_path / "killed" / "ledger.db"
    killed, ended = work_through(lambda: SqliteFile(path, DEPLOYMENT, read_only=False), blocks, forks, seed=forks)
    assert killed > forks / 4
    assert ended > forks / 20
    ledger, whole = Ledger(path, DEPLOYMENT), Ledger(tmp_path / "whole" / "ledger.db", DEPLOYMENT)
    done = ledger.state(1)[1]
    assert done >= ended
    record(whole, blocks[:done])
    ledger.sign_all([1], LEDGER_SIGNER)
    report = verify_ledger(ledger, LEDGER_SIGNER.public_key)
    assert (report.problems, report.leaves) == ([], 4 * done)
    heads = [open_checkpoint(note, LEDGER_SIGNER.public_key) for note in ledger.checkpoints(1)]
    assert len({each.size for each in heads}) == len(heads)
    assert all(whole.tree(1).root(each.size) == each.root for each in heads)
    assert ledger.tree(1).root(4 * done) == whole.tree(1).root(4 * done)
