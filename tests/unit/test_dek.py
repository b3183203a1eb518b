"""DEKs: opened by their readers alone and only in their place; used up, forked or swapped ones are refused.

AES-GCM does not commit to its key: the test of the commitment builds a table whose two readers would get two keys.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.crypto import keys
from bus.crypto.dek import Dek, commit, unwrap
from bus.crypto.keys import ReadingKey, Secret
from bus.crypto.seal import MAX_USES, Opener
from bus.errors import Refused, Unverified
from bus.wire import preimage
from bus.wire.derived import Entry, ReaderSet
from tests.unit.build import DEPLOYMENT

ROOT = Secret(bytes(range(32)), "root")
READER, ARCHIVIST = keys.role_key(ROOT, "READER"), keys.role_key(ROOT, "ARCHIVIST")
TARGET, STRANGER = keys.target_key(ROOT, "reader-1"), keys.role_key(ROOT, "STRANGER")
PLACE = (DEPLOYMENT, "memory.out", 1)
NONCE = preimage.counter_nonce(0)


def dek(*readers: ReadingKey) -> Dek:
    return Dek(*PLACE, readers)


def refused(reader: ReadingKey, table: ReaderSet, place: tuple[bytes, str, int] = PLACE) -> Unverified:
    with pytest.raises(Unverified) as refusal:
        unwrap(reader, table, *place)
    assert refusal.value.code is Code.OPEN
    return refusal.value


@pytest.mark.parametrize("reader", [READER, ARCHIVIST, TARGET])
def test_every_reader_of_the_set_opens_what_was_sealed(reader):
    made = dek(READER, ARCHIVIST, TARGET)
    opened = unwrap(reader, made.reader_set, *PLACE)
    assert opened is not None
    assert opened.open(NONCE, made.aead.encrypt(NONCE, b"note", b"aad"), b"aad") == b"note"


def test_a_key_without_an_entry_opens_nothing_and_is_no_error():
    assert unwrap(STRANGER, dek(READER, ARCHIVIST).reader_set, *PLACE) is None
    assert unwrap(READER, dek().reader_set, *PLACE) is None


@pytest.mark.parametrize(
    "place", [(bytes(16), *PLACE[1:]), (DEPLOYMENT, "notes.out", 1), (DEPLOYMENT, "memory.out", 2)]
)
def test_a_wrapped_key_opens_in_its_deployment_topic_and_epoch_only(place):
    refused(READER, dek(READER).reader_set, place)


@settings(max_examples=60)
@given(st.data())
def test_a_changed_table_is_refused_or_names_other_readers(data):
    table = dek(READER).reader_set
    (key_id, wrapped), commitment = table.entries[0], table.commitment
    whole = bytearray(commitment + wrapped)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    refused(READER, ReaderSet(bytes(whole[:32]), ((key_id, bytes(whole[32:])),)))
    assert unwrap(READER, ReaderSet(commitment, ((key_id[:7] + bytes([key_id[7] ^ 1]), wrapped),)), *PLACE) is None


def test_the_entry_of_another_reader_does_not_open_under_my_key_id():
    table = dek(ARCHIVIST).reader_set
    refused(READER, replace(table, entries=((READER.key_id, table.entries[0][1]),)))


def test_a_key_that_does_not_match_its_commitment_is_refused():
    """An enforcer that wraps two keys under one commitment would show two readers two messages."""
    honest = dek(READER)
    other, nonce = b"o" * 32, bytes(12)
    aad = preimage.wrap_aad(*PLACE, honest.reader_set.commitment)
    wrapped = nonce + AESGCM(ARCHIVIST.kek.reveal()).encrypt(nonce, other, aad)
    table = replace(honest.reader_set, entries=(*honest.reader_set.entries, (ARCHIVIST.key_id, wrapped)))
    assert unwrap(READER, table, *PLACE) is not None
    assert refused(ARCHIVIST, table).step == "commitment"
    honestly = replace(table, commitment=commit(other))
    wrapped = nonce + AESGCM(ARCHIVIST.kek.reveal()).encrypt(nonce, other, preimage.wrap_aad(*PLACE, commit(other)))
    assert unwrap(ARCHIVIST, replace(honestly, entries=((ARCHIVIST.key_id, wrapped),)), *PLACE) is not None


def test_a_table_is_in_the_order_of_key_ids_whatever_order_readers_came_in():
    one, other = dek(READER, ARCHIVIST, TARGET), dek(TARGET, READER, ARCHIVIST)
    ids = [key_id for key_id, _ in one.reader_set.entries]
    assert ids == sorted(ids) == [key_id for key_id, _ in other.reader_set.entries]


def test_two_deks_of_one_reader_set_are_different_keys():
    one, other = dek(READER), dek(READER)
    assert one.reader_set.commitment != other.reader_set.commitment
    assert one.aead.encrypt(NONCE, b"x", b"") != other.aead.encrypt(NONCE, b"x", b"")


def test_wrapping_nonces_are_drawn_anew():
    nonces = {entry[1][:12] for _ in range(20) for entry in dek(READER, ARCHIVIST).reader_set.entries}
    assert len(nonces) == 40


@given(st.lists(st.integers(1, 1000), max_size=20))
def test_counters_only_rise_and_are_handed_out_once(counts):
    made, expected = dek(), 0
    for count in counts:
        assert made.take(count) == expected
        expected += count


def test_a_dek_ends_at_its_last_use_and_stays_ended():
    made = dek()
    assert made.take(MAX_USES - 2) == 0
    with pytest.raises(Refused, match="used up"):
        made.take(3)
    assert made.take(2) == MAX_USES - 2, "a refused request takes nothing"
    for _ in range(2):
        with pytest.raises(Refused, match="used up") as refusal:
            made.take(1)
        assert refusal.value.code is Code.EPOCH_LATE


def test_a_forked_child_gets_no_counter():
    made = dek()
    assert made.take(1) == 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            made.take(1)
        except Refused:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made.take(1) == 1, "the parent goes on"


def test_a_repr_shows_the_commitment_and_no_key():
    made = dek(READER)
    assert repr(made) == f"Dek({made.reader_set.commitment.hex()[:16]})"


@given(st.lists(st.tuples(st.binary(min_size=26, max_size=26), st.integers(0, 2**64 - 1), st.binary(max_size=99))))
def test_compiled_and_plain_openers_open_the_same_and_refuse_the_same(records):
    key, covered = os.urandom(32), b"covered"
    entries = [
        Entry(fixed, 0, counter, AESGCM(key).encrypt(counter.to_bytes(12, "big"), body, covered + fixed[:16]))
        for fixed, counter, body in records
    ]
    compiled, plain = Opener(key), Opener(key)
    plain._cipher = None
    for opener in (compiled, plain):
        assert opener.open_entries(entries, covered) == [body for _, _, body in records]
        for each, (_, counter, body) in zip(entries, records, strict=True):
            assert opener.open(counter.to_bytes(12, "big"), each.body, covered + each.record_id) == body
            with pytest.raises(Unverified, match="does not open"):
                opener.open(counter.to_bytes(12, "big"), each.body, covered)
        for wrong in (b"", b"short", bytes(20), *(each.body[:-1] + bytes([each.body[-1] ^ 1]) for each in entries)):
            bad = [*entries, Entry(bytes(26), 0, 7, wrong)]
            with pytest.raises(Unverified, match="does not open"):
                opener.open_entries(bad, covered)
