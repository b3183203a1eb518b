"""The compiled steps beside the plain ones: the same outcomes, windows, hops and plaintexts for the same records.

Records are honest, faulty, or bytes that an agent sealed and changed at will; each run goes through both, each with a
partition state of its own. Where the package is not installed these tests say so, and on CI they fail.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.client.delivery import Delivery
from bus.client.opening import Profiles, open_bundle
from bus.crypto import tree
from bus.crypto.dek import Dek
from bus.crypto.keys import purpose_key
from bus.crypto.seal import Sealer, open_counted, open_sealed
from bus.native import native
from bus.policy.conditions import compile_condition
from bus.policy.model import BreakerRule, Policy, RateRule
from bus.wire import derived, hopblock, preimage
from bus.wire.envelope import MAX_CACHED_PROFILE, Chunk, Kind
from bus.wire.hop import Hop, Verdict, decode_hop
from bus.wire.names import Tier
from consumers.enforcer import bundle, compiled
from consumers.enforcer.compiled import acceptor_for
from consumers.enforcer.derive import Derivation, derive
from consumers.enforcer.outcome import Accepted, Outcome, Refused
from consumers.enforcer.pipeline import enforce_batch
from tests.unit.build import (
    DEPLOYMENT,
    GRACE,
    HORIZON,
    INTERVAL,
    MEMORY,
    NOTES,
    NOW,
    OTHER_WRITER,
    OUTSIDER,
    READER,
    SKEW,
    WRITER,
    World,
    domain_policy,
    make_policy,
    plaintext,
    seal_by_hand,
    state,
    told,
)
from tests.unit.inspected import CARD, KEY, MAIL, NO_KEYS, NO_PII, guardrail, mask

SMALL = compile_condition("small", "context.size < 1000")
EVEN = compile_condition("even", "context.time.getMilliseconds() % 2 == 0")
WORLD = World()
TRUST = WORLD.trust()


@pytest.fixture(scope="module", autouse=True)
def installed():
    if native is None and "CI" not in os.environ:
        pytest.skip("sealbus-native is not installed: no Rust compiler when the environment was made")
    assert native is not None, "the compiled steps were not built"


class Twin:
    """One partition twice: in the hands of the plain steps and of the compiled ones."""

    def __init__(self, domain: str = MEMORY, policy: Policy | None = None) -> None:
        self.plain, self.fast = WORLD.context(), WORLD.context()
        self.plain.compiled = False
        if policy is not None:
            self.plain.policy = self.fast.policy = policy
        self.plain_state, self.fast_state = state(domain), state(domain)
        self.fast_state.acceptor = acceptor_for(self.fast_state, self.fast)
        self.offset = 0

    def enforce(self, values, times, foreign=()) -> tuple[list[Outcome], list[Outcome]]:
        """Outcomes of both, which are held against each other; positions in ``values`` that are ``foreign``."""
        offsets = list(range(self.offset, self.offset + len(values)))
        marked = [self.offset + each for each in foreign]
        self.offset += len(values)
        one = enforce_batch(values, times, offsets, self.plain_state, self.plain, foreign=marked)
        two = compiled.enforce(values, times, offsets, self.fast_state, self.fast, foreign=marked)
        assert [told(each) for each in two] == [told(each) for each in one]
        assert self.fast_state.windows.highest_time == self.plain_state.windows.highest_time
        assert self.fast_state.events == self.plain_state.events
        ours, theirs = (each.windows.take_delta(bytes(16), self.offset) for each in (self.plain_state, self.fast_state))
        assert theirs == ours
        return one, two


PROFILES = [
    {},
    {"purpose": "care", "labels": ("pii",), "metadata": {"locale": "en", "sender_ip": "10.0.0.1"}},
    {"kind": Kind.TOOL_CALL, "target": READER},
    {"source": READER},
    {"domain": NOTES},
    {"tier_floor": Tier.FHE},
    {"task_type": "t" * MAX_CACHED_PROFILE},
]
MESSAGES = [
    {},
    {"correlation_id": "ü" * 31, "causation_ids": (b"c" * 16, b"d" * 16), "reply_to": "r", "traceparent": "t" * 55},
    {"causation_ids": (b"c" * 16,) * 63, "chunk": Chunk(b"g" * 16, 1, 2)},
    {"tickets": (b"ticket",)},
    {"field_protection": (("/a", "FHE"),)},
    {"expires_at": NOW - 1},
    {"created_at": NOW + SKEW + 1},
]
CHANGES = st.one_of(
    st.none(),
    st.just("again"),
    st.tuples(st.just("flip"), st.integers(0, 400), st.integers(1, 255)),
    st.tuples(st.just("sealed"), st.integers(0, 300), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 300), st.integers(0, 3)),
)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([WRITER, WRITER, OTHER_WRITER, OUTSIDER]),
        st.sampled_from(PROFILES),
        st.sampled_from([MESSAGES[0], *MESSAGES]),
        CHANGES,
        st.sampled_from([0, 0, 64]),
    ),
    min_size=1,
    max_size=14,
)


def sealed_by(records: list[tuple]) -> list[bytes]:
    """The records' values; "sealed" and "cut" change what the agent then seals, "flip" what it sealed."""
    sealers = {agent: WORLD.sealer(agent) for agent in (WRITER, OTHER_WRITER, OUTSIDER)}
    values: list[bytes] = []
    for agent, profile, message, change, cell in records:
        plain = bytearray(plaintext(cell=cell, **{"source": agent, **profile, **message}))
        kind, at, by = change if isinstance(change, tuple) else (change, 0, 0)
        if kind == "sealed":
            plain[at % len(plain)] ^= by
        elif kind == "cut":
            plain = plain[: at % len(plain)] + plain[at % len(plain) + by :]
        value = bytearray(sealers[agent].seal(0, bytes(plain))[1])
        if kind == "flip":
            value[at % len(value)] ^= by
        values.append(bytes(value))
        if kind == "again":
            values.append(bytes(value))
    return values


