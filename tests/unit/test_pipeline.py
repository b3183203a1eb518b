"""The enforcer's steps: each refusal with its code, earlier steps before later ones, and no step that runs unasked.

A record carries any number of faults at once (``made``); the code must be that of the first step that meets one. What a
refusal tells grows with the steps: nothing before the MAC, no body before it is opened.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.crypto.keyring import AgentKey
from bus.crypto.keys import Secret
from bus.crypto.seal import open_sealed
from bus.kafka.windows import MAX_INSTANCES
from bus.wire import codec, envelope, sealed
from bus.wire.envelope import Kind
from bus.wire.hop import NO_INSTANCE
from bus.wire.names import Tier
from consumers.enforcer.context import MAX_PROFILES, EnforcerContext, PartitionState
from consumers.enforcer.outcome import Accepted, Outcome, Refused
from tests.unit.build import (
    DEPLOYMENT,
    GRACE,
    HORIZON,
    INTERVAL,
    LEAD,
    MEMORY,
    NOTES,
    NOW,
    OTHER_WRITER,
    OUTSIDER,
    READER,
    SKEW,
    VAULT,
    WRITER,
    World,
    domain_policy,
    enforce,
    make_policy,
    plaintext,
    seal_by_hand,
    state,
)

WORLD = World()
OPENS, CLOSES = NOW - 100_000 - LEAD, NOW - 100_000 + INTERVAL + GRACE
INSTANCE = b"i" * 16


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a record. ``step`` orders them as the checks run; equal steps exclude each other."""

    step: float
    code: Code


FAULTS = {
    "foreign": Fault(1.0, Code.BOUNDS),
    "too long": Fault(1.1, Code.BOUNDS),
    "suite": Fault(1.2, Code.VERSION),
    "trailing byte": Fault(1.3, Code.BOUNDS),
    "unknown key": Fault(2.0, Code.UNKNOWN_KEY),
    "another domain's key": Fault(2.0, Code.WRONG_DOMAIN),
    "mac": Fault(3.0, Code.MAC),
    "epoch early": Fault(4.0, Code.EPOCH_EARLY),
    "epoch late": Fault(4.0, Code.EPOCH_LATE),
    "replay": Fault(5.0, Code.REPLAY),
    "instances": Fault(5.0, Code.TOO_MANY_INSTANCES),
    "seal key": Fault(6.0, Code.OPEN),
    "frame": Fault(6.1, Code.DECODE),
    "profile": Fault(6.1, Code.DECODE),
    "expired": Fault(6.2, Code.EXPIRED),
    "future": Fault(6.3, Code.FUTURE),
    "source": Fault(7.0, Code.UNVERIFIED),
    "domain": Fault(7.1, Code.WRONG_DOMAIN),
    "produce": Fault(7.2, Code.PRODUCE),
    "target": Fault(7.3, Code.CONSUME),
    "floor": Fault(7.4, Code.TIER_FLOOR),
}


def made(faults: set[str]) -> Outcome:
    """The outcome of a record with these faults, in an enforcer of its own."""
    return in_place(faults)[0]


