"""Which records are kept with their hops, by which policy, and what a topic's records say of those that are wanted."""

from __future__ import annotations

import hashlib
from collections import deque

import pytest

from bus.authority.trust import TrustFile
from bus.codes import Code
from bus.crypto.signing import sign_object
from bus.errors import Unavailable
from bus.ledger.payloads import Lost, Wanted
from bus.native import native
from bus.wire.hop import Verdict
from bus.wire.objects import SignedSnapshot
from consumers.audit.keeper import settle
from consumers.audit.laws import Laws
from consumers.audit.recorder import Recorder
from consumers.audit.wanting import Wanting
from tests.unit.ledger_build import (
    ANCHOR,
    DEPLOYMENT,
    INPUT,
    LEDGER_SIGNER,
    NOON,
    STRANGER,
    domain,
    keys_of,
    make_block,
    make_hop,
    make_policy,
    make_trust,
)

POLICY_SIGNER = ANCHOR
TRUST = TrustFile(DEPLOYMENT, ANCHOR.public_key, POLICY_SIGNER.public_key, LEDGER_SIGNER.public_key)
KINDS = [False, pytest.param(True, marks=pytest.mark.skipif(native is None, reason="no compiled steps"))]


def snapshot(number: int, *kept: str, signer=POLICY_SIGNER) -> bytes:
    """Policy ``number``, signed, in which ``notes`` and ``plans`` are; ``kept`` keep their records."""
    domains = {
        name: {**domain(), **({"audit_payload": "sealed"} if name in kept else {})} for name in ("notes", "plans")
    }
    policy = make_policy(domains)
    value = SignedSnapshot(DEPLOYMENT, number, policy.digest, NOON, NOON + 1000, policy.document)
    return sign_object(signer, value)


class Topic:
    """bus.policy: what stands there, and how often it was read."""

    def __init__(self, *values: bytes) -> None:
        self.values = [*values]
        self.reads = 0

    def __call__(self) -> list[bytes]:
        self.reads += 1
        return self.values


def laws(*values: bytes) -> tuple[Laws, Topic]:
    topic = Topic(*values)
    return Laws(topic, TRUST), topic


def test_the_policy_of_the_hop_decides_and_not_the_newest():
    held, _ = laws(snapshot(1), snapshot(2, "notes"), snapshot(3))
    assert [held.keeps(number, "notes") for number in (1, 2, 3)] == [False, True, False]
    assert [held.keeps(number, "plans") for number in (1, 2, 3)] == [False] * 3
    assert (held.ever({3}, "notes"), held.ever({3}, "plans"), held.now("notes")) == (True, False, False)


def test_the_topic_is_read_again_for_a_newer_number_alone():
    held, topic = laws(snapshot(1))
    assert [held.keeps(1, "notes") for _ in range(3)] == [False] * 3
    assert topic.reads == 1
    topic.values.append(snapshot(2, "notes"))
    assert not held.ever({1}, "notes")
    assert topic.reads == 1
    assert held.ever({2}, "notes")
    assert held.keeps(2, "notes")
    assert topic.reads == 2


def test_a_number_that_no_policy_has_is_asked_for_once_and_counts_as_the_newest():
    held, topic = laws(snapshot(1, "notes"))
    assert [held.keeps(2**40, "notes") for _ in range(3)] == [True] * 3
    assert topic.reads == 1
    topic.values.append(snapshot(2))
    assert not held.keeps(2, "notes")  # and hides none that comes
    assert topic.reads == 2


def test_a_policy_that_compaction_took_counts_as_the_next_one():
    held, _ = laws(snapshot(5, "notes"), snapshot(9))
    assert [held.keeps(number, "notes") for number in (2, 5, 6, 9)] == [True, True, False, False]


def test_a_snapshot_of_another_signer_is_passed_over():
    held, _ = laws(snapshot(1), snapshot(2, "notes", signer=STRANGER), b"noise", b"")
    assert not held.keeps(2, "notes")
    assert not laws(snapshot(2, "notes", signer=STRANGER))[0].keeps(2, "notes")


def event(number: int) -> bytes:
    return make_hop(number, decision=Verdict.RETRY, code=Code.RETRY, agent="")


