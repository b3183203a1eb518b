"""A root that is erased stays so: its tombstone wins over copies, and copies without it lack their wrapping key."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest

from bus.authority.providers.file import FileProvider
from bus.authority.rewrapping import rewrap_all
from bus.authority.tombstones import StoneFolder, Tombstones
from bus.codes import Code
from bus.crypto.signing import sign_object
from bus.errors import Refused, RetryLater, Unverified
from bus.wire.names import NO_ZONE
from bus.wire.objects import Tombstone
from tests.unit.ledger_build import ANCHOR, DAY, DEPLOYMENT, NOON, OTHER_DEPLOYMENT, STRANGER
from tests.unit.test_roots import ROOTS, make_store, new

KEY_IDS = (b"a" * 16, b"b" * 16)


def tombstone(number: int = 4, domain: str = "notes", deployment: bytes = DEPLOYMENT) -> Tombstone:
    return Tombstone(deployment, number, NOON + 600_000, NOON + 900_000, NO_ZONE, domain, KEY_IDS)


@pytest.fixture
def store(tmp_path):
    """Two domains in epoch 4, one in epoch 12, and a day of the audit."""
    made = make_store(tmp_path)
    assert made.claim([new("notes", 4, ROOTS[0]), new("plans", 4, ROOTS[1])])
    assert made.claim([new("notes", 12, ROOTS[2])])
    made.audit_root(DAY, create=True)
    return made


def erase(store, folder, *buried: Tombstone) -> list[str]:
    """As `bus keys erase` does it."""
    provider = FileProvider(folder / "keys" / "kek")
    for each in buried:
        store.tombstones.put(sign_object(ANCHOR, each), "file:x")
    store.destroy_erased()
    provider.rotate()
    rewrap_all(store, provider)
    return store.destroy_superseded(provider)


def test_the_root_of_a_tombstone_is_gone_and_the_others_are_not(store, tmp_path):
    erase(store, tmp_path, tombstone())
    again = make_store(tmp_path)
    assert again.numbers() == [4, 12]
    assert again.names(4) == {".plans"}
    assert [each.root for each in again.load(4)] == [ROOTS[1]]
    with pytest.raises(Refused, match=r"root\(notes, 4\) is erased") as refused:
        again.open(4, ".notes")
    assert refused.value.code is Code.ERASED
    assert not (tmp_path / "roots" / "4" / ".notes").exists()
    erase(store, tmp_path, tombstone(domain="plans"))
    assert again.numbers() == [12]
    assert not (tmp_path / "roots" / "4").exists()
    assert again.load(12)[0].root == ROOTS[2]


def test_a_copy_of_roots_beside_the_tombstone_is_refused_and_cleared_away(store, tmp_path):
    shutil.copytree(tmp_path / "roots", tmp_path / "copy")
    erase(store, tmp_path, tombstone())
    shutil.copytree(tmp_path / "copy" / "4", tmp_path / "roots" / "4", dirs_exist_ok=True)
    again = make_store(tmp_path)
    assert again.names(4) == {".plans"}
    with pytest.raises(Refused, match="is erased"):
        again.open(4, ".notes")
    with pytest.raises(Refused, match="is erased"):
        again.claim([new("notes", 4, ROOTS[0])])
    assert ".notes" not in {each.name for each in again.kept() if each.number == 4}
    assert again.destroy_erased() == [(4, ".notes")]
    assert again.destroy_erased() == []


def test_copies_of_roots_and_tombstones_from_before_do_not_open(store, tmp_path):
    for name in ("roots", "tombstones"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    (old,) = {each.kek for each in store.kept()}
    assert erase(store, tmp_path, tombstone()) == [old]
    kept = {each.kek for each in store.kept()}
    for name in ("roots", "tombstones"):
        shutil.rmtree(tmp_path / name)
        shutil.copytree(tmp_path / "copy" / name, tmp_path / name)
    again = make_store(tmp_path)
    assert again.names(4) == {".notes", ".plans"}, "nothing here says any more that it was erased"
    with pytest.raises(RetryLater, match=f"the wrapping key {old} is not there"):
        again.open(4, ".notes")
    assert old not in kept


@pytest.mark.parametrize("name", ["4/.notes.bak", "4/.notes.77.new", "4/notes", "9/.notes", "4/.other"])
def test_a_copy_of_a_root_under_another_name_is_not_read_and_not_wrapped_anew(store, tmp_path, name):
    copy = tmp_path / "roots" / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(tmp_path / "roots" / "4" / ".notes", copy)
    (old,) = {each.kek for each in store.kept()}
    store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    store.destroy_erased()
    again = make_store(tmp_path)
    opened = []
    for number in again.numbers():
        for each in sorted(again.names(number)):
            with contextlib.suppress(Unverified):
                opened.append(again.open(number, each).root)
    assert sorted(map(ROOTS.index, opened)) == [1, 2]
    if copy.exists():
        assert json.loads(copy.read_bytes())["kek"] == old
        copy.unlink()
    assert erase(store, tmp_path, tombstone()) == [old]


def test_what_lies_beside_an_erased_root_under_its_name_goes_with_it(store, tmp_path):
    folder = tmp_path / "roots" / "4"
    for name in (".notes.bak", ".notes.77.new", ".plans.77.new"):
        shutil.copy2(folder / ".notes", folder / name)
    store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    assert store.destroy_erased() == [(4, ".notes")]
    assert {each.name for each in folder.iterdir()} == {".plans", ".plans.77.new"}
    store.tombstones.put(sign_object(ANCHOR, tombstone(domain="plans")), "file:x")
    assert store.destroy_erased() == [(4, ".plans")]
    assert not folder.exists()


def test_a_copy_opens_as_long_as_its_wrapping_key_is_there(store, tmp_path):
    """What destroys is the end of the key, not the tombstone."""
    shutil.copytree(tmp_path / "roots", tmp_path / "copy")
    provider = FileProvider(tmp_path / "keys" / "kek")
    store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    store.destroy_erased()
    provider.rotate()
    rewrap_all(store, provider)
    (tmp_path / "tombstones" / "4..notes").unlink()
    shutil.copytree(tmp_path / "copy" / "4", tmp_path / "roots" / "4", dirs_exist_ok=True)
    assert make_store(tmp_path).open(4, ".notes").root == ROOTS[0]


def test_a_wrapping_key_is_destroyed_only_when_it_wraps_nothing(store, tmp_path):
    provider = FileProvider(tmp_path / "keys" / "kek")
    (old,) = {each.kek for each in store.kept()}
    provider.rotate()
    assert provider.superseded() == [old]
    assert store.destroy_superseded(provider) == []
    assert store.open(4, ".notes").root == ROOTS[0]
    rewrap_all(store, provider)
    assert store.destroy_superseded(provider) == [old]
    assert provider.superseded() == []
    assert store.open(4, ".notes").root == ROOTS[0]


def test_a_destroyed_key_file_is_overwritten_and_the_newest_is_never_destroyed(tmp_path):
    path = tmp_path / "kek"
    provider = FileProvider.create(path)
    before = path.read_bytes()
    current = provider.rotate()
    (old,) = provider.superseded()
    with path.with_name(f"kek.{old.removeprefix('file:')}").open("rb") as held:
        provider.destroy(old)
        assert held.read() not in (before, b""), "the same bytes on the disk"
    provider.destroy(old)
    with pytest.raises(ValueError, match="wraps what is new"):
        provider.destroy(current)
    assert provider.superseded() == []
    assert [each.name for each in tmp_path.iterdir()] == ["kek"]


def test_a_rotation_that_a_crash_ended_is_done_again(tmp_path, monkeypatch):
    path = tmp_path / "kek"
    provider = FileProvider.create(path)
    with monkeypatch.context() as patch:
        patch.setattr("bus.authority.providers.file.write_secret", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            provider.rotate()
    assert provider.superseded() == [], "the key is in both places"
    provider.rotate()
    assert len(provider.superseded()) == 1


def test_a_tombstone_is_read_back_and_only_the_anchors_is_stored(store):
    buried = store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    assert store.tombstones.read((4, ".notes")) == buried
    assert (buried.tombstone, buried.kek) == (tombstone(), "file:x")
    assert store.tombstones.places() == {(4, ".notes")}
    for bad in (sign_object(STRANGER, tombstone(12)), sign_object(ANCHOR, tombstone(12, deployment=OTHER_DEPLOYMENT))):
        with pytest.raises(Unverified):
            store.tombstones.put(bad, "file:x")
    assert store.tombstones.places() == {(4, ".notes")}


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b'{"format": "sealbus.tombstone/1"}'])
def test_a_damaged_tombstone_is_not_believed_and_closes_its_root_all_the_same(store, tmp_path, data):
    store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    (tmp_path / "tombstones" / "4..notes").write_bytes(data)
    with pytest.raises(Refused):
        store.tombstones.read((4, ".notes"))
    assert store.names(4) == {".plans"}
    with pytest.raises(Refused, match="is erased"):
        store.open(4, ".notes")


def test_a_tombstone_in_the_place_of_another_is_not_believed(store, tmp_path):
    store.tombstones.put(sign_object(ANCHOR, tombstone()), "file:x")
    (tmp_path / "tombstones" / "4..notes").rename(tmp_path / "tombstones" / "12..notes")
    with pytest.raises(Unverified, match="the tombstone of another root"):
        store.tombstones.read((12, ".notes"))


def test_what_a_crash_left_half_written_is_no_tombstone(tmp_path):
    made = Tombstones(StoneFolder(tmp_path), DEPLOYMENT, ANCHOR.public_key)
    (tmp_path / "4..notes.99.new").write_bytes(b"half")
    assert made.places() == frozenset()
    assert not made.has((4, ".notes"))
