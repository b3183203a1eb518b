"""Erasure wherever roots lie: a tombstone of one replica holds for all, whatever copy is put back, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bus.admin import erasing as carrying
from bus.authority.issuer import Issuer
from bus.authority.local import ensure_roots, load_signer, open_roots
from bus.authority.postgres import postgres
from bus.authority.providers.file import FileProvider
from bus.authority.rewrapping import rewrap_all
from bus.authority.roots import RootStore
from bus.authority.tombstones import StoneFolder, Tombstones, copy
from bus.cli import erasing
from bus.codes import Code
from bus.crypto.signing import sign_object
from bus.errors import Refused, RetryLater
from bus.files import make_folder
from bus.settings import Issuing
from bus.stack.local import write_settings
from bus.wire.names import AgentId
from tests.replicas.conftest import NUMBERS
from tests.replicas.test_documents import opened
from tests.unit.ledger_build import ANCHOR, DEPLOYMENT, NOON, make_authority, make_policy
from tests.unit.running import runner
from tests.unit.test_roots import ROOTS, new
from tests.unit.test_tombstones import tombstone

READER = AgentId("reader-1")
INTERVAL = 600_000
LATE = NOON + 3 * INTERVAL
POLICY = make_policy()


@pytest.fixture
def replicas(stores, tmp_path) -> list[RootStore]:
    """Two on one state: two domains in epoch 4, one in epoch 12."""
    made = [opened(stores, FileProvider.create(tmp_path / "kek")) for _ in range(2)]
    assert made[0].claim([new("notes", 4, ROOTS[0]), new("plans", 4, ROOTS[1])])
    assert made[0].claim([new("notes", 12, ROOTS[2])])
    return made


def bury(store: RootStore, *domains: str) -> None:
    for each in domains:
        store.tombstones.put(sign_object(ANCHOR, tombstone(domain=each)), "file:x")


def test_a_tombstone_of_one_replica_closes_the_root_for_all(replicas):
    one, two = replicas
    assert two.open(4, ".notes").root == ROOTS[0]
    bury(one, "notes")
    assert (two.names(4), two.numbers(), [each.root for each in two.load(4)]) == ({".plans"}, [4, 12], [ROOTS[1]])
    assert (4, ".notes") not in {(each.number, each.name) for each in two.kept()}
    with pytest.raises(Refused, match=r"root\(notes, 4\) is erased") as refused:
        two.open(4, ".notes")
    assert refused.value.code is Code.ERASED
    assert (two.destroy_erased(), one.destroy_erased()) == ([(4, ".notes")], [])
    bury(two, "plans")
    assert one.numbers() == [12]
    assert one.load(12)[0].root == ROOTS[2]


def test_a_copy_of_roots_that_is_put_back_stays_closed_and_is_cleared_away(replicas, stores):
    one, two = replicas
    documents = stores()[0]
    before = {name: documents.read(4, name) for name in documents.names(4)}
    bury(one, "notes", "plans")
    assert one.destroy_erased() == [(4, ".notes"), (4, ".plans")]
    assert documents.add(4, before), "as whoever may write there can"
    assert two.numbers() == [12]
    for name in before:
        with pytest.raises(Refused, match="is erased"):
            two.open(4, name)
    assert two.destroy_erased() == [(4, ".notes"), (4, ".plans")]
    assert documents.places() == {(12, ".notes")}


@pytest.mark.parametrize("destroyed", [False, True])
@pytest.mark.parametrize("domain", ["notes", "plans", "others"])
def test_the_number_of_an_erased_epoch_is_not_claimed_again(replicas, domain, destroyed):
    one, two = replicas
    bury(one, "notes")
    if destroyed:
        one.destroy_erased()
        one.destroy(4)
    with pytest.raises(Refused, match="is erased"):
        two.claim([new(domain, 4, ROOTS[0])])
    assert two.claim([new(domain, 13, ROOTS[0])])


def test_of_two_tombstones_for_one_root_the_first_stays(replicas):
    one, two = replicas
    first, second = (sign_object(ANCHOR, replace(tombstone(), erased_at=at)) for at in (NOON, NOON + 1))
    one.tombstones.put(first, "file:x")
    held = two.tombstones.put(second, "file:y")
    assert (held.tombstone.erased_at, held.kek, held.signed) == (NOON, "file:x", first)
    assert one.tombstones.read((4, ".notes")) == held


def test_the_wrapping_key_is_destroyed_when_no_store_has_a_root_under_it(replicas, stores, tmp_path):
    one, two = replicas
    (old,) = {each.kek for each in one.kept()}
    bury(one, "notes")
    provider = FileProvider(tmp_path / "kek")
    provider.rotate()
    assert two.destroy_superseded(provider) == []
    assert rewrap_all(one, provider)[0] == 2
    assert two.destroy_superseded(provider) == [old], "the erased root, still there, holds no key back"
    again = opened(stores, FileProvider(tmp_path / "kek"))
    assert [again.open(4, ".plans").root, again.open(12, ".notes").root] == ROOTS[1:]


class Told:
    """Passes calls on to ``held``, and writes down those that are named."""

    def __init__(self, held: Any, told: list[str], *names: str) -> None:
        self._held, self._told, self._names = held, told, names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            self._told.append(name)
        return getattr(self._held, name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._held.alone():
            self._told.append("alone")
            yield
            self._told.append("end")


def test_no_root_is_put_under_a_wrapping_key_while_it_is_destroyed(stores, tmp_path):
    """Who wraps and stores, and who looks for idle keys and destroys them, is alone for both."""
    told: list[str] = []
    provider = Told(FileProvider.create(tmp_path / "kek"), told, "wrap", "unwrap", "superseded", "destroy")
    roots, audit, stones = stores()
    roots, audit = (Told(each, told, "add", "replace") for each in (roots, audit))
    tombstones = Tombstones(stones, DEPLOYMENT, ANCHOR.public_key)
    store = RootStore(roots, audit, tombstones, provider, DEPLOYMENT, ANCHOR.public_key)

    def steps(done: object) -> list[str]:
        assert done
        made, told[:] = list(told), []
        return made

    assert steps(store.claim([new("notes", 4, ROOTS[0])])) == ["alone", "wrap", "add", "end"]
    assert steps(store.audit_root(3, create=True)) == ["alone", "wrap", "add", "end"]
    provider.rotate()
    for kept in store.kept():
        assert steps(store.rewrap(kept, provider)) == ["unwrap", "wrap", "alone", "unwrap", "replace", "end"]
    assert steps(store.destroy_superseded(provider)) == ["alone", "superseded", "destroy", "end"]


def test_tombstones_are_copied_to_another_store_and_the_first_of_each_stays(stores, tmp_path):
    here, there = StoneFolder(make_folder(tmp_path / "left")), stores()[2]
    for each in ("notes", "plans"):
        Tombstones(here, DEPLOYMENT, ANCHOR.public_key).put(sign_object(ANCHOR, tombstone(domain=each)), "file:x")
    Tombstones(there, DEPLOYMENT, ANCHOR.public_key).put(sign_object(ANCHOR, tombstone()), "file:y")
    assert (copy(here, there), copy(here, there), copy(there, here)) == (1, 0, 0)
    held = Tombstones(stores()[2], DEPLOYMENT, ANCHOR.public_key)
    assert [held.read((4, name)).kek for name in (".notes", ".plans")] == ["file:y", "file:x"]
    assert (there.places(5), len(here.places())) == (frozenset(), 2)


# A deployment whose authority keeps its state in a database.
@pytest.fixture(params=["sqlite", "postgres"])
def authority(request, tmp_path):
    """Epochs 1 and 2 of both domains have closed, 3 is open."""
    address = ""
    if request.param == "postgres":
        address = request.getfixturevalue("cluster").database(f"e{next(NUMBERS)}")
    made = make_authority(tmp_path, issuing=Issuing.AUTHORITY, authority_database=address)
    ensure_roots(made.settings, made.layout)
    for at in range(NOON, LATE, INTERVAL // 2):
        made.issuer.step(POLICY, at)
    write_settings(made.settings, made.layout.settings)
    yield made
    if address:
        postgres(address, made.settings.key_timeout_ms).close()
        postgres.cache_clear()


@pytest.fixture
def command(authority, tmp_path, monkeypatch, capsys):
    """`bus keys` on the authority's state; what it publishes is in ``published``."""
    folder, published = make_folder(tmp_path / "cwd"), []
    monkeypatch.setattr(carrying, "publish", lambda _connection, topic, values: published.append((topic, len(values))))
    monkeypatch.setattr(erasing, "Stack", lambda _: SimpleNamespace(admin_connection=lambda: None))
    monkeypatch.setattr(erasing, "read_applied", lambda *_: SimpleNamespace(policy=POLICY))
    monkeypatch.setattr(erasing, "now_ms", lambda: LATE)
    monkeypatch.setattr(erasing, "open_query", lambda _: SimpleNamespace(search=lambda _: []))
    started = runner(folder, monkeypatch, capsys)
    return SimpleNamespace(
        published=published, keys=lambda *told: started("keys", *told, BUS_CONFIG=str(authority.layout.settings))
    )