def in_place(faults: set[str]) -> tuple[Outcome, PartitionState, EnforcerContext]:
    """As ``made``, with what the enforcer holds afterwards."""
    context, place = WORLD.context(), state()
    agent = OUTSIDER if "produce" in faults else WRITER
    domain, epoch = (NOTES if "another domain's key" in faults else MEMORY), (9 if "unknown key" in faults else 1)
    own = WORLD.keys(agent, domain, epoch)
    at = OPENS - 1 if "epoch early" in faults else CLOSES + 1 if "epoch late" in faults else NOW
    if "instances" in faults:
        for number in range(MAX_INSTANCES):
            place.windows.accept(own.key_id + number.to_bytes(16, "big"), 0)
    if "replay" in faults:
        place.windows.accept(own.key_id + INSTANCE, 0)
    place.windows.take_delta(bytes(16), 0)
    plain = plaintext(
        source=READER if "source" in faults else agent,
        domain=NOTES if "domain" in faults else MEMORY,
        kind=Kind.RPC_REQUEST if "target" in faults else Kind.MESSAGE,
        tier_floor=Tier.FHE if "floor" in faults else None,
        created_at=at + SKEW + 1 if "future" in faults else at,
        expires_at=at - 1 if "expired" in faults else at + 1000,
    )
    if "frame" in faults:
        plain += b"\x01"
    if "profile" in faults:
        plain = plain.replace(b"application/json", b"\xff" * 16)
    seal_key = Secret(bytes(32), "another") if "seal key" in faults else None
    value = bytearray(seal_by_hand(own, plain, instance=INSTANCE, seal_key=seal_key))
    if "suite" in faults:
        value[11] ^= 2
    if "mac" in faults:
        value[60] ^= 1
    if "trailing byte" in faults:
        value += b"\x00"
    if "too long" in faults:
        value += bytes(sealed.MAX_LENGTH)
    foreign = (7,) if "foreign" in faults else ()
    (outcome,) = enforce(context, place, bytes(value), at=at, first=7, foreign=foreign)
    return outcome, place, context


def step_of(fault: str) -> float:
    return FAULTS[fault].step


def test_a_record_without_a_fault_goes_on():
    outcome, place, _ = in_place(set())
    assert isinstance(outcome, Accepted)
    assert len(place.windows) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_its_code(fault):
    outcome = made({fault})
    assert isinstance(outcome, Refused)
    assert outcome.decision.code is FAULTS[fault].code
    assert outcome.decision.obligations is None


PAIRS = [(early, late) for early, late in itertools.permutations(FAULTS, 2) if step_of(early) < step_of(late)]


@pytest.mark.parametrize(("early", "late"), PAIRS)
def test_the_earlier_step_speaks_for_a_record_with_two_faults(early, late):
    assert made({early, late}).decision.code is FAULTS[early].code


@settings(max_examples=150)
@given(st.sets(st.sampled_from(sorted(FAULTS)), min_size=3, max_size=12))
def test_the_earliest_step_speaks_for_a_record_with_many_faults(drawn):
    one_a_step = {step_of(fault): fault for fault in sorted(drawn)}
    assert made(set(one_a_step.values())).decision.code is FAULTS[one_a_step[min(one_a_step)]].code


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_refusal_tells_grows_with_the_steps(fault):
    outcome, step = made({fault}), step_of(fault)
    assert (outcome.offset, len(outcome.digest)) == (7, 32)
    if step <= 3:
        assert outcome.key is None
        assert outcome.instance_sequence == NO_INSTANCE + bytes(8)
    else:
        assert outcome.key.agent == (OUTSIDER if fault == "produce" else WRITER)
        assert outcome.instance_sequence == INSTANCE + bytes(8)
    assert (outcome.body is not None) is (step > 6)
    assert (outcome.decided is not None) is (step > 6.1)
    if step > 6.1:
        assert outcome.session == b"session-1"
        assert outcome.message_id != envelope.NO_MESSAGE_ID
    else:
        assert (outcome.session, outcome.message_id, outcome.causes) == (b"", envelope.NO_MESSAGE_ID, b"\x00")
    assert bool(outcome.decision.rule) is (step >= 7), "a rule where a rule refused"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_window_moves_for_a_record_whose_mac_and_epoch_held_and_for_no_other(fault):
    _, place, _ = in_place({fault})
    (delta,) = place.windows.take_delta(bytes(16), 8)
    assert bool(delta.entries) is (step_of(fault) >= 6)
    if step_of(fault) <= 3:
        assert place.windows.highest_time == 0, "a time that nobody vouched for"


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_decrypted_before_the_mac_the_epoch_and_the_window_held(fault, monkeypatch):
    asked = []
    aead, decide = AgentKey.aead, EnforcerContext.decide_profile
    monkeypatch.setattr(AgentKey, "aead", lambda *all_of: asked.append("open") or aead(*all_of))
    monkeypatch.setattr(EnforcerContext, "decide_profile", lambda *all_of: asked.append("decide") or decide(*all_of))
    made({fault})
    assert ("open" in asked) is (step_of(fault) >= 6)
    assert ("decide" in asked) is (step_of(fault) > 6 and fault != "frame")


