"""Wrapped roots at rest: read back by who holds the wrapping key, refused when moved, changed or cut."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bus.authority.documents import Folder
from bus.authority.providers.file import FileProvider
from bus.authority.roots import RootStore, StoredEpoch
from bus.authority.tombstones import StoneFolder, Tombstones
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import Signer, sign_object
from bus.errors import Refused, RetryLater, Unverified
from bus.files import make_folder
from bus.wire.names import NO_ZONE
from bus.wire.objects import Epoch
from tests.unit.ledger_build import ANCHOR, DAY, DEPLOYMENT, NOON, OTHER_DEPLOYMENT, STRANGER

OPENERS = bytes(range(32))
ROOTS = [Secret(bytes([number]) * 32, "root") for number in (1, 2, 3)]


def signed(domain: str, number: int, root: Secret, **told: Any) -> bytes:
    return new(domain, number, root, **told).signed


def new(
    domain: str, number: int, root: Secret, *, signer: Signer = ANCHOR, deployment: bytes = DEPLOYMENT
) -> StoredEpoch:
    epoch = Epoch(deployment, number, NOON, NOON + 600_000, NO_ZONE, domain, root_digest(root))
    return StoredEpoch(epoch, sign_object(signer, epoch), root, OPENERS)


def make_store(folder: Path, kek: str = "kek", deployment: bytes = DEPLOYMENT) -> RootStore:
    provider = FileProvider.create(folder / "keys" / kek)
    for name in ("roots", "audit", "tombstones"):
        make_folder(folder / name)
    tombstones = Tombstones(StoneFolder(folder / "tombstones"), deployment, ANCHOR.public_key)
    roots, audit = Folder(folder / "roots"), Folder(folder / "audit")
    return RootStore(roots, audit, tombstones, provider, deployment, ANCHOR.public_key)


@pytest.fixture
def store(tmp_path) -> RootStore:
    """Two domains in epoch 4, one in epoch 12."""
    made = make_store(tmp_path)
    assert made.claim([new("notes", 4, ROOTS[0]), new("plans", 4, ROOTS[1])])
    assert made.claim([new("notes", 12, ROOTS[2])])
    return made


def change(path: Path, **fields: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_roots_are_read_back_by_another_process(store, tmp_path):
    again = make_store(tmp_path)
    assert again.numbers() == [4, 12]
    assert [(each.epoch.domain, each.root) for each in again.load(4)] == [("notes", ROOTS[0]), ("plans", ROOTS[1])]
    assert [(each.epoch.epoch, each.root) for each in again.load(12)] == [(12, ROOTS[2])]
    assert again.load(4)[0].signed == signed("notes", 4, ROOTS[0])


def test_a_new_store_is_empty(tmp_path):
    assert make_store(tmp_path).numbers() == []


@pytest.mark.parametrize("name", ["roots", "audit", "tombstones"])
def test_a_store_that_is_away_says_so_and_is_not_made_anew(store, tmp_path, name):
    (tmp_path / name).rename(tmp_path / "away")
    for asked in (
        store.numbers,
        lambda: store.claim([new("notes", 13, ROOTS[0])]),
        lambda: store.audit_root(3, create=True),
    ):
        with pytest.raises(RetryLater, match="the key store is away"):
            asked()
    assert not (tmp_path / name).exists()


def test_roots_are_secret_files_and_do_not_hold_the_root(store, tmp_path):
    paths = [path for path in (tmp_path / "roots").rglob("*") if path.is_file()]
    assert len(paths) == 3
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(root.reveal().hex() in path.read_text() for root in ROOTS)
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in paths} == {0o700}


def test_an_epoch_is_stored_only_if_the_anchor_signed_it_for_this_deployment(store):
    for bad in (new("x", 5, ROOTS[0], signer=STRANGER), new("x", 5, ROOTS[0], deployment=OTHER_DEPLOYMENT)):
        with pytest.raises(Unverified):
            store.claim([bad])
    assert store.numbers() == [4, 12]


def test_who_holds_another_wrapping_key_opens_nothing(store, tmp_path):
    stranger = make_store(tmp_path, "other-kek")
    with pytest.raises(RetryLater, match=r"the wrapping key file:[0-9a-f]{16} is not there"):
        stranger.load(4)


def test_a_wrapped_root_opens_only_with_its_own_epoch(store, tmp_path):
    wrapped = json.loads((tmp_path / "roots" / "4" / ".plans").read_text())["wrapped"]
    for moved in ("4/.notes", "12/.notes"):
        path = tmp_path / "roots" / moved
        before = path.read_bytes()
        change(path, wrapped=wrapped)
        with pytest.raises(Unverified, match="does not open"):
            store.load(int(moved.split("/")[0]))
        path.write_bytes(before)
    assert len(store.load(4)) == 2


def test_an_epoch_that_was_signed_for_another_root_is_refused(store, tmp_path):
    change(tmp_path / "roots" / "4" / ".notes", epoch=signed("notes", 4, ROOTS[1]).hex())
    with pytest.raises(Unverified, match=r"root\(notes, 4\): does not match its epoch") as refused:
        store.load(4)
    assert refused.value.step == "root"


def test_an_epoch_that_the_anchor_did_not_sign_is_refused(store, tmp_path):
    change(tmp_path / "roots" / "4" / ".notes", epoch=signed("notes", 4, ROOTS[0], signer=STRANGER).hex())
    with pytest.raises(Unverified) as refused:
        store.load(4)
    assert refused.value.step == "signature"


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b'{"format": "sealbus.root/2"}'])
def test_a_root_file_that_is_damaged_is_refused(store, tmp_path, data):
    (tmp_path / "roots" / "4" / ".notes").write_bytes(data)
    with pytest.raises(Refused):
        store.load(4)


@pytest.mark.parametrize("wrapped", ["", "zz", "00" * 12, "00" * 60])
def test_a_wrapping_that_is_damaged_is_refused(store, tmp_path, wrapped):
    change(tmp_path / "roots" / "4" / ".notes", wrapped=wrapped)
    with pytest.raises(Refused):
        store.load(4)


def test_a_root_that_others_may_read_is_refused(store, tmp_path):
    (tmp_path / "roots" / "4" / ".notes").chmod(0o644)
    with pytest.raises(Refused, match="expected mode 0600"):
        store.load(4)


def test_what_a_crash_left_half_written_is_passed_over(store, tmp_path):
    (tmp_path / "roots" / "4" / ".plans.99.new").write_bytes(b"half")
    (tmp_path / "roots" / "notes.txt").write_bytes(b"not a number")
    assert store.numbers() == [4, 12]
    assert len(store.load(4)) == 2
    store.destroy(4)
    assert store.numbers() == [12]


def test_a_destroyed_epoch_leaves_nothing(store, tmp_path):
    store.destroy(4)
    assert store.numbers() == [12]
    assert sorted(path.name for path in (tmp_path / "roots").iterdir()) == ["12"]


def test_an_audit_root_is_made_once_and_only_when_asked(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.audit_root(DAY)
    made = store.audit_root(DAY, create=True)
    assert store.audit_root(DAY) == store.audit_root(DAY, create=True) == made
    assert make_store(tmp_path).audit_root(DAY) == made
    assert store.audit_root(DAY + 1, create=True) != made


def test_an_audit_root_opens_on_its_own_day_and_in_its_own_deployment_only(store, tmp_path):
    store.audit_root(DAY, create=True)
    (tmp_path / "audit" / str(DAY)).rename(tmp_path / "audit" / str(DAY + 1))
    with pytest.raises(Unverified, match="does not open"):
        store.audit_root(DAY + 1)
    (tmp_path / "audit" / str(DAY + 1)).rename(tmp_path / "audit" / str(DAY))
    with pytest.raises(Unverified, match="does not open"):
        make_store(tmp_path, deployment=OTHER_DEPLOYMENT).audit_root(DAY)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_wrapping_key_of_another_length_is_refused(tmp_path, length):
    path = tmp_path / "kek"
    path.write_bytes(os.urandom(length))
    path.chmod(0o600)
    with pytest.raises((ValueError, Refused), match=f"expected 32 bytes, found {length}"):
        FileProvider(path)


def test_a_stored_root_does_not_show_in_its_repr(store):
    held = store.load(4)[0]
    assert held == replace(held)
    assert repr(held.root.reveal()) not in repr(held)
    assert held.root.reveal().hex() not in repr(held)