def roots(authority) -> dict:
    store = open_roots(authority.settings, authority.layout, authority.trust)
    return {(number, each.epoch.domain): each.root for number in store.numbers() for each in store.load(number)}


def test_erase_status_and_rewrap_work_on_a_database(authority, command):
    before = roots(authority)
    (old,) = {each.kek for each in authority.store.kept()}
    told = command.keys("erase", "--domain", "notes", "--epoch", "1", "--yes", "--json")
    assert told.code == 0, told.err
    assert (told.document()["epochs"], told.document()["destroyed"]) == (["notes/1"], [old])
    assert command.published == [("bus.control", 1)]
    assert roots(authority) == {name: root for name, root in before.items() if name != (1, "notes")}
    again = command.keys("erase", "--domain", "notes", "--epoch", "1", "--yes", "--json")
    assert (again.code, again.document()["epochs"]) == (0, ["notes/1"]), "a run that was cut off is finished"
    assert command.keys("erase", "--domain", "notes", "--epoch", "3", "--yes").code == 1
    status = command.keys("status", "--json").document()
    assert (status["roots"], [row["state"] for row in status["erasures"]]) == (len(before) - 1, ["shredding"])
    assert command.keys("rotate").code == 0
    done = command.keys("rewrap", "--json").document()
    assert done["rewrapped"] == len(list(authority.store.kept()))
    assert {each.kek for each in authority.store.kept()} == {done["wraps"]}