def test_a_broken_copy_of_a_record_does_not_use_its_sequence_up():
    context, place = WORLD.context(), state()
    value = WORLD.sealer().seal(0, plaintext())[1]
    broken = value[:60] + bytes([value[60] ^ 1]) + value[61:]
    outcomes = enforce(context, place, broken, value, broken, value)
    codes = [each.decision.code if isinstance(each, Refused) else None for each in outcomes]
    assert codes == [Code.MAC, None, Code.MAC, Code.REPLAY]


def test_a_tier_that_cannot_be_had_is_refused():
    context, place = WORLD.context(), state(VAULT)
    (outcome,) = enforce(context, place, WORLD.sealer(domain=VAULT).seal(0, plaintext(domain=VAULT))[1])
    assert (outcome.decision.code, outcome.decision.rule) == (Code.TIER_UNAVAILABLE, "vault.tier")


@pytest.mark.parametrize(("age", "code"), [(HORIZON, Code.UNKNOWN_KEY), (HORIZON + 1, Code.EPOCH_RETIRED)])
def test_an_unknown_key_of_before_the_horizon_is_an_epoch_that_was_retired(age, code):
    value = WORLD.sealer(epoch=9).seal(0, plaintext())[1]
    (outcome,) = enforce(WORLD.context(), state(), value, at=NOW - age)
    assert outcome.decision.code is code


def test_a_key_that_was_retired_is_unknown():
    context = WORLD.context()
    context.keyring.retire(CLOSES + 1)
    (outcome,) = enforce(context, state(), WORLD.sealer().seal(0, plaintext())[1])
    assert outcome.decision.code is Code.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("at", "code"), [(OPENS - 1, Code.EPOCH_EARLY), (OPENS, None), (CLOSES, None), (CLOSES + 1, Code.EPOCH_LATE)]
)
def test_an_epoch_is_valid_to_the_millisecond(at, code):
    value = WORLD.sealer().seal(0, plaintext(created_at=at, expires_at=at))[1]
    (outcome,) = enforce(WORLD.context(), state(), value, at=at)
    assert (outcome.decision.code if isinstance(outcome, Refused) else None) is code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires_at": NOW}, None),
        ({"expires_at": NOW - 1}, Code.EXPIRED),
        ({"created_at": NOW + SKEW}, None),
        ({"created_at": NOW + SKEW + 1}, Code.FUTURE),
        ({"created_at": 0}, None),
        ({"created_at": 2**64 - 1, "expires_at": 2**64 - 1}, Code.FUTURE),
    ],
)
def test_a_message_is_judged_at_its_append_time(changes, code):
    (outcome,) = enforce(WORLD.context(), state(), WORLD.sealer().seal(0, plaintext(**changes))[1])
    assert (outcome.decision.code if isinstance(outcome, Refused) else None) is code