TIMES = st.sampled_from([0, 0, 0, 1, 50, -1, -SKEW, -SKEW - 5, -NOW - 1, INTERVAL + GRACE])


@settings(max_examples=300)
@given(RECORDS, st.lists(TIMES, min_size=28, max_size=28), st.sets(st.integers(0, 27), max_size=3), st.integers(1, 28))
def test_every_outcome_is_that_of_the_plain_steps(records, times, foreign, size):
    values = sealed_by([*records, *records])
    twin = Twin()
    stamps = [NOW + each for each in times] * 2
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        there = {each - start for each in foreign if start <= each < start + size}
        twin.enforce(values[part], stamps[: len(values[part])], there & set(range(len(values[part]))))


LOOKED_AT = {
    "guardrails": st.sampled_from([(), (NO_PII,), (NO_PII, NO_KEYS)]),
    "masks": st.sampled_from([(), (mask(payload={"note": "hash", "gone": "drop"}),)]),
    "when": st.sampled_from([(), (SMALL,), (SMALL, EVEN)]),
    "rate": st.sampled_from([None, RateRule("few", "agent", 3_600_000, 3, 700)]),
    "breaker": st.sampled_from([None, BreakerRule("worker", "agent", 2, 10_000, 20)]),
    "padding": st.sampled_from([0, 512]),
}
PAYLOADS = [{"note": "calm"}, {"note": MAIL}, {"note": [CARD, MAIL], "gone": 1}, {"note": KEY}, {"note": "x" * 600}, 7]


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(LOOKED_AT),
    st.lists(st.tuples(st.sampled_from([WRITER, WRITER, OTHER_WRITER]), st.sampled_from(PAYLOADS)), max_size=20),
    st.lists(TIMES, min_size=20, max_size=20),
    st.integers(1, 20),
)
def test_records_that_are_looked_at_have_the_outcome_of_the_plain_steps(domain, records, times, size):
    policy = make_policy(domain_policy(MEMORY, **domain))
    sealers = {agent: WORLD.sealer(agent) for agent in (WRITER, OTHER_WRITER)}
    values = [
        sealers[agent].seal(0, plaintext(source=agent, payload=json.dumps(payload).encode()))[1]
        for agent, payload in records
    ]
    twin = Twin(policy=policy)
    stamps = [NOW + each for each in times]
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        twin.enforce(values[part], stamps[part][: len(values[part])])


def test_what_is_longer_once_redacted_than_a_record_may_be_is_refused_by_both():
    policy = make_policy(domain_policy(MEMORY, guardrails=(guardrail("addresses", "IP_ADDRESS"),)))
    payload = json.dumps({"note": "1.1.1.1 " * 80_000}).encode()
    sealer, twin = WORLD.sealer(), Twin(policy=policy)
    first, long = (sealer.seal(0, plaintext(payload=each))[1] for each in (b'"a"', payload))
    one, _ = twin.enforce([first, long], [NOW] * 2)
    assert isinstance(one[1], Refused)
    assert one[1].decision.code == "too-large"


