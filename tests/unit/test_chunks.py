"""Messages in parts: whole or not at all, whatever order, gaps and restarts there are."""

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.client import chunks
from bus.client.chunks import MAX_CHUNKS, PATIENCE_MS, Assembler, cut
from bus.client.delivery import Delivery
from bus.codes import Code
from bus.errors import TooLarge, Unverified
from bus.wire import envelope
from bus.wire.envelope import Chunk, Message, Profile, encode_message, encode_plaintext, encode_profile
from bus.wire.names import AgentId, DomainName

PROFILE = Profile(AgentId("writer-1"), DomainName("notes"))
GROUP = uuid.UUID(int=7).bytes


def part(index, count, payload=b"x", *, group=GROUP, offset=0, **changes) -> Delivery:
    message_id = group if index == 0 else uuid.UUID(int=1000 + index).bytes
    made = Delivery(
        PROFILE,
        message_id,
        1,
        2,
        "s-1",
        b"",
        "",
        b"d" * 10,
        1,
        (0, offset, 0),
        payload,
        b"",
        Chunk(group, index, count),
    )
    return replace(made, **changes)


@given(payload=st.binary(min_size=1, max_size=400), limit=st.integers(8, 64))
def test_what_is_cut_is_put_together_as_it_was(payload, limit):
    parts, held = cut(payload, limit, GROUP), Assembler()
    assert all(len(data) <= limit for data, _ in parts)
    assert (len(parts) == 1) == (len(payload) <= limit) == (parts[0][1] is None)
    told = [held.take(part(n, len(parts), data, chunk=chunk, offset=n), 0) for n, (data, chunk) in enumerate(parts)]
    assert [each for each in told[:-1] if each is not None] == []
    assert (told[-1].payload, told[-1].chunk, told[-1].message_id) == (payload, None, GROUP)
    assert told[-1].place == (0, len(parts) - 1, 0)
    assert held.floor() is None


def test_more_parts_than_there_may_be_are_refused():
    assert len(cut(bytes(MAX_CHUNKS), 1, GROUP)) == MAX_CHUNKS
    with pytest.raises(TooLarge, match="expected at most 1024 bytes, found 1025"):
        cut(bytes(MAX_CHUNKS + 1), 1, GROUP)


def test_messages_of_several_agents_in_parts_do_not_mix():
    held, other = Assembler(), replace(PROFILE, source=AgentId("writer-2"))
    assert held.take(part(0, 2, b"a"), 0) is None
    assert held.take(part(0, 2, b"c", profile=other, offset=1), 0) is None
    assert held.take(part(1, 2, b"d", profile=other, offset=2), 0).payload == b"cd"
    assert held.floor() == 0
    assert held.take(part(1, 2, b"b", offset=3), 0).payload == b"ab"


@pytest.mark.parametrize(
    "wrong",
    [
        part(2, 3),
        part(0, 3),
        part(1, 4),
        part(1, 3, correlation="s-2"),
        part(1, 3, profile=replace(PROFILE, content_type="text/plain")),
    ],
    ids=["gap", "first again", "count", "session", "type"],
)
def test_a_part_that_does_not_follow_is_refused_with_its_message(wrong):
    held = Assembler()
    assert held.take(part(0, 3), 0) is None
    with pytest.raises(Unverified, match=r"chunk: expected 1 of 3 of the same message, found \d of \d"):
        held.take(wrong, 0)
    assert held.floor() is None
    with pytest.raises(Unverified, match="expected the first part of a message, found 1 of 3"):
        held.take(part(1, 3), 0)


@pytest.mark.parametrize("wrong", [part(0, 1), part(0, 0), part(0, MAX_CHUNKS + 1), part(0, 2, message_id=bytes(16))])
def test_what_begins_no_message_is_refused(wrong):
    with pytest.raises(Unverified, match="expected the first part"):
        Assembler().take(wrong, 0)


def test_parts_of_what_ended_before_the_stored_place_are_passed_over_when_read_again():
    held = Assembler()
    assert held.take(part(1, 2), 0, again=True) is None
    assert held.take(part(0, 2, b"a", group=b"g" * 16, message_id=b"g" * 16), 0, again=True) is None
    assert held.take(part(1, 2, b"b", group=b"g" * 16), 0).payload == b"ab"