def test_an_append_time_that_goes_back_is_judged_at_the_highest_seen():
    """A broker that dates a record back revives neither a message that expired nor an epoch that closed."""
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    late = made_by.seal(0, plaintext(expires_at=NOW + 200_000))[1]
    expired = made_by.seal(0, plaintext(expires_at=NOW + 99_999))[1]
    fine = made_by.seal(0, plaintext(expires_at=NOW + 100_000))[1]
    assert isinstance(enforce(context, place, late, at=NOW + 100_000)[0], Accepted)
    assert enforce(context, place, expired, at=NOW - 50_000, first=1)[0].decision.code is Code.EXPIRED
    accepted = enforce(context, place, fine, at=NOW - 50_000, first=2)[0]
    assert isinstance(accepted, Accepted)
    assert accepted.append_time == NOW - 50_000, "the hop says what the broker said"
    assert place.windows.highest_time == NOW + 100_000
    again = enforce(context, place, made_by.seal(0, plaintext(expires_at=2**60))[1], at=CLOSES + 1, first=4)
    assert again[0].decision.code is Code.EPOCH_LATE
    again = enforce(context, place, made_by.seal(0, plaintext(expires_at=2**60))[1], at=NOW, first=5)
    assert again[0].decision.code is Code.EPOCH_LATE


def test_time_goes_on_within_a_batch_and_from_batch_to_batch():
    context, place = WORLD.context(), state()
    enforce(context, place, WORLD.sealer().seal(0, plaintext())[1], at=NOW + 5)
    assert place.windows.highest_time == NOW + 5
    enforce(context, place, WORLD.sealer().seal(0, plaintext())[1], b"junk", at=NOW + 9)
    assert place.windows.highest_time == NOW + 9
    enforce(context, place, b"junk", at=NOW + 99)
    assert place.windows.highest_time == NOW + 9, "junk moves no clock"


def test_foreign_records_are_refused_by_their_offset_and_others_go_on():
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    values = [made_by.seal(0, plaintext())[1] for _ in range(4)]
    outcomes = enforce(context, place, *values, first=10, foreign={11, 13, 99})
    assert [isinstance(each, Accepted) for each in outcomes] == [True, False, True, False]
    assert {each.decision.code for each in outcomes if isinstance(each, Refused)} == {Code.BOUNDS}
    assert [each.gap for each in outcomes] == [0, 0, 1, 0], "a foreign record uses no sequence up"


def test_gaps_are_counted_per_instance_and_partition():
    context, place = WORLD.context(), state()
    own = WORLD.keys(WRITER, MEMORY)
    values = [seal_by_hand(own, plaintext(), sequence=each) for each in (2, 3, 9, 5)]
    values.append(seal_by_hand(own, plaintext(), sequence=1, instance=b"j" * 16))
    assert [each.gap for each in enforce(context, place, *values)] == [2, 0, 5, 0, 1]


def test_one_record_that_fails_unexpectedly_is_refused_and_the_batch_goes_on(monkeypatch, caplog):
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    values = [made_by.seal(0, plaintext(task_type=each))[1] for each in ("fine", "bad", "fine")]
    decide = EnforcerContext.decide_profile

    def failing(self: EnforcerContext, where: PartitionState, key: object, prefixed: bytes, at_ms: int) -> object:
        if b"bad" in prefixed:
            raise KeyError("a defect")
        return decide(self, where, key, prefixed, at_ms)

    monkeypatch.setattr(EnforcerContext, "decide_profile", failing)
    with caplog.at_level(logging.ERROR, "bus.enforcer"):
        outcomes = enforce(context, place, *values)
    assert [isinstance(each, Accepted) for each in outcomes] == [True, False, True]
    assert outcomes[1].decision.code is Code.INTERNAL
    assert outcomes[1].body == open_sealed(WORLD.keys(WRITER, MEMORY), DEPLOYMENT, "memory.in", 0, values[1])
    assert "memory.in/0 at 1" in caplog.text


