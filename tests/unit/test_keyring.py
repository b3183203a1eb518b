"""The enforcer's keyring: key ids name agent, domain and epoch while the epoch is of use, and caches stay bounded."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from bus.crypto import keys
from bus.crypto.keyring import MAX_INSTANCES, AgentKey, Keyring
from bus.crypto.seal import open_counted, verify_mac
from bus.wire import preimage, sealed
from bus.wire.names import DomainName
from tests.unit.build import DEPLOYMENT, GRACE, LEAD, MEMORY, NOTES, OTHER_WRITER, READER, WRITER, World

WORLD = World()
AGENTS = [WRITER, OTHER_WRITER]


def ring(*epochs: tuple[str, int]) -> Keyring:
    made = Keyring(lead_ms=LEAD, grace_ms=GRACE)
    for domain, epoch in epochs or ((MEMORY, 1),):
        made.add(*WORLD.root(domain, epoch), AGENTS, WORLD.openers(domain))
    return made


def key(made: Keyring, agent: str = WRITER, domain: str = MEMORY, epoch: int = 1) -> AgentKey:
    found = made.find(WORLD.keys(agent, domain, epoch).key_id)
    assert found is not None
    return found


def test_a_key_id_names_its_agent_domain_and_epoch_and_no_other():
    made = ring((MEMORY, 1), (MEMORY, 2), (NOTES, 1))
    assert len(made) == 6
    for agent in AGENTS:
        for domain, epoch in ((MEMORY, 1), (MEMORY, 2), (NOTES, 1)):
            found = key(made, agent, domain, epoch)
            told = (found.agent, found.domain_epoch.domain, found.domain_epoch.epoch, found.topic)
            assert told == (agent, domain, epoch, f"{domain}.in")


@pytest.mark.parametrize("stranger", [(READER, MEMORY, 1), (WRITER, NOTES, 1), (WRITER, MEMORY, 2)])
def test_a_key_id_that_was_not_added_names_nobody(stranger):
    assert ring().find(WORLD.keys(*stranger).key_id) is None


def test_an_epoch_opens_a_lead_early_and_closes_a_grace_late():
    made = ring()
    told, _ = WORLD.root(MEMORY, 1)
    held = made.epochs()[0]
    assert (held.opens, held.closes) == (told.not_before - LEAD, told.not_after + GRACE)


def test_an_epoch_added_again_keeps_its_counters_and_gains_the_agents_it_lacks():
    made = ring()
    before, held = key(made), made.epochs()[0]
    assert held.dead.next() == 0
    assert made.add(*WORLD.root(MEMORY, 1), [WRITER, READER], WORLD.openers(MEMORY)) is held
    assert key(made) is before
    assert key(made, READER).domain_epoch is held
    assert held.dead.next() == 1
    assert made.has(MEMORY, 1)
    assert not made.has(MEMORY, 2)
    assert not made.has(NOTES, 1)


def test_agents_that_join_get_keys_in_every_epoch_held():
    made = ring((MEMORY, 1), (NOTES, 2))
    made.join([WRITER, READER])
    assert key(made, READER, MEMORY, 1).agent == READER
    assert key(made, READER, NOTES, 2).agent == READER
    assert len(made) == 6


def test_epochs_are_listed_oldest_first():
    made = ring((NOTES, 2), (MEMORY, 2), (NOTES, 1))
    assert [(each.epoch, each.domain) for each in made.epochs()] == [(1, NOTES), (2, MEMORY), (2, NOTES)]


def test_an_epoch_is_retired_once_it_closed_before_the_horizon_and_takes_its_keys_along():
    made = ring((MEMORY, 1), (MEMORY, 2), (NOTES, 1))
    closes = made.epochs()[0].closes
    assert made.retire(closes) == []
    assert len(made) == 6
    gone = made.retire(closes + 1)
    assert {(each.domain, each.epoch) for each in gone} == {(MEMORY, 1), (NOTES, 1)}
    assert len(made) == 2
    assert made.find(WORLD.keys(WRITER, MEMORY, 1).key_id) is None
    assert key(made, WRITER, MEMORY, 2).domain_epoch.epoch == 2
    assert not made.has(MEMORY, 1)


def test_a_retired_epoch_that_is_added_again_counts_under_a_new_instance():
    made = ring()
    before = made.epochs()[0]
    made.retire(before.closes + 1)
    made.add(*WORLD.root(MEMORY, 1), AGENTS, WORLD.openers(MEMORY))
    assert made.epochs()[0] is not before
    assert made.epochs()[0].instance != before.instance


def test_two_keyrings_of_one_root_count_under_two_instances():
    one, other = ring().epochs()[0], ring().epochs()[0]
    assert one.instance != other.instance
    assert one.dead.seal(one.dead.next(), b"x", b"") != other.dead.seal(other.dead.next(), b"x", b"")


def test_a_mac_state_is_kept_per_partition_and_holds_for_it_alone():
    found = key(ring())
    value = WORLD.sealer().seal(3, b"note")[1]
    verify_mac(found.mac(DEPLOYMENT, 3), sealed.parse(value))
    assert found.mac(DEPLOYMENT, 3) is found.mac(DEPLOYMENT, 3)
    assert found.mac(DEPLOYMENT, 2) is not found.mac(DEPLOYMENT, 3)


def test_a_mac_state_can_be_used_again():
    found, made = key(ring()), WORLD.sealer()
    for _ in range(3):
        verify_mac(found.mac(DEPLOYMENT, 0), sealed.parse(made.seal(0, b"note")[1]))


def test_the_cache_of_instances_is_bounded_and_makes_the_same_key_again():
    found, made = key(ring()), WORLD.sealer()
    record = sealed.parse(made.seal(0, b"note")[1])
    place = preimage.sealed_nonce(0, 0), record.body, preimage.sealed_aad(DEPLOYMENT, "memory.in", 0) + record.header
    first = found.aead(made.instance)
    assert found.aead(made.instance) is first
    for _ in range(4 * MAX_INSTANCES):
        found.aead(secrets.token_bytes(16))
        assert len(found.aeads) <= 4 * MAX_INSTANCES
    again = found.aead(made.instance)
    assert again is not first, "the cache was emptied on the way"
    assert again.decrypt(*place) == first.decrypt(*place) == b"note"


def test_a_notice_opens_with_its_agents_key_and_its_counter_is_the_agents_own():
    made = ring()
    one, other = key(made, WRITER).notice(), key(made, OTHER_WRITER).notice()
    assert one is key(made, WRITER).notice()
    assert [one.next(), one.next(), other.next()] == [0, 1, 0]
    body = one.seal(1, b"verdict", b"aad")
    own = WORLD.keys(WRITER, MEMORY).notice
    assert open_counted(own, "notice", one.instance, 1, body, b"aad") == b"verdict"


def test_readers_are_derived_once_and_named_by_kind():
    held = ring().epochs()[0]
    root = WORLD.root(MEMORY, 1)[1]
    assert held.reader("role", "READER") is held.reader("role", "READER")
    assert held.reader("role", "READER") == keys.role_key(root, "READER")
    assert held.reader("target", "reader-1") == keys.target_key(root, "reader-1")
    assert held.reader("target", "READER") != held.reader("role", "READER")


def test_nothing_that_is_printed_of_a_keyring_shows_a_root():
    made = ring()
    root = WORLD.root(MEMORY, 1)[1].reveal()
    for shown in (repr(made.epochs()[0]), repr(key(made))):
        assert repr(root)[2:-1] not in shown
        assert root.hex() not in shown
    assert repr(key(made)) == "AgentKey(writer-1, memory, epoch 1)"


def test_a_zone_is_part_of_the_topic_that_a_key_may_write():
    told, root = WORLD.root(MEMORY, 1)
    made = Keyring(lead_ms=LEAD, grace_ms=GRACE)
    held = made.add(replace(told, zone="eu"), root, [WRITER], WORLD.openers(MEMORY))
    assert (held.domain, held.zone) == (DomainName("memory"), "eu")
    assert key(made).topic == "eu.memory.in"