def test_a_tombstone_ends_the_leases_of_every_replica_before_its_next_step(authority):
    signer = load_signer(authority.layout.signer("issuer"))
    first, second = (
        Issuer(authority.layout, open_roots(authority.settings, authority.layout, authority.trust), signer,
               authority.settings, {}, files=False)
        for _ in range(2)
    )  # fmt: skip
    for each in (first, second):
        each.step(POLICY, LATE)
    held = second.held()

    def leased(epochs) -> dict[int, set[str]]:
        found = second.leases(READER, POLICY, epochs, LATE)
        return {number: set(json.loads(data)["domains"]) for number, data in found.items()}

    before = leased(held)
    assert before[1] == before[2] == {"notes", "plans"}
    (stored,) = (each for each in first._store.load(1) if each.epoch.domain == "notes")
    stone = tombstone(1)
    assert stone.epoch == stored.epoch.epoch
    first._store.tombstones.put(sign_object(signer, stone), "file:x")
    assert leased(held) == before | {1: {"plans"}}, "no step in between"
    second.step(POLICY, LATE + 1)
    assert leased(second.held()) == before | {1: {"plans"}}
    assert {each.epoch.domain for each in second.held()[1]} == {"plans"}
    assert not any(each.root == stored.root for epochs in second.held().values() for each in epochs)
    first._store.tombstones.put(sign_object(signer, tombstone(1, "plans")), "file:x")
    assert 1 not in leased(second.held())
    second.step(POLICY, LATE + 2)
    assert 1 not in second.held()


def test_a_change_of_how_keys_are_issued_takes_the_tombstones_along(tmp_path):
    made = make_authority(tmp_path)
    made.issuer.step(POLICY, NOON)
    signer = load_signer(made.layout.signer("issuer"))
    made.store.tombstones.put(sign_object(signer, tombstone(1)), "file:x")
    served = make_authority(tmp_path, issuing=Issuing.AUTHORITY)
    with pytest.raises(RetryLater, match="the store is away"):
        served.store.numbers()
    for each in (served, served, made):
        ensure_roots(each.settings, each.layout)
        assert (each.store.names(1), each.store.tombstones.places()) == ({".plans"}, {(1, ".notes")})
        with pytest.raises(Refused, match="is erased"):
            each.store.open(1, ".notes")