def test_a_message_whose_rest_does_not_come_is_given_up_by_the_logs_time():
    held = Assembler()
    held.take(part(0, 3), 1000)
    assert held.give_up(1000 + PATIENCE_MS) == []
    (told,) = held.give_up(1001 + PATIENCE_MS)
    assert (told.code, str(told)) == (Code.INCOMPLETE, "message of writer-1: 1 of its 3 parts came")
    assert told.message_id == str(uuid.UUID(bytes=GROUP))
    assert (held.floor(), held.give_up(10**15)) == (None, [])


def begin(held, number, size=4, **changes):
    group = number.to_bytes(16, "big")
    held.take(part(0, 2, bytes(size), group=group, message_id=group, offset=number, **changes), 0)


def test_a_source_gives_up_its_own_oldest_where_they_are_too_large_together(monkeypatch):
    monkeypatch.setattr(chunks, "MAX_HELD", 10)
    held, other = Assembler(), replace(PROFILE, source=AgentId("writer-2"))
    begin(held, 0, profile=other)
    for number in range(1, 5):
        begin(held, number)
    told = held.give_up(0)
    assert [str(each) for each in told] == ["message of writer-1: 1 of its 2 parts came"] * 2
    assert held.floor() == 0, "the other source's is untouched"
    assert held.give_up(0) == []


def test_a_source_has_so_many_unfinished_messages_and_costs_no_more():
    held = Assembler()
    given_up = 0
    for number in range(2000):
        begin(held, number, size=0)
        given_up += len(held.give_up(0))
    assert given_up == 2000 - chunks.MAX_GROUPS
    assert held.floor() == 2000 - chunks.MAX_GROUPS


def test_metadata_that_is_masked_otherwise_parts_no_message():
    held = Assembler()
    held.take(part(0, 2, b"a", profile=replace(PROFILE, metadata={"customer": "h1"})), 0)
    assert held.take(part(1, 2, b"b", profile=replace(PROFILE, metadata={"customer": "h2"})), 0).payload == b"ab"


@given(
    causes=st.lists(st.binary(min_size=16, max_size=16), max_size=3),
    reply_to=st.text(max_size=4),
    fields=st.lists(st.tuples(st.sampled_from(["", "x"]), st.sampled_from(["", "y"])), max_size=3),
    chunk=st.none() | st.builds(Chunk, st.just(bytes(16)), st.just(0), st.sampled_from([0, 2, 64, 256])),
)
def test_the_enforcer_tells_a_part_whatever_else_the_message_says(causes, reply_to, fields, chunk):
    message = Message(bytes(16), 1, 2, "s", tuple(causes), reply_to, (), "", chunk, tuple(fields))
    plain = encode_plaintext(encode_profile(PROFILE), encode_message(message), b"payload")
    _, begins, payload_size, *_ = envelope.split(plain)
    assert envelope.is_part(plain, begins, payload_size) is (chunk is not None)


@given(
    reply_to=st.text(max_size=10),
    tickets=st.lists(st.binary(max_size=20), max_size=3),
    trace=st.text(max_size=10),
    chunk=st.none()
    | st.builds(Chunk, st.binary(min_size=16, max_size=16), st.integers(0, 9), st.integers(0, 2**32 - 1)),
    fields=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=2),
    causes=st.lists(st.binary(min_size=16, max_size=16), max_size=3),
)
def test_a_part_is_told_from_a_plaintext_as_the_slow_reader_tells_it(reply_to, tickets, trace, chunk, fields, causes):
    message = Message(bytes(16), 1, 2, "s", tuple(causes), reply_to, tuple(tickets), trace, chunk, tuple(fields))
    plain = encode_plaintext(encode_profile(PROFILE), encode_message(message), b"payload")
    _, _, payload_size, _, _, causes_end = envelope.split(plain)
    assert envelope.chunk_of(plain, causes_end, payload_size) == chunk
    assert envelope.decode_envelope(envelope.unpad(plain)).message.chunk == chunk