def test_an_unexpected_failure_before_the_mac_names_no_agent(monkeypatch):
    """Anybody can write a key id: a hop and a notice in its agent's name need the MAC first."""
    context, place = WORLD.context(), state()
    value = WORLD.sealer().seal(0, plaintext())[1]
    found = context.keyring.find(value[12:28])
    monkeypatch.setattr(type(found), "mac", lambda *_: 1 // 0)
    (outcome,) = enforce(context, place, value)
    assert outcome.decision.code is Code.INTERNAL
    assert outcome.key is None
    assert outcome.instance_sequence == NO_INSTANCE + bytes(8)


# What goes on.
def test_an_accepted_record_is_released_with_its_metadata_masked_and_its_payload_untouched():
    told = {"metadata": {"sender_ip": "10.0.0.1", "locale": "en"}, "tickets": (b"t",)}
    plain = plaintext(payload=b"\x00payload\xff", cell=512, **told)
    (outcome,) = enforce(WORLD.context(), state(), WORLD.sealer().seal(0, plain)[1])
    content = envelope.unpad(outcome.plaintext)
    assert content[:10] == outcome.digest[:10]
    assert content[10] == 0, "no ticket"
    size, start = codec.read_length(content, 11)
    assert start + size == len(content)
    released, given_in = envelope.decode_envelope(content[start:]), envelope.decode_envelope(envelope.unpad(plain))
    assert released.payload == b"\x00payload\xff"
    assert released.message == given_in.message
    assert released.profile.metadata == {"locale": "en"}
    assert released.profile.source == WRITER
    assert outcome.message_id == given_in.message.message_id


# Caches.
def told(outcome: Outcome) -> tuple[object, ...]:
    """All of an outcome but for the identity of what a cache holds."""
    decided = outcome.decided
    common = (
        outcome.digest,
        outcome.key,
        outcome.offset,
        outcome.append_time,
        outcome.gap,
        outcome.size,
        outcome.message_id,
        outcome.instance_sequence,
        outcome.session,
        outcome.causes,
        decided and (decided.profile, decided.decision, decided.masked, decided.tail, decided.readers),
    )
    return (*common, outcome.plaintext if isinstance(outcome, Accepted) else (outcome.decision, outcome.body))


PROFILES = [
    {},
    {"purpose": "care"},
    {"metadata": {"locale": "en"}},
    {"kind": Kind.RPC_REQUEST},
    {"target": READER},
    {"source": OTHER_WRITER},
    {"source": READER},
    {"domain": NOTES},
    {"tier_floor": Tier.FHE},
]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([WRITER, OTHER_WRITER, OUTSIDER]),
        st.sampled_from(PROFILES),
        st.sampled_from([None, "flip", "again", "frame", "expired"]),
    ),
    min_size=1,
    max_size=12,
)


def batch(records: list[tuple[str, dict, str | None]]) -> list[bytes]:
    sealers = {agent: WORLD.sealer(agent) for agent in (WRITER, OTHER_WRITER, OUTSIDER)}
    values: list[bytes] = []
    for agent, changes, fault in records:
        expiry = {"expires_at": NOW - 1} if fault == "expired" else {}
        plain = plaintext(**{"source": agent, **changes, **expiry})
        value = sealers[agent].seal(0, plain + b"\x01" if fault == "frame" else plain)[1]
        values.append(value[:-1] + bytes([value[-1] ^ 1]) if fault == "flip" else value)
        if fault == "again":
            values.append(value)
    return values


@settings(max_examples=60)
@given(RECORDS, st.integers(1, 5))
def test_hot_caches_and_cold_ones_give_the_same_outcomes(records, size):
    values = batch(records)
    context = WORLD.context()
    warm = enforce(context, state(), *values)
    cold_place, cold = state(), []
    for offset, value in enumerate(values):
        cold_place.forget_decisions()
        held = context.keyring.find(value[12:28])
        held.macs.clear()
        held.aeads.clear()
        cold.extend(enforce(context, cold_place, value, first=offset))
    split_place, in_parts = state(), []
    for start in range(0, len(values), size):
        in_parts.extend(enforce(context, split_place, *values[start : start + size], first=start))
    assert [told(each) for each in warm] == [told(each) for each in cold] == [told(each) for each in in_parts]