@settings(max_examples=200)
@given(st.binary(max_size=120), st.integers(0, 300))
def test_bytes_put_into_a_sealed_envelope_give_the_same_outcome(junk, at):
    """The sender and its profile are known to the compiled steps, so that they look at what follows the profile."""
    own = WORLD.keys(WRITER, MEMORY)
    honest = plaintext()
    at %= len(honest)
    body = honest[4:at] + junk + honest[at:] if at > 4 else junk + honest[4:]
    twin = Twin()
    values = [
        seal_by_hand(own, honest, sequence=0),
        seal_by_hand(own, len(body).to_bytes(4, "big") + body, sequence=1),
        seal_by_hand(own, honest, sequence=2),
    ]
    twin.enforce(values, [NOW] * 3)


def test_honest_records_of_a_known_profile_are_taken_by_the_compiled_steps(monkeypatch):
    judged: list[bytes] = []
    plain = compiled.enforce_batch
    monkeypatch.setattr(
        compiled, "enforce_batch", lambda values, *r, **k: judged.extend(values) or plain(values, *r, **k)
    )
    sealer, twin = WORLD.sealer(), Twin()
    values = [sealer.seal(0, plaintext())[1] for _ in range(50)]
    _, fast = twin.enforce(values, [NOW] * 50)
    assert all(isinstance(each, native.Accepted) for each in fast)
    assert len(judged) == 1
    assert len(twin.fast_state.acceptor) == 2


def test_a_new_policy_and_forgotten_keys_empty_the_acceptor():
    sealer, twin = WORLD.sealer(), Twin()
    twin.enforce([sealer.seal(0, plaintext())[1] for _ in range(4)], [NOW] * 4)
    closed = make_policy(domain_policy(MEMORY, produce=frozenset()), number=2)
    for context in (twin.plain, twin.fast):
        context.set_policy(closed, 2)
    one, _ = twin.enforce([sealer.seal(0, plaintext())[1]], [NOW])
    assert one[0].decision.rule == "memory.produce"
    for context in (twin.plain, twin.fast):
        context.set_policy(WORLD.policy, 3)
    one, _ = twin.enforce([sealer.seal(0, plaintext())[1] for _ in range(3)], [NOW] * 3)
    assert all(isinstance(each, Accepted) for each in one)
    for context in (twin.plain, twin.fast):
        context.keyring.retire(NOW + 10 * HORIZON)
    one, _ = twin.enforce([sealer.seal(0, plaintext())[1]], [NOW])
    assert one[0].decision.code == "unknown-key"


def test_senders_and_profiles_that_are_held_are_bounded(monkeypatch):
    monkeypatch.setattr("consumers.enforcer.compiled.MAX_PROFILES", 8)
    twin, sealers = Twin(), [WORLD.sealer() for _ in range(30)]
    for sealer in sealers:
        twin.enforce([sealer.seal(0, plaintext())[1]], [NOW])
        assert len(twin.fast_state.acceptor) <= 9


def hops_of(made: Derivation) -> list[Hop]:
    """The hops of a transaction, opened."""
    found = []
    for value in made.blocks:
        block = hopblock.parse(value)
        key = purpose_key(WORLD.audit_roots[block.day], "block")
        aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
        body = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
        found.extend(decode_hop(each) for each in hopblock.split_hops(body, block.count))
    return found


def opened(value: bytes, name: str) -> list[tuple[int, Delivery]]:
    """What the holder of a role's or an agent's reading key makes of a bundle."""
    told = open_bundle(
        value,
        domain=MEMORY,
        topic="memory.out",
        partition=0,
        offset=3,
        append_time=NOW,
        trust=TRUST,
        tier=None,
        highest=lambda _: -1,
        reading=lambda epoch: (WORLD.reading(name, MEMORY, epoch),),
        profiles=Profiles(),
    )
    assert not told.refusals
    return list(told.deliveries)


