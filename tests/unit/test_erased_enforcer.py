"""An enforcer that learns of a tombstone: it drops the root and what came from it, refuses its records, and says so."""

from __future__ import annotations

import dataclasses

import pytest

from bus.authority.local import load_signer
from bus.codes import Code
from bus.crypto.keys import purpose_key
from bus.crypto.seal import open_counted
from bus.crypto.signing import sign_object
from bus.errors import Refused
from bus.kafka.batch import Records
from bus.kafka.loop import Committed
from bus.kafka.transaction import Staged
from bus.wire import hopblock, preimage
from bus.wire.hop import Hop, decode_hop
from bus.wire.names import NO_ZONE
from bus.wire.objects import Tombstone
from consumers.enforcer import worker
from consumers.enforcer.watch import Watcher
from consumers.enforcer.worker import ERASED_AT_ONCE, EnforcerWorker
from tests.unit.build import (
    DEPLOYMENT,
    GRACE,
    MEMORY,
    NOTES,
    NOW,
    OTHER_WRITER,
    READER,
    WRITER,
    World,
    enforce,
    plaintext,
    run,
    state,
)
from tests.unit.ledger_build import NOON, STRANGER, make_authority, make_policy

WORLD = World()
PLACES = [("memory.in", 0), ("notes.in", 1)]


def tombstone(domain: str = MEMORY, epoch: int = 1, *agents: str) -> Tombstone:
    told, _ = WORLD.root(domain, epoch)
    ids = tuple(sorted(WORLD.keys(agent, domain, epoch).key_id for agent in agents or (WRITER,)))
    return Tombstone(DEPLOYMENT, epoch, told.not_after, NOW, NO_ZONE, domain, ids)


def records(count: int = 1, **more) -> list[bytes]:
    sealer = WORLD.sealer(**more)
    domain = more.get("domain", MEMORY)
    return [sealer.seal(0, plaintext(domain=domain))[1] for _ in range(count)]


# The keyring.
def test_an_erased_epoch_is_forgotten_and_its_key_ids_alone_are_kept():
    ring = WORLD.keyring((1, 2))
    before = len(ring)
    generation = ring.generation
    ring.erase(tombstone())
    assert ring.generation > generation
    assert not ring.has(MEMORY, 1)
    assert ring.has(MEMORY, 2)
    assert ring.has(NOTES, 1)
    assert ring.epoch(MEMORY, 1) is None
    assert len(ring) == before - 4
    for agent in (WRITER, OTHER_WRITER, READER):  # the tombstone names the first alone
        key_id = WORLD.keys(agent, MEMORY).key_id
        assert ring.find(key_id) is None
        assert key_id in ring.erased
    assert WORLD.keys(WRITER, MEMORY, 2).key_id not in ring.erased


def test_an_erased_root_is_not_taken_again():
    ring = WORLD.keyring(())
    ring.erase(tombstone())
    assert ring.is_erased(MEMORY, 1)
    with pytest.raises(Refused, match="epoch 1 of memory is erased") as refused:
        ring.add(*WORLD.root(MEMORY, 1), [WRITER], WORLD.openers(MEMORY))
    assert refused.value.code is Code.ERASED
    ring.add(*WORLD.root(NOTES, 1), [WRITER], WORLD.openers(NOTES))
    assert not ring.has(MEMORY, 1)


def test_key_ids_of_erased_epochs_are_kept_for_the_backlog_horizon_only():
    ring = WORLD.keyring((1,))
    told = tombstone()
    ring.erase(told)
    ring.retire(told.not_after + GRACE)
    assert ring.erased
    ring.retire(told.not_after + GRACE + 1)
    assert not ring.erased
    assert ring.is_erased(MEMORY, 1), "the root stays refused"


