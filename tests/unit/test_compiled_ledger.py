"""The recorder's shorter ways beside its plain one: the same hops, entries, tokens and refusals for the same bytes.

Hops are of several decisions, sessions and causes, and changed at will before an enforcer seals and signs their block.
Where the compiled steps are not installed their tests say so, and on CI they fail.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import WireError
from bus.ledger.leaf import UNVERIFIED_INDEX
from bus.native import native
from bus.wire import codec, hop, hopblock
from bus.wire.hop import Hop, HopReader, HopTail, Verdict, decode_hop, encode_hop, encode_tail, tail_start
from consumers.audit import recorder
from consumers.audit.recorder import Recorder, record_block
from tests.unit.ledger_build import (
    DAY,
    INPUT,
    INSTANCE,
    KEYS,
    NOON,
    certificate,
    keys_of,
    make_block,
    make_hop,
    make_trust,
)

TRUST = make_trust()
TRUST_ALWAYS = make_trust(certificate(not_after=2 * NOON))


@pytest.fixture(scope="module")
def installed():
    if native is None and "CI" not in os.environ:
        pytest.skip("sealbus-native is not installed: no Rust compiler when the environment was made")
    assert native is not None, "the compiled steps were not built"


def tail_of(**fields) -> bytes:
    given = {"topic": INPUT, "decision": Verdict.ALLOW, "code": Code.ALLOW, "rule": "r", "location": "f:1"}
    return encode_tail(HopTail(**{**given, "snapshot": 1, "policy_digest": bytes(32), **fields}))


TAILS = [
    tail_of(agent="session", domain="session"),  # as one of the sessions: the field is in the token
    tail_of(agent="writer-2", domain="notes", labels=("a", "ü"), facts={"a": "1", "b": "2"}),
    tail_of(decision=Verdict.DENY, code=Code.MAC),
    tail_of(decision=Verdict.RETRY, code=Code.RETRY),
    tail_of(agent="w", topic="plans.in"),
    tail_of(agent="a" * 300, domain="d" * hop.MAX_CACHED_TAIL),
]
CAUSES = [b"\0", b"\x02" + b"c" * 16 + b"\0", codec.length(63) + bytes(range(63)) * 16 + b"\0"]
MANY_CAUSES = codec.length(64) + bytes(64 * 16) + b"\0"
SESSIONS = [b"", b"session", "ü€".encode(), b"s" * 63]
CHANGES = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 600), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 600), st.integers(1, 40)),
    st.tuples(st.just("put"), st.integers(140, 260), st.binary(min_size=1, max_size=4)),
)
HONEST = (1, 1, True, (0, 0, None))
SOUND = st.tuples(st.integers(0, 3), st.just(0), st.none())
ANY = st.tuples(st.integers(0, 5), st.integers(0, 1), CHANGES)
# Some hops belong into no block, are at the next place, or are changed; most are honest.
KINDS = st.tuples(st.integers(0, 9), SOUND, ANY).map(lambda drawn: drawn[1] if drawn[0] else drawn[2])
HOPS = st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans(), KINDS)


def made_of(place: int, told: tuple) -> bytes:
    """A hop for input offset ``place``, or the next, changed as told."""
    session, causes, opened, (tail, step, change) = told
    digest = bytes([place % 251]) * 32
    data = encode_hop(
        origin_digest=digest,
        output_digest=digest,
        message_id=digest[:16] if opened else bytes(16),
        instance_sequence=INSTANCE + place.to_bytes(8, "big"),
        partition=0,
        offset=place + step,
        append_time=NOON,
        decided_at=NOON + 1,
        gap=2**40,
        size=9,
        session=SESSIONS[session],
        causes=CAUSES[causes],
        tail=TAILS[tail],
    )
    if change is None:
        return data
    kind, at, by = change
    at %= len(data)
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]
    return data[:at] + data[at + by :] if kind == "cut" else data[:at] + by + data[at:]


def read(reading, data: bytes) -> Hop | str:
    try:
        return reading(data)
    except WireError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(HOPS, min_size=1, max_size=6))
def test_a_reader_says_of_every_hop_what_decode_hop_says(told):
    reader = HopReader()
    for data in [made_of(place, each) for _ in range(2) for place, each in enumerate(told)]:
        assert read(reader.read, data) == read(decode_hop, data)


@given(st.binary(max_size=400), st.integers(100, 400))
def test_a_reader_says_of_any_bytes_what_decode_hop_says(junk, at):
    reader, honest = HopReader(), make_hop(0)
    reader.read(honest)
    for data in (junk, honest[:at] + junk, honest[:at] + junk + honest[at:]):
        assert read(reader.read, data) == read(decode_hop, data)


@pytest.mark.parametrize("causes", [*CAUSES, MANY_CAUSES])
@pytest.mark.parametrize("session", [*SESSIONS, b"s" * 64])
def test_the_constant_run_begins_behind_session_and_causes(session, causes):
    data = made_of(0, (0, 0, True, (0, 0, None)))
    data = data[: hop.FIXED] + codec.prefixed(session) + causes + data[hop.FIXED + 2 :]
    decode_hop(data)
    assert data[tail_start(data) :] == TAILS[0]


def test_what_a_reader_remembers_is_bounded(monkeypatch):
    monkeypatch.setattr(hop, "MAX_TAILS", 3)
    reader = HopReader()
    for number in range(20):
        reader.read(make_hop(number, rule=f"rule-{number}"))
        assert len(reader._tails) <= 3
    before = dict(reader._tails)
    assert reader.read(make_hop(0, rule="r" * 5000)).tail.rule == "r" * 5000
    assert reader._tails == before


def blocks_of(told: list[list[tuple]]) -> list[bytes]:
    """Hop blocks that tile the input, each of the hops told."""
    values, start = [], 0
    for hops in told:
        end = start + len(hops)
        values.append(make_block([made_of(start + at, each) for at, each in enumerate(hops)], start, end))
        start = end
    return values


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(HOPS, max_size=5), min_size=1, max_size=4))
def test_entries_are_the_plain_ones_whatever_was_met_before(installed, told):
    blocks = blocks_of(told)
    kinds = [Recorder(keys_of, compiled=compiled) for compiled in (True, False)]
    for offset, value in enumerate([*blocks, *blocks]):
        plain = record_block(value, 1, offset, TRUST, keys_of)
        for kind in kinds:
            assert kind.record(value, 1, offset, TRUST) == plain


def counted(monkeypatch) -> list[int]:
    """Offsets of the audit records that plain Python judged, from now on."""
    taken: list[int] = []
    plain = Recorder._judge
    monkeypatch.setattr(Recorder, "_judge", lambda self, *a: taken.append(a[-1]) or plain(self, *a))
    return taken


def test_honest_blocks_of_known_runs_are_taken_by_the_compiled_steps(installed, monkeypatch):
    kind, taken = Recorder(keys_of), counted(monkeypatch)
    kinds = [(tail, 0, None) for tail in range(4)]
    hops = [(session, causes, True, each) for each in kinds for session in range(4) for causes in range(3)]
    values = blocks_of([hops[at : at + 12] for at in range(0, len(hops), 12)] * 2)
    made = [kind.record(value, 1, offset, TRUST) for offset, value in enumerate(values)]
    assert taken == [0, 1, 2, 3]
    assert made == [record_block(value, 1, offset, TRUST, keys_of) for offset, value in enumerate(values)]
    assert {len(entries) for entries, _ in made} == {12}


def test_one_new_run_in_a_block_does_not_leave_its_hops_to_plain_python(installed, monkeypatch):
    def refuse(*_):
        raise AssertionError("sealed by plain Python")

    monkeypatch.setattr(recorder._Day, "entry", refuse)
    kind, taken = Recorder(keys_of), counted(monkeypatch)
    for number in range(4):
        hops = [make_hop(4 * number + at, rule=f"rule-{max(at, number)}") for at in range(4)]
        entries, _ = kind.record(make_block(hops, 4 * number, 4 * number + 4), 1, number, TRUST)
        assert len(entries) == 4
    assert taken == [0]
    value = make_block([make_hop(16, rule="new"), make_hop(17, rule="rule-1")], 16, 18)
    assert len(kind.record(value, 1, 4, TRUST)[0]) == 2
    assert taken == [0, 4]


SHAPES = [
    ("session", b"s" * 64, CAUSES[0]),
    ("causes", b"", MANY_CAUSES),
]


@pytest.mark.parametrize(("what", "session", "causes"), SHAPES)
def test_hops_of_another_shape_are_left_to_plain_python_and_recorded(installed, monkeypatch, what, session, causes):
    kind, taken = Recorder(keys_of), counted(monkeypatch)
    kind.record(blocks_of([[HONEST]])[0], 1, 0, TRUST)
    data = made_of(0, (0, 0, True, (0, 0, None)))
    data = data[: hop.FIXED] + codec.prefixed(session) + causes + data[hop.FIXED + 2 :]
    value = make_block([data], 0, 1)
    entries, intervals = kind.record(value, 1, 1, TRUST)
    assert (len(intervals), taken) == (1, [0, 1])
    assert (entries, intervals) == record_block(value, 1, 1, TRUST, keys_of)


GOOD = [made_of(place, HONEST) for place in range(3)]
EVENT = made_of(3, (0, 0, False, (3, 0, None)))
WRONG = {
    "count too small": ([*GOOD], {"count": 2}),
    "count too large": ([*GOOD], {"count": 4}),
    "a hop before the interval": ([*GOOD], {"start": 1}),
    "a hop at the end of the interval": ([*GOOD], {"end": 2}),
    "an event past the interval": ([EVENT], {"end": 2}),
    "an event before the interval": ([EVENT], {"start": 4, "end": 5}),
    "a hop twice": ([GOOD[0], GOOD[0]], {}),
    "hops out of order": ([GOOD[1], GOOD[0]], {}),
    "another partition": ([GOOD[0][:117] + b"\1" + GOOD[0][118:]], {}),
    "another input": ([made_of(0, (0, 0, True, (4, 0, None)))], {}),
    "a decision id of another digest": ([b"\1" + GOOD[0][1:]], {}),
    "a session that is no text": ([GOOD[0].replace(b"session", b"sessio\xff")], {}),
    "causes that do not end": ([GOOD[0].replace(b"c" * 16 + b"\0", b"c" * 16 + b"\2")], {}),
    "a session of negative length": ([GOOD[0].replace(b"\x0esession", b"\x0fsession")], {}),
    "a negative number of causes": ([GOOD[0].replace(b"\x02" + b"c" * 16, b"\x03" + b"c" * 24)], {}),
    "a byte too much": ([GOOD[0] + b"\0"], {}),
    "a byte too few": ([GOOD[0][:-1]], {}),
    "nothing but fixed fields": ([GOOD[0][: hop.FIXED]], {}),
    "less than fixed fields": ([GOOD[0][:40]], {}),
}


@pytest.mark.parametrize(("hops", "changes"), WRONG.values(), ids=WRONG)
def test_a_block_that_is_wrong_is_kept_unverified_though_its_runs_are_known(installed, hops, changes):
    kind = Recorder(keys_of)
    other = made_of(0, (0, 0, True, (4, 0, None)))
    learned = [*GOOD, EVENT]
    entries, intervals = kind.record(make_block(learned, 0, 4), 1, 0, TRUST)
    assert (len(entries), len(intervals)) == (4, 1)
    kind._days[DAY]._native.learn(other[tail_start(other) :], "plans.in", False, [])
    value = make_block(hops, **{"start": 0, "end": 3, **changes})
    entries, intervals = kind.record(value, 1, 1, TRUST)
    assert [each.index for each in entries] == [UNVERIFIED_INDEX]
    assert (entries, intervals) == record_block(value, 1, 1, TRUST, keys_of)


def test_a_body_whose_lengths_do_not_add_up_is_left_to_plain_python(installed):
    kind = Recorder(keys_of)
    kind.record(make_block(GOOD, 0, 3), 1, 0, TRUST)
    body = hopblock.join_hops(GOOD)
    block = hopblock.parse(make_block(GOOD, 0, 3))
    day = kind._days[DAY]
    assert len(day.compiled(block, body, 1, 1)) == 3
    for wrong in (body[:-1], body + b"\0", body + bytes(4), b"\xff" * 4 + body[4:], bytes(4) + body, b""):
        assert day.compiled(block, wrong, 1, 1) is None


@pytest.mark.parametrize("compiled", [True, False])
def test_what_a_recorder_remembers_is_bounded(installed, monkeypatch, compiled):
    monkeypatch.setattr(recorder, "MAX_TAILS", 4)
    monkeypatch.setattr(recorder, "MAX_TOKENS", 5)
    monkeypatch.setattr(recorder, "MAX_DAYS", 2)
    kind = Recorder(lambda day: replace(KEYS, day=day), compiled=compiled)
    for number in range(30):
        day = DAY + number % 3
        told = make_hop(
            number, correlation=f"s{number}", agent=f"agent-{number}", rule="r" * 5000 if number % 2 else ""
        )
        value = make_block([told], number, number + 1, day=day)
        plain = record_block(value, 1, number, TRUST_ALWAYS, lambda day: replace(KEYS, day=day))
        assert kind.record(value, 1, number, TRUST_ALWAYS) == plain
        assert len(plain[1]) == 1
        assert len(kind._days) <= 2
        assert len(kind._days[day]._tokens) <= 5
        assert not compiled or len(kind._days[day]._native) <= 4