def recorder(held: Laws, *, compiled: bool) -> tuple[Recorder, list[Wanted]]:
    """A recorder, and what its blocks want."""
    wanting, found = Wanting(held), []
    look = lambda block, opened, met: found.extend(wanting.of(block, opened, met))  # noqa: E731
    return Recorder(keys_of, compiled=compiled, look=look), found


@pytest.mark.parametrize("compiled", KINDS)
def test_hops_that_name_an_agent_want_their_record_where_the_policy_says_so(compiled):
    kind, found = recorder(laws(snapshot(1), snapshot(2, "notes"))[0], compiled=compiled)
    hops = [
        event(0),
        make_hop(0, snapshot=1),
        make_hop(1, snapshot=2),
        make_hop(2, snapshot=2, decision=Verdict.DENY, code=Code.REPLAY),
        make_hop(3, snapshot=2, decision=Verdict.DENY, code=Code.MAC, agent=""),
    ]
    kind.record(make_block(hops, 0, 4), 1, 0, make_trust())
    digests = [hashlib.sha256(b"record %d" % number).digest() for number in (1, 2)]
    assert found == [Wanted(INPUT, 0, number, digest, 100) for number, digest in zip((1, 2), digests, strict=True)]


@pytest.mark.parametrize("compiled", KINDS)
def test_a_policy_that_comes_while_blocks_are_known_is_met_in_any_place_of_a_block(compiled):
    held, topic = laws(snapshot(1))
    kind, found = recorder(held, compiled=compiled)
    for start in (0, 3):
        kind.record(make_block([make_hop(start + at) for at in range(3)], start, start + 3), 1, start, make_trust())
    assert (found, topic.reads) == ([], 1)
    topic.values.append(snapshot(2, "notes"))
    for start in (6, 9):
        hops = [make_hop(start + at, snapshot=1 + (at == 1)) for at in range(3)]
        kind.record(make_block(hops, start, start + 3), 1, start, make_trust())
    assert ([each.offset for each in found], topic.reads) == ([7, 10], 2)


def test_a_block_that_does_not_verify_wants_nothing_and_asks_for_no_policy():
    held, topic = laws(snapshot(1, "notes"))
    kind, found = recorder(held, compiled=False)
    kind.record(make_block([make_hop(0)], 0, 1, signer=STRANGER), 1, 0, make_trust())
    assert (found, topic.reads) == ([], 0)


@pytest.mark.parametrize("compiled", KINDS)
def test_a_policy_that_cannot_be_read_is_waited_for_and_the_block_is_no_forgery(compiled):
    def away() -> list[bytes]:
        raise Unavailable("bus.policy cannot be read")

    topic = Topic(snapshot(1, "notes"))
    reads = [away, topic]
    kind, found = recorder(Laws(lambda: reads.pop(0)(), TRUST), compiled=compiled)
    with pytest.raises(Unavailable):
        kind.record(make_block([make_hop(0)], 0, 1), 1, 0, make_trust())
    kind.record(make_block([make_hop(0)], 0, 1), 1, 0, make_trust())
    assert [each.offset for each in found] == [0]


def queue(*offsets: int) -> deque[Wanted]:
    return deque(Wanted(INPUT, 0, each, hashlib.sha256(b"value %d" % each).digest(), 7) for each in offsets)


def test_records_settle_what_is_wanted_in_order():
    pending = queue(3, 5, 6, 9)
    told = [each for offset in range(3, 9) for each in settle(pending, offset, b"value %d" % offset)]
    assert [(each.offset, value) for each, value in told] == [(3, b"value 3"), (5, b"value 5"), (6, b"value 6")]
    assert [each.offset for each in pending] == [9]


def test_what_the_topic_steps_over_is_deleted_and_other_bytes_are_changed():
    pending = queue(3, 5, 6)
    assert [(each.offset, told) for each, told in settle(pending, 5, b"other")] == [
        (3, Lost.DELETED),
        (5, Lost.CHANGED),
    ]
    assert [each.offset for each in pending] == [6]
    assert list(settle(pending, 4, b"value 4")) == []
