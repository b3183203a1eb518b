"""One contract for wherever wrapped roots lie: claimed by one, read back by all, replaced and removed once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from bus.authority.documents import WHOLE, Documents, Folder
from bus.authority.providers.file import FileProvider
from bus.authority.roots import RootStore
from bus.authority.tables import move
from bus.authority.tombstones import Tombstones
from bus.crypto.keys import Secret
from bus.files import make_folder
from tests.unit.ledger_build import ANCHOR, DAY, DEPLOYMENT
from tests.unit.test_roots import ROOTS, new


def test_a_number_is_claimed_once_with_all_that_is_in_it(stores):
    mine, theirs = stores()[0], stores()[0]
    assert mine.add(7, {".notes": b"1", ".plans": b"2"})
    assert not theirs.add(7, {".notes": b"3", ".other": b"4"})
    assert theirs.names(7) == {".notes", ".plans"}
    assert [theirs.read(7, name) for name in (".notes", ".plans")] == [b"1", b"2"]
    assert theirs.add(12, {".notes": b"5"})
    assert mine.places() == {(7, ".notes"), (7, ".plans"), (12, ".notes")}


def test_a_number_of_one_document_is_claimed_once(stores):
    mine, theirs = stores()[1], stores()[1]
    assert mine.add(20000, {WHOLE: b"day"})
    assert not theirs.add(20000, {WHOLE: b"another"})
    assert (theirs.places(), theirs.names(20000), theirs.read(20000, WHOLE)) == ({(20000, WHOLE)}, {WHOLE}, b"day")
    assert stores()[0].places() == set(), "domains and audit are kept apart"


def test_what_is_not_there_is_not_found_and_can_be_removed(stores):
    documents = stores()[0]
    assert documents.names(3) == frozenset()
    with pytest.raises(FileNotFoundError):
        documents.read(3, ".notes")
    assert not documents.replace(3, ".notes", b"", b"x")
    assert not documents.discard(3, ".notes")
    documents.remove(3)
    assert documents.places() == set()


def test_only_what_was_read_is_replaced_and_what_was_removed_does_not_come_back(stores):
    documents = stores()[0]
    documents.add(4, {".notes": b"old"})
    assert not documents.replace(4, ".notes", b"other", b"new")
    assert documents.replace(4, ".notes", b"old", b"new")
    assert not documents.replace(4, ".notes", b"old", b"newer")
    assert documents.read(4, ".notes") == b"new"
    documents.remove(4)
    assert not documents.replace(4, ".notes", b"new", b"newest")
    assert documents.places() == set()
    assert documents.add(4, {".notes": b"again"}), "a number that was removed is free"


def test_one_document_is_discarded_and_a_number_without_any_is_free(stores):
    documents = stores()[0]
    documents.add(4, {".notes": b"1", ".plans": b"2"})
    assert documents.discard(4, ".notes")
    assert not documents.discard(4, ".notes")
    assert (documents.names(4), documents.places()) == ({".plans"}, {(4, ".plans")})
    assert not documents.add(4, {".notes": b"3"}), "the number is taken as long as one is there"
    assert not documents.replace(4, ".notes", b"1", b"4")
    assert documents.discard(4, ".plans")
    assert documents.places() == set()
    assert documents.add(4, {".notes": b"again"})


def test_one_at_a_time_is_alone(stores):
    barrier, inside, most = Barrier(4), [], []

    def enter(who: int) -> None:
        documents = stores()[0]
        barrier.wait()
        for _ in range(5):
            with documents.alone():
                inside.append(who)
                most.append(len(inside))
                documents.add(who + 1, {".a": b"1"})  # the others' time to come in
                inside.remove(who)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))
    assert most == [1] * 20


def test_of_many_that_claim_at_once_one_gets_each_number(stores):
    barrier = Barrier(6)

    def claim(who: int) -> list[bool]:
        documents = stores()[0]
        barrier.wait()
        return [documents.add(number, {".a": b"%d" % who, ".b": b"%d" % who}) for number in range(1, 21)]

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(claim, range(6)))
    assert [sum(column) for column in zip(*told, strict=True)] == [1] * 20
    documents = stores()[0]
    for number in range(1, 21):
        winner = next(who for who, got in enumerate(told) if got[number - 1])
        assert {documents.read(number, name) for name in documents.names(number)} == {b"%d" % winner}
        assert documents.names(number) == {".a", ".b"}


def opened(stores, provider: FileProvider) -> RootStore:
    roots, audit, stones = stores()
    tombstones = Tombstones(stones, DEPLOYMENT, ANCHOR.public_key)
    return RootStore(roots, audit, tombstones, provider, DEPLOYMENT, ANCHOR.public_key)


def test_roots_are_wrapped_anew_and_destroyed_wherever_they_lie(stores, tmp_path):
    first = FileProvider.create(tmp_path / "kek")
    store = opened(stores, first)
    assert store.claim([new("notes", 4, ROOTS[0]), new("plans", 4, ROOTS[1])])
    assert not store.claim([new("notes", 4, ROOTS[2])])
    day = store.audit_root(DAY, create=True)
    assert store.audit_root(DAY, create=True) == day
    assert [(each.number, each.name) for each in store.kept()] == [(4, ".notes"), (4, ".plans"), (DAY, "")]
    other = FileProvider.create(tmp_path / "kek")
    other.rotate()
    for kept in store.kept():
        assert store.rewrap(kept, other)
    fresh = FileProvider(tmp_path / "kek")
    again = opened(stores, fresh)
    assert [each.root for each in again.load(4)] == ROOTS[:2]
    assert again.audit_root(DAY) == day
    assert len({each.kek for each in again.kept()}) == 1
    again.destroy(4)
    again.destroy(4)
    assert again.numbers() == []
    assert isinstance(again.audit_root(DAY), Secret)


def numbers(documents: Documents) -> list[int]:
    return sorted({number for number, _ in documents.places()})


def test_documents_move_whole_and_once(stores, tmp_path):
    folder, documents = Folder(make_folder(tmp_path / "left")), stores()[0]
    folder.add(1, {".notes": b"1", ".plans": b"2"})
    folder.add(2, {".notes": b"3"})
    documents.add(2, {".notes": b"3"})  # a move that was cut off
    assert move(folder, documents) == 2
    assert (folder.places(), numbers(documents)) == (set(), [1, 2])
    assert {name: documents.read(1, name) for name in documents.names(1)} == {".notes": b"1", ".plans": b"2"}
    assert move(folder, documents) == 0
    assert move(documents, folder) == 2
    assert (numbers(folder), documents.places()) == ([1, 2], set())
