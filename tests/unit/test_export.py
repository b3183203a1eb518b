"""An export proves itself: what was flipped, cut off, exchanged or signed by another is named."""

import os
import sqlite3

import pytest

from bus.crypto.signing import Signer
from bus.errors import Refused, Unverified
from bus.ledger.export import COPY, MANIFEST, Manifest, export, open_manifest, verify_export
from bus.ledger.store import Ledger
from tests.unit.ledger_build import DEPLOYMENT, LEDGER_SIGNER, make_block, make_hop, make_ledger, record

KEY = LEDGER_SIGNER.public_key


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "state" / "ledger.db"
    make_ledger(path).close()
    made = export(Ledger(path, DEPLOYMENT), tmp_path / "evidence", LEDGER_SIGNER, 1_700_000_000_000)
    assert {partition: size for partition, (size, _) in made.heads.items()} == {1: 12}
    return tmp_path / "evidence"


def changed(folder, statement, *values):
    with sqlite3.connect(folder / COPY) as db:
        assert db.execute(statement, values).rowcount > 0


def test_it_holds_with_the_folder_and_the_key_alone_where_nothing_can_be_written(folder):
    for path in (folder / COPY, folder / MANIFEST):
        path.chmod(0o400)
    folder.chmod(0o500)
    report = verify_export(folder, KEY)
    folder.chmod(0o700)
    assert (report.problems, report.leaves, report.checkpoints > 0) == ([], 12, True)
    assert sorted(os.listdir(folder)) == [COPY, MANIFEST]  # noqa: PTH208


def test_a_flipped_byte_is_named_by_its_leaf(folder):
    changed(folder, "update entry set body = zeroblob(length(body)) where leaf = 7")
    assert "partition 1: leaf 7 does not match" in verify_export(folder, KEY).problems


def test_a_cut_tail_is_named_though_its_checkpoints_are_gone_too(folder):
    with sqlite3.connect(folder / COPY) as db:
        sizes = [row[0] for row in db.execute("select size from checkpoint where partition = 1 order by size")]
        keep = max(size for size in sizes if size < 12)
        db.execute("delete from entry where leaf >= ?", (keep,))
        db.execute("delete from checkpoint where size > ?", (keep,))
    problems = verify_export(folder, KEY).problems
    assert f"partition 1: leaf {keep} is missing: the manifest covers 12, {keep} are there" in problems


def test_a_partition_that_is_gone_is_named(folder):
    with sqlite3.connect(folder / COPY) as db:
        for table in ("entry", "checkpoint", "state", "tile"):
            db.execute(f"delete from {table}")
    assert [each for each in verify_export(folder, KEY).problems if "the manifest covers 12, 0 are there" in each]


def test_what_was_added_behind_the_manifest_is_no_fault(folder):
    ledger = Ledger(folder / COPY, DEPLOYMENT)
    record(ledger, [make_block([make_hop(12)], 12, 13)])
    ledger.sign(1, LEDGER_SIGNER)
    ledger.close()
    assert verify_export(folder, KEY).problems == []


def test_another_key_another_manifest_and_no_manifest_are_refused(folder):
    with pytest.raises(Unverified, match="no signature by this key"):
        verify_export(folder, Signer.generate().public_key)
    note = (folder / MANIFEST).read_text()
    for other in ("", "x", note.replace(" 12 ", " 11 "), note.replace("\n1 ", "\n2 "), note[:-5]):
        (folder / MANIFEST).write_text(other)
        with pytest.raises(Unverified):
            verify_export(folder, KEY)
    (folder / MANIFEST).unlink()
    with pytest.raises(OSError, match="manifest"):
        verify_export(folder, KEY)


def test_a_root_that_the_ledger_never_signed_is_named(folder):
    made = open_manifest((folder / MANIFEST).read_text(), KEY)
    other = Manifest(made.deployment, made.made_at, {1: (12, bytes(32))})
    (folder / MANIFEST).write_text(other.sign(LEDGER_SIGNER))
    assert verify_export(folder, KEY).problems == ["partition 1: no checkpoint has the manifest's root over 12 leaves"]


def test_the_manifest_of_another_deployment_is_refused(folder):
    made = open_manifest((folder / MANIFEST).read_text(), KEY)
    (folder / MANIFEST).write_text(Manifest(bytes(16), made.made_at, made.heads).sign(LEDGER_SIGNER))
    with pytest.raises(Refused, match="it belongs to deployment"):
        verify_export(folder, KEY)


def test_a_folder_that_holds_one_is_not_written_over(folder, tmp_path):
    with pytest.raises(FileExistsError):
        export(Ledger(tmp_path / "state" / "ledger.db", DEPLOYMENT), folder, LEDGER_SIGNER, 1)
