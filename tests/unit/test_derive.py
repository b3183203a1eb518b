"""What a transaction writes: one hop for every outcome, bundles that their readers open, dead letters, notices, blocks.

Digests and leaves are computed here from the bytes on the wire, and bundles are opened by the reader's own code
(``open_bundle``), so that writer and reader are held against each other.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.client.opening import MAX_DELAY_MS, Opened, Profiles, open_bundle
from bus.codes import Code
from bus.crypto.keys import Secret, purpose_key
from bus.crypto.seal import open_counted
from bus.crypto.signing import Trust, verify_hop_block
from bus.errors import BusError, Erased, RetryLater, Unverified, WireError
from bus.wire import derived, hopblock, preimage, records
from bus.wire.envelope import NO_MESSAGE_ID, Kind
from bus.wire.hop import Hop, Verdict, decode_hop
from bus.wire.hopblock import DAY_MS
from bus.wire.names import Tier, domain_of
from bus.wire.sealed import MAX_LENGTH
from consumers.enforcer.derive import Derivation, derive
from consumers.enforcer.events import EventKind, PartitionEvent
from consumers.enforcer.outcome import Outcome
from tests.unit.build import (
    DAY,
    DEPLOYMENT,
    MEMORY,
    NOTES,
    NOW,
    OTHER_WRITER,
    OUTSIDER,
    PLAIN,
    READER,
    WRITER,
    World,
    domain_policy,
    enforce,
    make_policy,
    plaintext,
    run,
    seal_by_hand,
    state,
)

WORLD = World()
TRUST = WORLD.trust()
TOLD = {"purpose": "care", "labels": ("pii",), "metadata": {"locale": "en"}, "causation_ids": (b"c" * 16,)}


def sealed(agent: str = WRITER, domain: str = MEMORY, partition: int = 0, **changes: object) -> bytes:
    return WORLD.sealer(agent, domain).seal(partition, plaintext(agent, domain, **changes))[1]


def many(*changes: dict[str, object]) -> list[bytes]:
    """Records of one sending process; each of ``changes`` is one."""
    made_by = WORLD.sealer()
    return [made_by.seal(0, plaintext(**each))[1] for each in changes]


def blocks_of(made: Derivation) -> list[hopblock.HopBlock]:
    """The verified hop blocks of a transaction."""
    blocks = [hopblock.parse(value) for value in made.blocks]
    for block in blocks:
        verify_hop_block(block, TRUST, domain_of(block.topic))
    return blocks


def hops_in(block: hopblock.HopBlock) -> list[Hop]:
    """The hops of a block, opened with the root of its day."""
    key = purpose_key(WORLD.audit_roots[block.day], "block")
    aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
    plain = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
    return [decode_hop(each) for each in hopblock.split_hops(plain, block.count)]


def hops_of(made: Derivation) -> list[Hop]:
    return [hop for block in blocks_of(made) for hop in hops_in(block)]


def opened(value: bytes, *names: str, domain: str = MEMORY, **changes: object) -> Opened:
    """What the holder of the reading keys ``names`` makes of a bundle."""
    asked = {
        "domain": domain,
        "topic": f"{domain}.out",
        "partition": 0,
        "offset": 3,
        "append_time": NOW,
        "trust": TRUST,
        "tier": None,
        "highest": lambda _: -1,
        "reading": lambda epoch: tuple(WORLD.reading(name, domain, epoch) for name in names),
        "profiles": Profiles(),
    }
    return open_bundle(value, **{**asked, **changes})


# Outcomes and hops.
def flipped(value: bytes) -> bytes:
    """``value`` with another last byte."""
    return value[:-1] + bytes([value[-1] ^ 1])


def record(kind: str) -> bytes:
    """A value that ends as ``kind`` says."""
    made = {
        "allow": lambda: sealed(),
        "target": lambda: sealed(target=READER, kind=Kind.RPC_REQUEST),
        "notify": lambda: sealed(notify=True),
        "junk": lambda: b"junk",
        "mac": lambda: flipped(sealed()),
        "produce": lambda: sealed(OUTSIDER),
        "expired": lambda: sealed(expires_at=NOW - 1),
        "decode": lambda: WORLD.sealer().seal(0, b"\x00")[1],
    }
    return made[kind]()


KINDS = ("allow", "target", "notify", "junk", "mac", "produce", "expired", "decode")


@settings(max_examples=40)
@given(st.lists(st.sampled_from(KINDS), max_size=40), st.lists(st.integers(1, 5), min_size=41, max_size=41))
def test_every_outcome_has_exactly_one_hop_in_its_order(kinds, steps):
    """Offsets may have holes (control markers); hops, bundles and dead letters account for every record once."""
    values = [record(kind) for kind in kinds]
    offsets = [10 + sum(steps[: place + 1]) for place in range(len(values))]
    context, place = WORLD.context(), state()
    outcomes: list[Outcome] = []
    for value, offset in zip(values, offsets, strict=True):
        outcomes.extend(enforce(context, place, value, first=offset))
    made = derive(outcomes, 10, 500, place, context)
    hops = hops_of(made)
    assert [hop.origin_digest for hop in hops] == [hashlib.sha256(value).digest() for value in values]
    assert [hop.offset for hop in hops] == offsets
    allowed = [kind in ("allow", "target", "notify") for kind in kinds]
    assert [hop.tail.decision is Verdict.ALLOW for hop in hops] == allowed
    assert made.allowed == sum(allowed) == sum(derived.parse(value).head.count for value in made.bundles)
    assert sum(made.codes.values()) == len(made.dead) == len(values) - sum(allowed)
    codes = ["" if told else kind.replace("junk", "bounds") for kind, told in zip(kinds, allowed, strict=True)]
    assert [hop.tail.code for hop in hops] == codes
    outputs = {hop.output_digest for hop in hops}
    assert len(outputs) == len(hops)
    assert outputs == leaves(made) | {hashlib.sha256(b"\x00" + dead).digest() for dead in made.dead}
    tiles(made, 10, 500)


def leaves(made: Derivation) -> set[bytes]:
    """The leaves of all bundles, from their bytes."""
    found = set()
    for value in made.bundles:
        head, bundle = value[10:103], derived.parse(value)
        for entry in bundle.entries:
            fixed = entry.record_id + entry.reader_set.to_bytes(2, "big") + entry.counter.to_bytes(8, "big")
            found.add(hashlib.sha256(b"\x00" + head + fixed + entry.body).digest())
    return found


def tiles(made: Derivation, start: int, end: int) -> None:
    """Hop blocks cover [start, end) without a hole or an overlap, and each holds the hops of its own interval."""
    at = start
    for block in blocks_of(made):
        assert block.start == at
        assert all(block.start <= hop.offset < block.end for hop in hops_in(block))
        at = block.end
    assert at == end


def test_hops_that_fill_more_than_one_block_tile_the_interval():
    context, place = WORLD.context(), state()
    _, made = run(context, place, *many(*[{"purpose": "x" * 15_000}] * 80), first=100)
    assert len(made.blocks) == 3
    assert all(len(value) <= hopblock.MAX_VALUE for value in made.blocks)
    assert [hop.offset for hop in hops_of(made)] == list(range(100, 180))
    tiles(made, 100, 180)


def test_an_interval_without_records_has_a_block_of_its_own():
    context, place = WORLD.context(), state()
    made = derive([], 7, 9, place, context)
    assert [(block.start, block.end, block.count) for block in blocks_of(made)] == [(7, 9, 0)]
    assert (made.bundles, made.dead, made.notices) == ([], [], [])


def test_events_have_their_hops_before_the_records():
    context, place = WORLD.context(), state()
    outcomes = enforce(context, place, sealed(), first=5)
    events = [PartitionEvent(kind, 5, NOW, {"why": "x"}) for kind in EventKind]
    made = derive(outcomes, 5, 6, place, context, events)
    hops = hops_of(made)
    assert [hop.tail.rule for hop in hops] == [*EventKind, "memory.produce"]
    assert {hop.tail.decision for hop in hops[:-1]} == {Verdict.RETRY}
    assert len({hop.decision_id for hop in hops}) == len(hops)
    tiles(made, 5, 6)


def test_a_hop_says_what_was_decided_and_on_what():
    value = sealed(**TOLD, tool="sql.read", target=READER, partition=0)
    (outcome,), made = run(WORLD.context(), state(), value, first=42)
    (hop,) = hops_of(made)
    assert (hop.offset, hop.partition, hop.append_time, hop.decided_at, hop.size) == (42, 0, NOW, NOW, len(value))
    assert (hop.message_id, hop.instance, hop.sequence) == (outcome.message_id, value[28:44], 0)
    assert (hop.correlation_id, hop.causation_ids) == ("session-1", TOLD["causation_ids"])
    tail = hop.tail
    assert (tail.topic, tail.agent, tail.domain, tail.epoch) == ("memory.in", WRITER, MEMORY, 1)
    assert (tail.rule, tail.location) == ("memory.produce", "mesh.yaml:3")
    assert (tail.snapshot, tail.policy_digest) == (1, WORLD.policy.digest)
    assert (tail.kind, tail.tool, tail.target) == ("MESSAGE", "sql.read", READER)
    assert (tail.purpose, tail.labels, tail.metadata_keys) == ("care", ("pii",), ("locale",))
    assert tail.on_behalf_of == b""
    assert tail.facts == {"action": "produce", "roles": "WRITER", "tier_floor": "", "labels": "pii"}


def test_an_allowed_hop_of_an_output_only_domain_is_emptied():
    (_,), made = run(WORLD.context(), state(NOTES), sealed(domain=NOTES, **TOLD))
    (hop,) = hops_of(made)
    assert hop.tail.decision is Verdict.ALLOW
    assert (hop.tail.purpose, hop.tail.labels, hop.tail.metadata_keys, hop.tail.facts) == ("", (), (), {})
    assert (hop.tail.agent, hop.tail.rule) == (WRITER, "notes.produce"), "who and why is always told"
    assert hop.correlation_id == "session-1"


def test_an_allowed_hop_of_an_output_only_domain_names_no_causes():
    """The policy language counts causation among what OUTPUT_ONLY empties."""
    (_,), made = run(WORLD.context(), state(NOTES), sealed(domain=NOTES, **TOLD))
    assert hops_of(made)[0].causation_ids == ()


@pytest.mark.parametrize("changes", [{"agent": OUTSIDER}, {"expires_at": NOW - 1}, {"tier_floor": Tier.FHE}])
def test_a_denied_hop_of_an_output_only_domain_is_full(changes):
    (_,), made = run(WORLD.context(), state(NOTES), sealed(domain=NOTES, **{**TOLD, **changes}))
    (hop,) = hops_of(made)
    assert hop.tail.decision is Verdict.DENY
    assert (hop.tail.purpose, hop.tail.labels, hop.tail.metadata_keys) == ("care", ("pii",), ("locale",))
    assert hop.tail.facts["action"] == "produce"
    assert hop.causation_ids == TOLD["causation_ids"]


def test_a_block_is_sealed_under_the_day_of_the_decision():
    context, place = WORLD.context(), state()
    for day in (DAY, DAY + 1):
        context.now_ms = day * DAY_MS + 5
        made = derive(enforce(context, place, sealed()), 0, 1, place, context)
        assert [(block.day, block.sequence) for block in blocks_of(made)] == [(day, 0)]
        assert len(hops_of(made)) == 1


def test_without_the_days_audit_root_nothing_is_written():
    context, place = WORLD.context(), state()
    context.now_ms = (DAY + 2) * DAY_MS
    with pytest.raises(RetryLater) as refusal:
        derive(enforce(context, place, sealed()), 0, 1, place, context)
    assert refusal.value.code is Code.RETRY


# Bundles and their readers.
@settings(max_examples=25)
@given(st.lists(st.sampled_from([10, 2_000, 90_000, 200_000, 300_000]), min_size=1, max_size=12), st.integers(0, 70))
def test_a_bundle_holds_at_most_32_records_and_256_kib(sizes, small):
    values = many(*({"payload": bytes(size)} for size in [*sizes, *[5] * small]))
    _, made = run(WORLD.context(), state(), *values)
    bundles = [derived.parse(value) for value in made.bundles]
    assert sum(bundle.head.count for bundle in bundles) == len(values)
    assert [bundle.head.sequence for bundle in bundles] == list(range(len(bundles)))
    for value, bundle in zip(made.bundles, bundles, strict=True):
        assert 1 <= bundle.head.count == len(bundle.entries) <= 32
        assert len(value) <= derived.MAX_VALUE
        assert sum(len(entry.body) for entry in bundle.entries) <= 256 * 1024 or len(bundle.entries) == 1
    payloads = [len(told.payload) for value in made.bundles for _, told in opened(value, "READER").deliveries]
    assert payloads == [*sizes, *[5] * small], "readers get them in the order of the input"


def test_small_records_fill_their_bundles():
    _, made = run(WORLD.context(), state(), *many(*[{}] * 70))
    assert [derived.parse(value).head.count for value in made.bundles] == [32, 32, 6]


def test_the_largest_record_that_can_be_sealed_can_be_written():
    probe = len(sealed(payload=bytes(900_000))) - 900_000
    value = sealed(payload=bytes(MAX_LENGTH - probe))
    assert len(value) == MAX_LENGTH
    _, made = run(WORLD.context(), state(), value)
    assert len(made.bundles[0]) <= derived.MAX_VALUE
    assert len(opened(made.bundles[0], "READER").deliveries) == 1


@pytest.mark.parametrize("role", ["READER", "ARCHIVIST"])
def test_a_role_that_may_read_opens_a_broadcast_record(role):
    value = sealed(payload=b"for all", metadata={"sender_ip": "10.0.0.1", "locale": "en"}, purpose="care")
    (outcome,), made = run(WORLD.context(), state(), value)
    told = opened(made.bundles[0], role)
    ((index, delivery),) = told.deliveries
    assert (told.count, told.skipped, told.refusals, index) == (1, 0, (), 0)
    assert (delivery.payload, delivery.source, delivery.domain, delivery.purpose) == (
        b"for all",
        WRITER,
        MEMORY,
        "care",
    )
    assert delivery.metadata == {"locale": "en"}
    assert delivery.id.bytes == outcome.message_id
    assert delivery.decision_id == hops_of(made)[0].decision_id
    assert delivery.place == (0, 3, 0)


def test_a_targeted_record_is_for_its_target_alone_and_the_rest_is_skipped_in_silence():
    values = [
        sealed(payload=b"all"),
        sealed(payload=b"one", target=READER, kind=Kind.RPC_REQUEST),
        sealed(payload=b"2"),
    ]
    _, made = run(WORLD.context(), state(), *values)
    (value,) = made.bundles
    found = {
        "role": [(index, told.payload) for index, told in opened(value, "READER").deliveries],
        "target": [(index, told.payload) for index, told in opened(value, READER).deliveries],
        "both": [(index, told.payload) for index, told in opened(value, READER, "READER").deliveries],
    }
    assert found["role"] == [(0, b"all"), (2, b"2")]
    assert found["target"] == [(1, b"one")]
    assert found["both"] == [(0, b"all"), (1, b"one"), (2, b"2")]
    for stranger in ((), ("WRITER",), ("OUTSIDER", WRITER), (OTHER_WRITER,)):
        told = opened(value, *stranger)
        assert (told.deliveries, told.skipped, told.refusals, told.count) == ((), 3, (), 3)


def test_keys_of_another_epoch_open_nothing():
    _, made = run(WORLD.context(), state(), sealed())
    told = opened(made.bundles[0], reading=lambda _: (WORLD.reading("READER", MEMORY, 2),))
    assert (told.deliveries, told.skipped) == ((), 1)


def test_records_of_two_epochs_are_sealed_under_the_newest_that_has_begun():
    context, place, at = WORLD.context([1, 2]), state(), NOW + 520_000
    context.now_ms = at
    plain = {"created_at": at, "expires_at": at}
    values = [WORLD.sealer(epoch=epoch).seal(0, plaintext(**plain))[1] for epoch in (1, 2, 1)]
    made = derive(enforce(context, place, *values, at=at), 0, 3, place, context)
    heads = [derived.parse(value).head for value in made.bundles]
    assert [(head.epoch, head.count) for head in heads] == [(2, 3)]
    assert [hop.tail.epoch for hop in hops_of(made)] == [1, 2, 1], "a hop names the epoch of the sender's key"
    told = opened(made.bundles[0], append_time=at, reading=lambda number: (WORLD.reading("READER", MEMORY, number),))
    assert len(told.deliveries) == 3


def test_records_decided_under_two_policies_never_share_a_bundle():
    context, place = WORLD.context(), state()
    first = enforce(context, place, sealed())
    context.set_policy(make_policy(number=2), 2)
    second = enforce(context, place, sealed(), first=1)
    made = derive([*first, *second], 0, 2, place, context)
    digests = [derived.parse(value).head.policy_digest for value in made.bundles]
    assert digests == [WORLD.policy.digest, context.policy.digest]
    assert [hop.tail.policy_digest for hop in hops_of(made)] == digests
    assert all(len(opened(value, "READER").deliveries) == 1 for value in made.bundles)


def test_a_plaintext_domain_is_readable_by_anyone_and_says_so_in_its_head():
    _, made = run(WORLD.context(), state(PLAIN), sealed(domain=PLAIN, payload=b"open"))
    bundle = derived.parse(made.bundles[0])
    assert bundle.head.tier is Tier.PLAINTEXT
    assert (bundle.key_table, bundle.entries[0].reader_set, bundle.entries[0].counter) == (b"\x00\x00", 0xFFFF, 0)
    assert opened(made.bundles[0], domain=PLAIN).deliveries[0][1].payload == b"open"
    with pytest.raises(Unverified) as refusal:
        opened(made.bundles[0], domain=PLAIN, tier=Tier.RETRIEVAL)
    assert refusal.value.code is Code.TIER_FLOOR


BUNDLE = run(WORLD.context(), state(), sealed(), sealed(target=READER), sealed())[1].bundles[0]
REFUSED = {
    "another topic": ({"topic": "memory2.out"}, "signature", Code.UNVERIFIED),
    "another partition": ({"partition": 1}, "signature", Code.UNVERIFIED),
    "another domain": ({"domain": "elsewhere", "topic": "memory.out"}, "certificate", Code.UNVERIFIED),
    "an enforcer of other domains": ({"trust": WORLD.trust(NOTES)}, "certificate", Code.UNVERIFIED),
    "an unknown enforcer": ({"trust": Trust(DEPLOYMENT, bytes(32))}, "certificate", Code.UNVERIFIED),
    "appended too late": ({"append_time": NOW + MAX_DELAY_MS + 1}, "time", Code.UNVERIFIED),
    "appended before it was decided": ({"append_time": NOW - MAX_DELAY_MS - 1}, "time", Code.UNVERIFIED),
    "seen before": ({"highest": lambda _: 0}, "replay", Code.REPLAY),
    "below the policy's tier": ({"tier": Tier.COMPUTATION}, "tier", Code.TIER_FLOOR),
}


@pytest.mark.parametrize(("changes", "step", "code"), REFUSED.values(), ids=REFUSED)
def test_a_bundle_out_of_its_place_is_refused_whole(changes, step, code):
    with pytest.raises(Unverified) as refusal:
        opened(BUNDLE, "READER", **changes)
    assert (refusal.value.step, refusal.value.code) == (step, code)


@pytest.mark.parametrize("append_time", [NOW - MAX_DELAY_MS, NOW + MAX_DELAY_MS])
def test_a_bundle_within_the_bounds_of_its_time_and_tier_is_opened(append_time):
    told = opened(BUNDLE, "READER", append_time=append_time, tier=Tier.RETRIEVAL)
    assert [index for index, _ in told.deliveries] == [0, 2]


def test_a_reader_without_the_epoch_gets_a_typed_refusal():
    with pytest.raises(Erased) as refusal:
        opened(BUNDLE, reading=lambda _: None)
    assert refusal.value.code is Code.ERASED


@given(st.integers(0, len(BUNDLE) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_in_a_bundle_is_refused_before_anything_is_opened(place, change):
    def reading(_: int) -> None:
        raise AssertionError("a key was asked for before the signature held")

    value = bytearray(BUNDLE)
    value[place] ^= change
    with pytest.raises((Unverified, WireError)) as refusal:
        opened(bytes(value), reading=reading)
    assert refusal.value.code in (Code.VERSION, Code.BOUNDS, Code.UNVERIFIED)


# Dead letters.
BODIES = {
    "junk": None,
    "mac": None,
    "produce": OUTSIDER,
    "expired": WRITER,
    "decode": WRITER,
}


@pytest.mark.parametrize(("kind", "agent"), BODIES.items(), ids=BODIES)
def test_a_dead_letter_has_a_sealed_body_from_the_step_on_that_opened_it(kind, agent):
    value = record(kind)
    (outcome,), made = run(WORLD.context(), state(), value, first=9)
    letter = records.parse_dead_letter(made.dead[0])
    assert (letter.offset, letter.append_time, letter.origin_digest) == (9, NOW, hashlib.sha256(value).digest())
    assert letter.code is outcome.decision.code
    if agent is None:
        assert letter.sealed is None
        return
    plain = dead_body(letter)
    size = int.from_bytes(plain[:4], "big")
    assert plain[4 : 4 + size] == agent.encode()
    assert plain[4 + size :] == outcome.body
    for wrong in ({"topic": "notes.dead"}, {"partition": 1}, {"purpose": "search"}, {"digest": bytes(32)}):
        with pytest.raises(Unverified):
            dead_body(letter, **wrong)


def dead_body(letter: records.DeadLetter, topic="memory.dead", partition=0, purpose="dead", digest=None) -> bytes:
    """The body of a dead letter, opened with the key of its domain and epoch."""
    body = letter.sealed
    key = purpose_key(WORLD.root(MEMORY, body.epoch)[1], purpose)
    aad = preimage.dead_aad(DEPLOYMENT, topic, partition, digest or letter.origin_digest)
    return open_counted(key, "dead", body.instance, body.sequence, body.body, aad)


@pytest.mark.parametrize("kind", ["replay", "open", "epoch-late"])
def test_a_record_refused_between_its_mac_and_its_opening_leaves_no_body(kind):
    context, place, own = WORLD.context(), state(), WORLD.keys(WRITER, MEMORY)
    value = seal_by_hand(own, plaintext(), seal_key=Secret(bytes(32), "x") if kind == "open" else None)
    if kind == "replay":
        place.windows.accept(value[12:44], 0)
    at = NOW + 10**6 if kind == "epoch-late" else NOW
    outcomes = enforce(context, place, value, at=at)
    made = derive(outcomes, 0, 1, place, context)
    letter = records.parse_dead_letter(made.dead[0])
    assert (letter.code, letter.sealed) == (Code(kind), None)
    (hop,) = hops_of(made)
    assert (hop.tail.agent, hop.instance, hop.message_id) == (WRITER, b"i" * 16, NO_MESSAGE_ID)


def test_a_record_without_an_append_time_is_refused_and_leaves_its_hop_and_dead_letter():
    """librdkafka gives -1 where a record has no time: that is a refusal, not the end of the enforcer."""
    context, place = WORLD.context(), state()
    outcomes = enforce(context, place, sealed(), at=-1, foreign=[0])
    made = derive(outcomes, 0, 1, place, context)
    assert hops_of(made)[0].tail.code is Code.BOUNDS
    assert len(made.dead) == 1


# Notices.
def verdicts(made: Derivation) -> list[tuple[str, records.Verdict]]:
    """Notices, each opened with the keys of the agent that it is for."""
    found = []
    for agent, value in made.notices:
        notice, own = records.parse_notice(value), WORLD.keys(agent, MEMORY)
        assert notice.key_id == own.notice_key_id
        aad = preimage.notice_aad(DEPLOYMENT, notice.header)
        plain = open_counted(own.notice, "notice", notice.instance, notice.sequence, notice.body, aad)
        found.append((agent, records.parse_verdict(plain)))
    return found


def test_an_agent_is_told_of_its_refusals_and_of_what_it_asked_for():
    values = [record(kind) for kind in ("produce", "notify", "allow", "expired", "junk", "mac", "decode")]
    outcomes, made = run(WORLD.context(), state(), *values)
    told = {verdict.decision_id: (agent, verdict) for agent, verdict in verdicts(made)}
    assert len(told) == len(made.notices) == 4
    asked = [told.get(outcome.digest[:10]) for outcome in outcomes]
    assert [each and (each[0], each[1].code) for each in asked] == [
        (OUTSIDER, Code.PRODUCE),
        (WRITER, Code.ALLOW),
        None,
        (WRITER, Code.EXPIRED),
        None,
        None,
        (WRITER, Code.DECODE),
    ]
    allowed, denied = asked[1][1], asked[0][1]
    assert (allowed.decision, allowed.rule, allowed.hint) == (Verdict.ALLOW, "memory.produce", "")
    assert allowed.obligations == ("tier:RETRIEVAL", "roles:ARCHIVIST,READER", "masked")
    assert (denied.decision, denied.rule, denied.obligations) == (Verdict.DENY, "memory.produce", ())
    assert denied.hint
    assert (denied.instance, denied.sequence) == (values[0][28:44], 0)


def test_a_notice_opens_for_its_agent_alone():
    _, made = run(WORLD.context(), state(), record("produce"))
    ((_, value),) = made.notices
    notice = records.parse_notice(value)
    aad = preimage.notice_aad(DEPLOYMENT, notice.header)
    for own, instance, sequence in (
        (WORLD.keys(WRITER, MEMORY), notice.instance, notice.sequence),
        (WORLD.keys(OUTSIDER, NOTES), notice.instance, notice.sequence),
        (WORLD.keys(OUTSIDER, MEMORY), notice.instance, notice.sequence + 1),
    ):
        with pytest.raises(BusError):
            open_counted(own.notice, "notice", instance, sequence, notice.body, aad)


# After an abort, under a new policy.
def test_after_an_abort_nothing_of_the_transaction_lives_on():
    context = WORLD.context()
    _, before = run(context, state(), sealed())
    context.reset()
    _, after = run(context, state(), sealed())
    one, other = derived.parse(before.bundles[0]), derived.parse(after.bundles[0])
    assert one.head.instance != other.head.instance
    assert one.sets[0].commitment != other.sets[0].commitment
    assert (one.head.sequence, other.head.sequence) == (0, 0)
    assert blocks_of(before)[0].instance != blocks_of(after)[0].instance


def test_within_a_process_a_reader_set_has_one_dek_until_the_policy_changes():
    context, place = WORLD.context(), state()
    commitments = []
    for number in (1, 1, 2):
        if number == 2:
            context.set_policy(replace(make_policy(domain_policy(MEMORY)), digest=bytes(32)), 2)
        _, made = run(context, place, sealed())
        bundle = derived.parse(made.bundles[0])
        commitments.append((bundle.sets[0].commitment, bundle.entries[0].counter))
    assert commitments[0][0] == commitments[1][0] != commitments[2][0]
    assert [counter for _, counter in commitments] == [0, 1, 0]
