"""Sealed records: whatever is flipped, cut, moved or re-used is refused with its documented code; sealing only counts.

A record that its agent did not write never gets past the MAC; one whose MAC holds opens only under its own context.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.crypto import keys
from bus.crypto.keys import Secret
from bus.crypto.seal import MAX_USES, CountingAead, Sealer, open_counted, open_sealed
from bus.errors import Refused, Unverified, WireError
from bus.wire import codec, sealed
from tests.unit.build import DEPLOYMENT, seal_by_hand

ROOT = Secret(bytes(range(32)), "root")
OWN = keys.agent_keys(ROOT, "writer-1")
TOPIC = "memory.in"


def sealer() -> Sealer:
    return Sealer(OWN, DEPLOYMENT, TOPIC)


def opened(value: bytes, own: keys.AgentKeys = OWN, deployment=DEPLOYMENT, topic=TOPIC, partition=0) -> bytes:
    return open_sealed(own, deployment, topic, partition, value)


def code_of(value: bytes, **where: object) -> Code:
    """The code with which ``value`` is refused."""
    with pytest.raises((WireError, Unverified)) as refusal:
        opened(value, **where)
    return refusal.value.code


def expected(place: int, length_ends: int) -> Code:
    """The code of a flip at ``place``: the wire format's section 3."""
    if place < 12:
        return Code.VERSION
    return Code.BOUNDS if sealed.MAC_END <= place < length_ends else Code.MAC


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_a_sealed_record_opens_to_what_was_sealed(plaintext, partition):
    sequence, value = sealer().seal(partition, plaintext)
    assert sequence == 0
    assert opened(value, partition=partition) == plaintext
    assert code_of(value, partition=partition ^ 1) is Code.MAC


@pytest.mark.parametrize("size", [0, 47, 48, 300, 8176])
def test_a_bit_flip_anywhere_is_refused_with_its_code(size):
    value = sealer().seal(3, bytes(size))[1]
    _, length_ends = codec.read_length(value, sealed.MAC_END)
    places = range(len(value)) if size <= 300 else [*range(length_ends + 8), *range(length_ends, len(value), 97)]
    for place in places:
        for bit in range(8):
            broken = bytearray(value)
            broken[place] ^= 1 << bit
            assert code_of(bytes(broken), partition=3) is expected(place, length_ends), (place, bit)


@given(st.data(), st.binary(max_size=9000))
def test_another_byte_anywhere_is_refused_with_its_code(data, plaintext):
    value = bytearray(sealer().seal(0, plaintext)[1])
    _, length_ends = codec.read_length(bytes(value), sealed.MAC_END)
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert code_of(bytes(value)) is expected(place, length_ends)


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=40), st.data())
def test_a_cut_or_longer_record_is_refused(plaintext, more, data):
    value = sealer().seal(0, plaintext)[1]
    assert code_of(value + more) is Code.BOUNDS
    assert code_of(value[: data.draw(st.integers(0, len(value) - 1))]) is Code.BOUNDS


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"partition": 1},
        {"topic": "notes.in"},
        {"topic": "memory.out"},
        {"deployment": bytes(16)},
        {"own": keys.agent_keys(ROOT, "writer-2")},
        {"own": keys.agent_keys(Secret(bytes(32), "another epoch"), "writer-1")},
    ],
)
def test_a_record_moved_elsewhere_is_refused_by_its_mac(elsewhere):
    value = sealer().seal(0, b"note")[1]
    assert opened(value) == b"note"
    assert code_of(value, **elsewhere) is Code.MAC


def test_a_body_under_another_key_is_refused_after_its_mac_held():
    value = seal_by_hand(OWN, b"note", seal_key=Secret(bytes(32), "not the seal key"))
    assert code_of(value) is Code.OPEN
    assert opened(seal_by_hand(OWN, b"note")) == b"note"