def test_the_decision_on_a_profile_is_not_found_by_another_agent_who_copies_it():
    context, place = WORLD.context(), state()
    one, other = WORLD.sealer(WRITER), WORLD.sealer(OTHER_WRITER)
    for _ in range(2):
        outcomes = enforce(context, place, one.seal(0, plaintext())[1], other.seal(0, plaintext())[1])
        assert isinstance(outcomes[0], Accepted)
        assert outcomes[1].decision.code is Code.UNVERIFIED


def test_a_profile_is_decoded_and_decided_once(monkeypatch):
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    decided = []
    decide = EnforcerContext.decide_profile
    monkeypatch.setattr(
        EnforcerContext, "decide_profile", lambda self, *rest: decided.append(rest) or decide(self, *rest)
    )
    values = [made_by.seal(0, plaintext(purpose=each))[1] for each in ("a", "b", "a", "a", "b")]
    outcomes = enforce(context, place, *values)
    assert len(decided) == 2
    assert outcomes[0].decided is outcomes[2].decided is outcomes[3].decided


def test_the_cache_of_profiles_is_bounded(monkeypatch):
    monkeypatch.setattr("consumers.enforcer.context.MAX_PROFILES", 8)
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    for number in range(30):
        (outcome,) = enforce(context, place, made_by.seal(0, plaintext(purpose=str(number)))[1])
        assert isinstance(outcome, Accepted)
        assert len(place.profiles) <= 8
    assert MAX_PROFILES > 8


def test_a_large_profile_is_decided_like_any_other_and_not_kept():
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    for task_type, kept in (("t" * 1900, 1), ("t" * 2100, 1), ("t" * 16_000, 1)):
        (outcome,) = enforce(context, place, made_by.seal(0, plaintext(task_type=task_type))[1])
        assert isinstance(outcome, Accepted)
        assert outcome.decided.profile.task_type == task_type
        assert len(place.profiles) == kept


def test_a_new_policy_decides_profiles_that_were_decided_under_the_old_one():
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    before = enforce(context, place, made_by.seal(0, plaintext())[1])[0]
    closed = make_policy(domain_policy(MEMORY, produce=frozenset()), number=2)
    context.set_policy(closed, 2)
    after = enforce(context, place, made_by.seal(0, plaintext())[1])[0]
    assert isinstance(before, Accepted)
    assert (after.decision.code, after.decision.rule) == (Code.PRODUCE, "memory.produce")
    context.set_policy(make_policy(number=3), 3)
    assert isinstance(enforce(context, place, made_by.seal(0, plaintext())[1])[0], Accepted)


def test_an_unknown_key_stops_the_batch_where_the_keys_may_be_newer_now():
    """The outcomes so far come back; with keys that were read since, the same record is decided."""
    context, place, made_by = WORLD.context(), state(), WORLD.sealer()
    values = [made_by.seal(0, plaintext())[1], WORLD.sealer(epoch=9).seal(0, plaintext())[1]]
    context.received_ms, context.refreshed_ms = NOW, NOW - 1
    assert len(enforce(context, place, *values)) == 1
    context.refreshed_ms = NOW
    assert enforce(context, place, values[1], first=1)[0].decision.code is Code.UNKNOWN_KEY


@settings(max_examples=100)
@given(st.one_of(st.binary(max_size=300), st.binary(min_size=90, max_size=300).map(lambda tail: sealed.HEAD + tail)))
def test_junk_is_refused_and_never_raises(value):
    (outcome,) = enforce(WORLD.context(), state(), value)
    assert outcome.decision.code in (Code.BOUNDS, Code.VERSION, Code.UNKNOWN_KEY)
    assert (outcome.key, outcome.body) == (None, None)


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_whatever_an_agent_seals_has_an_outcome_and_its_body(plain):
    """An authenticated agent may seal anything: what does not decode is its refusal, never a failure."""
    (outcome,) = enforce(WORLD.context(), state(), WORLD.sealer().seal(0, plain)[1])
    assert outcome.decision.code is Code.DECODE
    assert outcome.body == plain