@settings(max_examples=60)
@given(RECORDS)
def test_bundles_and_hops_say_the_same_and_readers_open_the_same(records):
    twin = Twin()
    values = sealed_by([*records, *records])
    one, two = twin.enforce(values, [NOW] * len(values))
    plain = derive(one, 0, len(values), twin.plain_state, twin.plain)
    fast = derive(two, 0, len(values), twin.fast_state, twin.fast)
    assert (fast.allowed, fast.codes, len(fast.bundles)) == (plain.allowed, plain.codes, len(plain.bundles))
    for name in ("READER", READER):
        expected = [opened(value, name) for value in plain.bundles]
        assert [opened(value, name) for value in fast.bundles] == expected
    ours, theirs = hops_of(plain), hops_of(fast)
    assert [replace(each, output_digest=b"") for each in theirs] == [replace(each, output_digest=b"") for each in ours]
    head = [bytes(1) + derived.parse(value).head_bytes for value in fast.bundles]
    entries = [derived.parse(value).entries for value in fast.bundles]
    leaves = [hashlib.sha256(h + e.leaf_tail).digest() for h, each in zip(head, entries, strict=True) for e in each]
    assert [each.output_digest for each in theirs if each.tail.decision is Verdict.ALLOW] == leaves


@given(st.binary(max_size=9000), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_a_sealed_record_has_the_bytes_of_the_plain_sealer(plain, sequence, partition):
    own, instance = WORLD.keys(WRITER, MEMORY), b"i" * 16
    made = []
    for compiled_too in (False, True):
        sealer = Sealer(own, DEPLOYMENT, "memory.in", instance, compiled=compiled_too)
        sealer._sequences[partition] = sequence
        made.append(sealer.seal(partition, plain))
    assert made[0] == made[1]
    assert open_sealed(own, DEPLOYMENT, "memory.in", partition, made[1][1]) == plain


@settings(max_examples=50)
@given(RECORDS, st.integers(0, 2**32 - 100), st.booleans())
def test_protected_records_have_the_bytes_of_the_plain_steps(records, counter, full):
    twin = Twin()
    values = sealed_by(records)
    _, outcomes = twin.enforce(values, [NOW] * len(values))
    accepted = [each for each in outcomes if isinstance(each, native.Accepted)]
    key, ids = os.urandom(32), os.urandom(16 * len(accepted))
    dek = Dek(DEPLOYMENT, "memory.out", 1, [WORLD.reading("READER", MEMORY)])
    dek.aead = AESGCM(key)
    head, aad, number, tail = b"h" * 93, b"aad", b"\x00\x05", b"tail"
    fast = native.Cipher(key).protect(accepted, counter, head, aad, number, ids, 3, NOW, tail, full)
    obligations = replace(accepted[0].decided.decision.obligations, audit_full=full) if accepted else None
    plain = [
        bundle._plain(
            each, dek, counter + at, head, aad, number, ids[16 * at : 16 * at + 16], 3, NOW, tail, obligations
        )
        for at, each in enumerate(accepted)
    ]
    assert fast == plain


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_the_root_of_a_tree_is_that_of_rfc_6962(leaves):
    assert native.tree_root(leaves) == tree.root(leaves)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70), st.data())
def test_a_path_leads_to_the_root_of_rfc_6962_and_nowhere_when_anything_is_changed(leaves, data):
    size, index = len(leaves), data.draw(st.integers(0, len(leaves) - 1))
    path, root = tree.inclusion_path(leaves, index), tree.root(leaves)
    assert native.path_root(leaves[index], index, size, path) == root
    changed = [
        (bytes(31), index, size, path),
        ("text", index, size, path),
        (leaves[index], size, size, path),
        (leaves[index], index, size, [*path, bytes(32)]),
        (leaves[index], index, size, [bytes(33), *path[1:]]),
    ]
    assert [native.path_root(*each) for each in changed] == [None] * 5
    if path:
        assert native.path_root(leaves[index], index, size, path[:-1]) is None
        other = [*path]
        at = data.draw(st.integers(0, len(path) - 1))
        other[at] = bytes(32) if path[at] != bytes(32) else b"1" * 32
        assert native.path_root(leaves[index], index, size, other) != root


def test_keys_and_ids_of_another_length_are_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        native.Cipher(bytes(16))
    with pytest.raises(ValueError, match="16 bytes for each"):
        native.Cipher(bytes(32)).protect([], 0, b"", b"", bytes(2), bytes(16), 0, NOW, b"", True)
    assert "Cipher()" in repr(native.Cipher(bytes(32)))