@pytest.mark.parametrize("size", [0, 63, 64, 8191, 8192, sealed.MAX_LENGTH - sealed.MAC_END - 3 - sealed.TAG_LENGTH])
def test_the_bounds_of_a_record_are_reached(size):
    value = sealer().seal(0, bytes(size))[1]
    assert sealed.MIN_LENGTH <= len(value) <= sealed.MAX_LENGTH
    assert opened(value) == bytes(size)


@pytest.mark.parametrize("size", [0, 1, sealed.MIN_LENGTH - 1, sealed.MAX_LENGTH + 1])
def test_a_size_beyond_the_bounds_is_refused_before_the_marker_is_read(size):
    assert code_of(bytes(size)) is Code.BOUNDS


def test_a_record_over_the_bound_is_refused_though_it_is_whole():
    assert code_of(sealer().seal(0, bytes(sealed.MAX_LENGTH - 100))[1]) is Code.BOUNDS


@pytest.mark.parametrize(
    "length", [b"\xa0\x00", b"\x21", b"\x1f", b"\x22", b"\x80\x80\x80\x80\x80\x00", b"\xa0\x80\x00"]
)
def test_a_length_in_another_form_is_refused(length):
    """The body has 16 bytes: its length is the one byte 20 (hexadecimal), and nothing else will do."""
    value = sealer().seal(0, b"")[1]
    assert value[84:85] == b"\x20"
    assert code_of(value[:84] + length + value[85:]) is Code.BOUNDS


@given(st.lists(st.integers(0, 5), max_size=40))
def test_sequences_count_from_zero_in_each_partition(partitions):
    made, counts = sealer(), dict.fromkeys(range(6), 0)
    for partition in partitions:
        assert made.next_sequence(partition) == counts[partition]
        sequence, value = made.seal(partition, b"x")
        assert sequence == counts[partition] == sealed.parse(value).sequence
        counts[partition] += 1


def test_a_failed_sealing_uses_its_sequence_up(monkeypatch):
    made = sealer()
    with pytest.raises(TypeError):
        made.seal(0, None)  # type: ignore[arg-type]
    assert made.next_sequence(0) == 1
    assert made.seal(0, b"x")[0] == 1


def test_two_processes_have_two_instances():
    one, two = sealer(), sealer()
    assert one.instance != two.instance
    assert sealed.parse(one.seal(0, b"x")[1]).instance == one.instance


def test_a_used_up_seal_key_is_refused_and_stays_so():
    made = sealer()
    made._sequences[0] = MAX_USES - 1
    assert made.seal(0, b"x")[0] == MAX_USES - 1
    for _ in range(2):
        with pytest.raises(Refused, match="used up") as refusal:
            made.seal(0, b"x")
        assert refusal.value.code is Code.EPOCH_LATE
    assert made.seal(1, b"x")[0] == 0, "another partition has a count of its own"


@settings(max_examples=30)
@given(st.binary(max_size=100), st.binary(max_size=40))
def test_a_counted_body_opens_under_its_own_key_use_instance_counter_and_context(plaintext, aad):
    key, instance = Secret(bytes(32), "notice"), bytes(range(16))
    aead = CountingAead(key, "notice", instance)
    aead.next()
    counter = aead.next()
    body = aead.seal(counter, plaintext, aad)
    right = (key, "notice", instance, counter, body, aad)
    assert open_counted(*right) == plaintext
    wrong = (Secret(b"\1" * 32, "other"), "dead", bytes(16), 0, body[:-1] + bytes([body[-1] ^ 1]), aad + b"!")
    for place, value in enumerate(wrong):
        with pytest.raises(Unverified) as refusal:
            open_counted(*right[:place], value, *right[place + 1 :])
        assert refusal.value.code is Code.OPEN


def test_a_counter_rises_by_one_and_ends_at_its_bound():
    aead = CountingAead(Secret(bytes(32), "dead"), "dead", bytes(16))
    assert [aead.next() for _ in range(3)] == [0, 1, 2]
    aead._counter = MAX_USES - 1
    assert aead.next() == MAX_USES - 1
    for _ in range(2):
        with pytest.raises(Refused, match="used up") as refusal:
            aead.next()
        assert refusal.value.code is Code.EPOCH_LATE