# The steps.
def test_a_record_under_an_erased_key_is_refused_as_erased_and_is_a_dead_letter_without_a_body():
    context, place = WORLD.context((1, 2)), state()
    first, second = records(2)
    (accepted,) = enforce(context, place, first)
    assert accepted.key.agent == WRITER
    context.erase(tombstone())
    (refused,), made = run(context, place, second, first=1)
    assert (refused.decision.code, refused.key, refused.body) == (Code.ERASED, None, None)
    assert (len(made.dead), made.bundles, made.codes) == (1, [], {Code.ERASED: 1})
    (newer,) = enforce(context, place, *records(epoch=2), at=WORLD.root(MEMORY, 2)[0].not_before, first=2)
    assert newer.key.domain_epoch.epoch == 2


def test_a_key_id_that_no_tombstone_names_is_still_unknown():
    context = WORLD.context(())
    context.erase(tombstone())
    (refused,) = enforce(context, state(), *records(agent=OTHER_WRITER))
    assert refused.decision.code is Code.UNKNOWN_KEY
    (refused,) = enforce(context, state(), *records())
    assert refused.decision.code is Code.ERASED, "no root was ever held here: the tombstone's key ids say so"


def test_deks_of_an_erased_epoch_are_dropped_and_others_are_not():
    context = WORLD.context((1, 2))
    for epoch in (1, 2):
        held = context.keyring.epoch(MEMORY, epoch)
        context.dek(held, "memory.out", (("role", "READER"),))
    context.erase(tombstone())
    assert [name[1] for name in context._deks] == [2]


# The worker.
class Reader:
    def read(self, starts):
        return dict.fromkeys(starts, None)


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(worker, "now_ms", lambda: NOW)
    context = WORLD.context((1, 2))
    found = EnforcerWorker(context, "bus-enforcer-7", WORLD.trust, Reader(), lambda _: None)
    found.restore({place: Committed(5, "w1:0") for place in PLACES})
    return found


def hops(staged: Staged) -> list[Hop]:
    """The hops of a transaction."""
    found = []
    for (topic, _), values in staged.writes:
        for block in map(hopblock.parse, values if topic == "bus.audit" else []):
            key = purpose_key(WORLD.audit_roots[block.day], "block")
            aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
            plain = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
            found += [decode_hop(each) for each in hopblock.split_hops(plain, block.count)]
    return found


def test_erased_epochs_are_told_once_by_an_event_at_a_partition_of_their_domain(made):
    assert not made.pending()
    assert made.stage() is None
    made.erased(["notes/1", "notes/3"])
    assert made.pending()
    staged = made.stage()
    (hop,) = hops(staged)
    assert (hop.tail.code, hop.tail.rule, hop.tail.topic) == (Code.ERASED, "erased", "notes.in")
    assert hop.tail.facts == {"enforcer": "bus-enforcer-7", "epochs": "notes/1 notes/3"}
    assert staged.offsets.keys() == {("notes.in", 1)}
    assert not made.pending(), "it is under way"
    made.committed(staged)
    assert not made.pending()
    assert made.stage() is None


def test_what_was_not_committed_is_told_again(made):
    made.erased(["memory/1"])
    assert made.stage() is not None
    made.reset()
    assert made.pending()
    made.erased(["memory/2"])
    (hop,) = hops(made.stage())
    assert hop.tail.facts["epochs"] == "memory/1 memory/2"


def test_an_enforcer_without_a_partition_tells_it_as_soon_as_it_has_one(made):
    made.drop(PLACES)
    made.erased(["memory/1"])
    assert not made.pending()
    assert made.stage() is None
    made.restore({PLACES[1]: Committed(5, "w1:0")})  # of another domain: better there than never
    assert made.pending()
    (hop,) = hops(made.stage())
    assert (hop.tail.topic, hop.tail.facts["epochs"]) == ("notes.in", "memory/1")


def test_it_goes_out_beside_records_and_in_parts_where_there_is_much(made):
    names = [f"memory/{number}" for number in range(ERASED_AT_ONCE + 5)]
    made.erased(names)
    made._context.received_ms = NOW
    made.handle(("memory.in", 0), Records(records(), [NOW], [5]))
    staged = made.stage()
    event, record = hops(staged)
    assert event.tail.facts["epochs"].split() == names[:ERASED_AT_ONCE]
    assert (record.tail.code, record.offset) == (Code.ALLOW, 5)
    made.committed(staged)
    (rest,) = hops(made.stage())
    assert rest.tail.facts["epochs"].split() == names[ERASED_AT_ONCE:]


