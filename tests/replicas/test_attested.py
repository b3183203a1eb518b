"""Attestation over replicas on every database: a nonce is answered once, a result is in force wherever it is shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from bus.authority.attested import AHEAD_MS, Attestations, Attested
from bus.authority.attesting import Attesting
from bus.authority.register import Register
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.wire.measurement import EvidenceKind
from tests.replicas.test_register import NOW, READER, WRITER, at_once, joined
from tests.unit.test_authority import Site
from tests.unit.test_authority_attested import CODE, accepting, certificate, law, software, withheld

REPLICAS = 4
LATER = NOW + 10


@pytest.fixture
def replicas(open_again) -> list[Attestations]:
    return [Attestations(Register(open_again())) for _ in range(REPLICAS)]


def attested(nonce: bytes, since: int = NOW, until: int = LATER) -> Attested:
    return Attested(WRITER, "a1", EvidenceKind.SOFTWARE, str(CODE), b"d" * 32, nonce, since, until)


def test_a_nonce_that_is_shown_to_all_replicas_at_once_is_taken_by_one(replicas):
    barrier = Barrier(REPLICAS)

    def take(each: Attestations) -> list[bool]:
        barrier.wait()
        return [each.take(bytes([number]) * 32, LATER, NOW) for number in range(25)]

    with ThreadPoolExecutor(REPLICAS) as pool:
        told = list(pool.map(take, replicas))
    assert [sum(column) for column in zip(*told, strict=True)] == [1] * 25
    gone = LATER + AHEAD_MS
    assert not replicas[0].take(bytes(32), LATER, gone), "it is remembered until it has ended by every replica's clock"
    assert replicas[1].take(bytes(32), gone + 99, gone + 1)


def test_what_one_replica_kept_another_finds(replicas):
    one, two, *_ = replicas
    first, second = attested(b"1" * 32), attested(b"2" * 32, NOW + 1, LATER + 1)
    one.put(first)
    two.put(second)
    assert two.of(WRITER) == {first.nonce: first, second.nonce: second}
    assert (one.find(WRITER), one.last(), one.find(READER)) == (second, {WRITER: second}, None)
    two.put(attested(b"3" * 32, LATER, LATER + 2))
    assert set(one.of(WRITER)) == {b"2" * 32, b"3" * 32}, "what has ended goes"


# Admission.
def test_of_devices_that_attest_at_once_for_one_agent_one_gets_the_certificate(open_again):
    registers = [Register(open_again()) for _ in range(REPLICAS)]
    joined(registers[0])
    told = at_once(registers, lambda number, each: each.admit(WRITER, b"%d" % number, LATER, same=False))
    assert all(isinstance(each, Refused) for each in told), "the last certificate is in force"
    told = at_once(registers, lambda number, each: each.admit(WRITER, b"%d" % number, NOW + 1001, same=False))
    assert sorted(told) == [2, 3, 4, 5], "it has ended: each begins anew, and the last counts"
    for number, each in enumerate(registers):
        if told[number] == 5:
            each.certified(WRITER, 5, "last", NOW + 9000)
            continue
        with pytest.raises(RetryLater, match="another replica answered meanwhile"):
            each.certified(WRITER, told[number], "earlier", NOW + 9000)
    assert registers[0].find(WRITER).serial == "last"


def test_who_is_admitted_is_answered_again_and_not_while_it_is_locked(open_again):
    one, two = (Register(open_again()) for _ in range(2))
    assert (one.admit(WRITER, b"first", NOW, same=False), two.admit(WRITER, b"first", NOW, same=False)) == (1, 1)
    one.certified(WRITER, 1, "a1", NOW + 1000)
    with pytest.raises(Refused, match="another device attests"):
        two.admit(WRITER, b"second", NOW, same=False)
    assert two.admit(WRITER, b"second", NOW, same=True) == 2
    one.revoke(WRITER, "stolen")
    for request in (b"second", b"third"):
        with pytest.raises(Refused, match="only a token lets it in again"):
            two.admit(WRITER, request, NOW + 10**6, same=True)


# The service.
@pytest.fixture
def site(tmp_path, open_again):
    """A running authority on the database."""
    made = Site(tmp_path)
    made.register = Register(open_again())
    made.attesting = shared(made, made.register)
    made.service = made.replica()
    made.server._service = made.service
    made.service.step(law())
    with made.server:
        yield made


def shared(site: Site, register: Register) -> Attesting:
    """What a replica has of its own: its database. Keys are the same."""
    held = site.attesting
    return Attesting(held._verifiers, held._key, held._signer, held._audience, Attestations(register))


@pytest.fixture
def other(site, open_again):
    """Another replica, with connections of its own."""
    mine = site.register, site.attesting
    site.register = Register(open_again())
    site.attesting = shared(site, site.register)
    made = site.replica()
    site.register, site.attesting = mine
    made.step(law())
    return made


def test_evidence_is_answered_by_one_replica_and_its_result_is_in_force_at_all(site, other):
    site.join(WRITER)
    pem = certificate(site)
    nonce, _ = site.service.challenge(pem, b"")
    evidence = software(site, nonce)
    token, _ = other.attest(pem, nonce, evidence)
    for each in (site.service, other):
        with pytest.raises(Refused, match="answered before") as refused:
            each.attest(pem, nonce, evidence)
        assert refused.value.code is Code.ATTESTATION
        lease = each.lease(pem, {}, token)
        assert (lease.attested, dict(lease.withheld)) == (True, {})
        assert b"notes" in lease.bundles[1]


def test_a_result_opens_nothing_at_a_replica_once_it_is_not_accepted_there(site, other):
    """Bundles are remembered, for who attested and for who did not: neither is given the other's."""
    site.join(WRITER)
    pem = certificate(site)
    nonce, _ = site.service.challenge(pem, b"")
    token, _ = site.service.attest(pem, nonce, software(site, nonce))
    for _ in range(2):
        assert b"notes" not in other.lease(pem, {}).bundles[1]
        assert b"notes" in other.lease(pem, {}, token).bundles[1]
    other.step(accepting(), 2)
    lease = other.lease(pem, {}, token)
    assert max(other._serving.epochs) > 1, "the withdrawal made an epoch"
    assert not any(b"notes" in data for data in lease.bundles.values())
    assert withheld(site, "") == "no attestation result is shown"
