"""From a downstream value to deliveries: each of the seven steps accepts what is right and refuses what is not.

Bundles are made here part by part, so that one can be wrong in one part and right, and signed, in all others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bus.client.opening import MAX_DELAY_MS, Opened, Profiles, open_bundle
from bus.codes import Code
from bus.crypto import keys
from bus.crypto.dek import Dek
from bus.crypto.keys import ReadingKey, Secret
from bus.crypto.signing import Signer, Trust, bundle_leaf, bundle_message
from bus.errors import BusError, Erased, Unverified, WireError
from bus.wire import codec, derived, envelope, preimage
from bus.wire.envelope import Kind, Message, Profile
from bus.wire.hop import decision_id
from bus.wire.names import AgentId, DomainName, Tier
from bus.wire.schemas import schema
from tests.unit.ledger_build import (
    DEPLOYMENT,
    ENFORCER,
    INSTANCE,
    NOON,
    OTHER_DEPLOYMENT,
    STRANGER,
    certificate,
    make_trust,
)

NOTES = DomainName("notes")
TOPIC, PARTITION, EPOCH = "notes.out", 2, 7
ROOT = Secret(bytes([8]) * 32, "root(notes, 7)")
READER = keys.role_key(ROOT, "READER")
TARGET = keys.target_key(ROOT, "reader-1")
DECISION = bytes(range(10))


def released(number: int = 0, **profile: Any) -> bytes:
    """The plaintext of one record."""
    told = Profile(**{"source": AgentId("writer-1"), "domain": NOTES, "purpose": "care", **profile})
    message = Message(
        message_id=uuid.UUID(int=number + 1).bytes,
        created_at=NOON - 5,
        expires_at=NOON + 60_000,
        correlation_id="session-1",
        causation_ids=(uuid.UUID(int=99).bytes,),
        reply_to="writer-1",
    )
    data = envelope.unpad(
        envelope.encode_plaintext(envelope.encode_profile(told), envelope.encode_message(message), b'{"n":%d}' % number)
    )
    return envelope.pad(
        codec.encode(schema("released"), {"decision_id": DECISION, "ticket": b"", "envelope": data}), 256
    )


@dataclass(slots=True)
class Made:
    """How a bundle is made; each field can be set wrong."""

    plaintexts: Sequence[bytes] = field(default_factory=lambda: [released()])
    readers: Sequence[Sequence[ReadingKey]] = ((READER,),)
    sets: Sequence[int] | None = None
    tier: Tier = Tier.RETRIEVAL
    signer: Signer = ENFORCER
    deployment: bytes = DEPLOYMENT
    topic: str = TOPIC
    partition: int = PARTITION
    epoch: int = EPOCH
    sequence: int = 5
    decided_at: int = NOON
    sealed_for: str = TOPIC
    flip_body: bool = False

    def value(self) -> bytes:
        """The value as it stands on the topic."""
        head = derived.Head(
            tier=self.tier,
            epoch=self.epoch,
            policy_digest=bytes(32),
            enforcer_key_id=self.signer.key_id,
            instance=INSTANCE,
            sequence=self.sequence,
            decided_at=self.decided_at,
            count=len(self.plaintexts),
        ).encode()
        sealed = self.tier is not Tier.PLAINTEXT
        deks = [Dek(self.deployment, self.sealed_for, self.epoch, each) for each in self.readers] if sealed else []
        entries, leaves = [], []
        for number, plaintext in enumerate(self.plaintexts):
            record_id = uuid.UUID(int=1000 + number).bytes
            chosen = derived.NO_SET if not sealed else self.sets[number] if self.sets else 0
            body = self._body(deks[chosen], head, record_id, plaintext) if sealed else plaintext
            tail = record_id + chosen.to_bytes(2, "big") + number.to_bytes(8, "big")
            leaves.append(bundle_leaf(head, tail, body))
            entries.append(tail + codec.prefixed(body))
        table = derived.encode_key_table(tuple(dek.reader_set for dek in deks))
        prefix = preimage.derived_signature(self.deployment, self.topic, self.partition)
        signature = self.signer.sign(bundle_message(prefix, head, table, leaves))
        return derived.encode(head, table, entries, signature)

    def _body(self, dek: Dek, head: bytes, record_id: bytes, plaintext: bytes) -> bytes:
        place = preimage.derived_aad(self.deployment, self.sealed_for, self.partition)
        counter = uuid.UUID(bytes=record_id).int - 1000
        aad = place + head + dek.reader_set.commitment + record_id
        body = bytearray(dek.aead.encrypt(preimage.counter_nonce(counter), plaintext, aad))
        body[0] ^= self.flip_body
        return bytes(body)


def opened(value: bytes, **changes: Any) -> Opened:
    """The bundle opened by a reader who may read all of it."""
    arguments: dict[str, Any] = {
        "domain": NOTES,
        "topic": TOPIC,
        "partition": PARTITION,
        "offset": 41,
        "append_time": NOON + 3,
        "trust": make_trust(),
        "tier": Tier.RETRIEVAL,
        "highest": lambda _instance: -1,
        "reading": lambda epoch: (READER,) if epoch == EPOCH else None,
        "profiles": Profiles(),
    }
    return open_bundle(value, **{**arguments, **changes})


def refusal(value: bytes, **changes: Any) -> BusError:
    with pytest.raises(BusError) as refused:
        opened(value, **changes)
    return refused.value


def test_a_good_bundle_becomes_deliveries():
    told = opened(Made(plaintexts=[released(number) for number in range(3)]).value())
    assert (told.count, told.instance, told.sequence, told.skipped, told.refusals) == (3, INSTANCE, 5, 0, ())
    assert [index for index, _ in told.deliveries] == [0, 1, 2]
    first = told.deliveries[0][1]
    assert first.id == uuid.UUID(int=1)
    assert (first.domain, first.source, first.kind, first.purpose) == ("notes", "writer-1", Kind.MESSAGE, "care")
    assert (first.correlation, first.causation, first.reply_to) == ("session-1", (uuid.UUID(int=99),), "writer-1")
    assert (first.created_at, first.expires_at) == (NOON - 5, NOON + 60_000)
    assert (first.decision_id, first.epoch, first.place) == (decision_id(DECISION), EPOCH, (PARTITION, 41, 0))
    assert [each.value() for _, each in told.deliveries] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_record_for_others_is_skipped_in_silence():
    value = Made(
        plaintexts=[released(0), released(1), released(2)], readers=((READER,), (TARGET,)), sets=(0, 1, 0)
    ).value()
    for held, mine in (((READER,), [0, 2]), ((TARGET,), [1]), ((READER, TARGET), [0, 1, 2]), ((), [])):
        told = opened(value, reading=lambda _epoch, held=held: held)
        assert ([index for index, _ in told.deliveries], told.skipped) == (mine, 3 - len(mine))
        assert told.refusals == ()


@pytest.mark.parametrize(
    "cut", [lambda _: b"", lambda v: v[:9], lambda v: v[:-1], lambda v: v + b"\0", lambda v: v[1:]]
)
def test_step_1_what_is_not_framed_as_a_bundle_is_refused(cut):
    error = refusal(cut(Made().value()))
    assert isinstance(error, WireError)
    assert error.code in (Code.BOUNDS, Code.VERSION)


def test_steps_1_and_2_a_flipped_bit_anywhere_is_refused():
    value = Made().value()
    for at in range(len(value)):
        error = refusal(value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
        assert isinstance(error, Unverified | WireError), at


@pytest.mark.parametrize(
    ("made", "changes", "step"),
    [
        (Made(topic="plans.out"), {}, "signature"),
        (Made(), {"topic": "plans.out"}, "signature"),
        (Made(partition=3), {}, "signature"),
        (Made(), {"partition": 3}, "signature"),
        (Made(deployment=OTHER_DEPLOYMENT), {}, "signature"),
        (Made(signer=STRANGER), {}, "certificate"),
        (Made(), {"trust": Trust(DEPLOYMENT, ENFORCER.public_key)}, "certificate"),
        (Made(), {"domain": DomainName("vault")}, "certificate"),
        (Made(), {"trust": make_trust(certificate(domains=["plans"]))}, "certificate"),
        (Made(), {"trust": make_trust(certificate(not_after=NOON - 1))}, "certificate"),
        (Made(), {"trust": make_trust(certificate(not_before=NOON + 1))}, "certificate"),
    ],
)
def test_step_2_only_an_enforcer_certified_for_this_domain_signs_for_this_place(made, changes, step):
    error = refusal(made.value(), **changes)
    assert isinstance(error, Unverified)
    assert (error.step, error.code) == (step, Code.UNVERIFIED)


def test_step_2_comes_before_any_key_is_looked_for():
    def never(_):
        raise AssertionError("asked")

    refusal(Made(signer=STRANGER).value(), highest=never, reading=never)
    refusal(Made(partition=3).value(), highest=never, reading=never)


@pytest.mark.parametrize("delay", [MAX_DELAY_MS, -MAX_DELAY_MS])
def test_step_3_decision_and_append_lie_within_a_minute(delay):
    assert MAX_DELAY_MS == 60_000
    value = Made().value()
    assert opened(value, append_time=NOON + delay).count == 1
    error = refusal(value, append_time=NOON + delay + (1 if delay > 0 else -1))
    assert isinstance(error, Unverified)
    assert error.step == "time"


@pytest.mark.parametrize(("highest", "accepted"), [(-1, True), (4, True), (5, False), (6, False), (2**63, False)])
def test_step_4_the_sequence_of_an_instance_only_rises(highest, accepted):
    value = Made(sequence=5).value()
    asked: list[bytes] = []

    def seen(instance: bytes) -> int:
        asked.append(instance)
        return highest

    if accepted:
        assert opened(value, highest=seen).sequence == 5
    else:
        assert refusal(value, highest=seen).code is Code.REPLAY
    assert asked == [INSTANCE]


@pytest.mark.parametrize(
    ("tier", "floor", "code"),
    [
        (Tier.PLAINTEXT, Tier.RETRIEVAL, Code.TIER_FLOOR),
        (Tier.RETRIEVAL, Tier.COMPUTATION, Code.TIER_FLOOR),
        (Tier.COMPUTATION, Tier.FHE, Code.TIER_FLOOR),
    ],
)
def test_a_tier_below_the_policys_is_refused(tier, floor, code):
    assert refusal(Made(tier=tier).value(), tier=floor).code is code


@pytest.mark.parametrize("floor", [Tier.PLAINTEXT, None])
def test_a_plaintext_bundle_needs_no_key_where_the_policy_allows_it(floor):
    def never(_epoch):
        raise AssertionError("asked")

    told = opened(Made(tier=Tier.PLAINTEXT, plaintexts=[released(4)]).value(), tier=floor, reading=never)
    assert told.deliveries[0][1].value() == {"n": 4}


def test_step_5_an_epoch_whose_keys_are_gone_is_told_as_erased():
    error = refusal(Made(epoch=EPOCH + 1).value())
    assert (type(error), error.code) == (Erased, Code.ERASED)
    assert (error.epoch, error.domain) == (EPOCH + 1, "notes")
    assert str(error) == f"epoch {EPOCH + 1} of notes: no reading key any more"


@pytest.mark.parametrize(
    "made",
    [
        Made(flip_body=True),
        Made(sealed_for="plans.out"),
        Made(deployment=OTHER_DEPLOYMENT, signer=ENFORCER),
    ],
)
def test_step_6_a_signed_body_that_does_not_open_refuses_the_whole_bundle(made):
    value = made.value()
    if made.deployment == OTHER_DEPLOYMENT:
        value = resigned(value)
    error = refusal(value)
    assert isinstance(error, Unverified)
    assert (error.step, error.code) == ("open", Code.OPEN)


def resigned(value: bytes, change: Callable[[derived.Derived], derived.Derived] = lambda each: each) -> bytes:
    """The same bundle, signed by the enforcer for this deployment and place."""
    bundle = change(derived.parse(value))
    table = derived.encode_key_table(bundle.sets, bundle.index)
    leaves = [bundle_leaf(bundle.head_bytes, each.fixed, each.body) for each in bundle.entries]
    prefix = preimage.derived_signature(DEPLOYMENT, TOPIC, PARTITION)
    entries = [each.leaf_tail[:26] + codec.prefixed(each.body) for each in bundle.entries]
    signature = ENFORCER.sign(bundle_message(prefix, bundle.head_bytes, table, leaves))
    return derived.encode(bundle.head_bytes, table, entries, signature)


def test_step_6_records_and_key_tables_cannot_be_mixed_though_signed():
    value = Made(plaintexts=[released(0), released(1)]).value()
    assert resigned(value)[:-64] == value[:-64]
    assert opened(resigned(value)).count == 2

    def exchanged(bundle: derived.Derived) -> derived.Derived:
        first, second = bundle.entries
        return replace(bundle, entries=(first._replace(body=second.body), second._replace(body=first.body)))

    def other_commitment(bundle: derived.Derived) -> derived.Derived:
        return replace(bundle, sets=(replace(bundle.sets[0], commitment=bytes(32)),))

    def other_record_id(bundle: derived.Derived) -> derived.Derived:
        return replace(
            bundle, entries=tuple(each._replace(fixed=bytes(16) + each.fixed[16:]) for each in bundle.entries)
        )

    for change in (exchanged, other_commitment, other_record_id):
        assert refusal(resigned(value, change)).code is Code.OPEN


def test_step_7_an_envelope_of_another_domain_is_refused_alone():
    value = Made(plaintexts=[released(0), released(1, domain=DomainName("plans")), released(2)]).value()
    told = opened(value)
    assert [index for index, _ in told.deliveries] == [0, 2]
    ((index, error),) = told.refusals
    assert (index, error.code) == (1, Code.WRONG_DOMAIN)
    assert str(error) == "envelope: expected domain notes, found plans"


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\0\0\0\0",
        released()[:-1] + b"\1",
        released()[4:],
        envelope.pad(b"not a released record"),
        envelope.pad(codec.encode(schema("released"), {"decision_id": DECISION, "ticket": b"", "envelope": b"none"})),
    ],
)
def test_step_7_a_plaintext_that_holds_no_envelope_is_refused_alone(plaintext):
    told = opened(Made(plaintexts=[plaintext, released(1)]).value())
    assert [each.value() for _, each in told.deliveries] == [{"n": 1}]
    ((index, error),) = told.refusals
    assert index == 0
    assert error.code in (Code.DECODE, Code.VERSION, Code.BOUNDS)