def test_partitions_forget_what_they_decided_under_an_erased_key(made):
    made.handle(("memory.in", 0), Records(records(), [NOW], [5]))
    made.committed(made.stage())
    held = made._inputs["memory.in", 0].state
    assert held.profiles
    made._context.erase(tombstone())
    made.erased(["memory/1"])
    assert not held.profiles
    assert not held.hot
    assert not held.shapes


# The watcher.
class Values:
    def __init__(self, *values: bytes) -> None:
        self.values = list(values)

    def poll(self, _timeout):
        return self.values.pop(0) if self.values else None


@pytest.fixture
def authority(tmp_path):
    made = make_authority(tmp_path)
    made.issuer.step(make_policy(), NOON)
    return made


def buried(authority, number: int = 1, domain: str = "notes") -> Tombstone:
    deployment = authority.settings.deployment_id
    return Tombstone(deployment, number, NOON, NOON, NO_ZONE, domain, ())


def test_a_watcher_learns_of_a_tombstone_once_from_the_topic_or_from_beside_the_roots(authority, issuer_signer):
    value = sign_object(issuer_signer, buried(authority))
    control = Values(b"", b"noise", sign_object(STRANGER, buried(authority, 1, "plans")), value, value)
    watcher = Watcher(Values(), control, authority.store, authority.trust, dataclasses.replace)
    first = watcher._round()
    assert (first.erased, first.failure) == ((buried(authority),), None)
    authority.store.tombstones.put(value, "file:x")
    authority.store.tombstones.put(sign_object(issuer_signer, buried(authority, 1, "plans")), "file:x")
    assert watcher._round().erased == (buried(authority, 1, "plans"),)
    assert watcher._round().erased == ()
    again = Watcher(Values(), Values(), authority.store, authority.trust, dataclasses.replace)._round()
    assert set(again.erased) == {buried(authority), buried(authority, 1, "plans")}
    assert again.epochs == (), "roots with a tombstone are not read"


def test_a_damaged_tombstone_is_passed_over_and_its_root_is_not_read(authority, issuer_signer):
    authority.store.tombstones.put(sign_object(issuer_signer, buried(authority)), "file:x")
    (authority.layout.tombstones / "1..notes").write_bytes(b"{}")
    made = Watcher(Values(), Values(), authority.store, authority.trust, dataclasses.replace)._round()
    assert (made.erased, made.failure) == ((), None)
    assert [each.epoch.domain for each in made.epochs] == ["plans"]


def test_a_tombstone_counts_from_the_topic_where_that_beside_the_roots_is_damaged(authority, issuer_signer):
    value = sign_object(issuer_signer, buried(authority))
    authority.store.tombstones.put(value, "file:x")
    (authority.layout.tombstones / "1..notes").write_bytes(b"{}")
    control = Values()
    watcher = Watcher(Values(), control, authority.store, authority.trust, dataclasses.replace)
    assert watcher._round().erased == ()
    control.values.append(value)
    assert watcher._round().erased == (buried(authority),)


def test_a_damaged_tombstone_that_is_mended_counts(authority, issuer_signer):
    value = sign_object(issuer_signer, buried(authority))
    authority.store.tombstones.put(value, "file:x")
    place = authority.layout.tombstones / "1..notes"
    whole = place.read_bytes()
    place.write_bytes(b"{}")
    watcher = Watcher(Values(), Values(), authority.store, authority.trust, dataclasses.replace)
    assert watcher._round().erased == ()
    place.write_bytes(whole)
    assert watcher._round().erased == (buried(authority),)


@pytest.fixture
def issuer_signer(authority):
    return load_signer(authority.layout.signer("issuer"))
