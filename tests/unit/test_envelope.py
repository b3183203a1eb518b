"""Envelopes: stepping over one by its lengths and decoding it whole agree on every byte string, honest or not.

``split`` is what the enforcer runs and copies on unread; ``decode_envelope`` is the complete reader. Did they differ,
an agent could pass bytes that no reader is meant to see, or break whoever reads them later.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec, envelope
from bus.wire.envelope import Chunk, Envelope, Kind, Message, Profile, ProtectAt
from bus.wire.names import Tier
from tests.unit.build import message_of, profile_of

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=50, max_size=63)
SHORT = st.one_of(st.just(""), ANY_TEXT.filter(lambda text: len(text.encode()) <= 63), ASCII)
ID = st.binary(min_size=16, max_size=16)
MILLIS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**64 - 1]))

PROFILES = st.builds(
    Profile,
    source=ANY_TEXT,
    domain=ANY_TEXT,
    kind=st.sampled_from(Kind),
    target=ANY_TEXT,
    tool=ANY_TEXT,
    task_type=ANY_TEXT,
    labels=st.lists(ANY_TEXT, max_size=4).map(tuple),
    purpose=ANY_TEXT,
    tier_floor=st.one_of(st.none(), st.sampled_from(Tier)),
    protect_at=st.sampled_from(ProtectAt),
    notify=st.booleans(),
    content_type=ANY_TEXT,
    schema=st.sampled_from([b"", b"12345678"]),
    metadata=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4),
    on_behalf_of=st.sampled_from([b"", bytes(32)]),
    delegation=st.binary(max_size=100),
)
MESSAGES = st.builds(
    Message,
    message_id=ID,
    created_at=MILLIS,
    expires_at=MILLIS,
    correlation_id=SHORT,
    causation_ids=st.one_of(st.lists(ID, max_size=3), ID.map(lambda one: [one] * 63)).map(tuple),
    reply_to=SHORT,
    tickets=st.lists(st.one_of(st.binary(max_size=70), st.just(b"t" * 512)), max_size=16).map(tuple),
    traceparent=SHORT,
    chunk=st.one_of(st.none(), st.builds(Chunk, ID, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))),
    field_protection=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=32).map(tuple),
)


def written(told: Envelope, cell: int = 0) -> bytes:
    """The frame of an envelope."""
    parts = envelope.encode_profile(told.profile), envelope.encode_message(told.message)
    return envelope.encode_plaintext(*parts, told.payload, cell)


def refused(error: WireError) -> None:
    """Whatever is wrong with an envelope has one code."""
    assert error.code is Code.DECODE


def stepped_over(plain: bytes, known: bytes = b"") -> tuple[envelope.Split, Profile] | None:
    """What the enforcer makes of a plaintext (split, then decode the profile), or None where it refuses."""
    try:
        found = envelope.split(plain, known)
        profile, _ = codec.read_prefixed(found[0], 0, envelope.MAX_PROFILE, code=Code.DECODE)
        return found, envelope.decode_profile(profile)
    except WireError as error:
        return refused(error)


def read_whole(plain: bytes) -> Envelope | None:
    """What a reader makes of it, or None where it refuses."""
    try:
        return envelope.decode_envelope(envelope.unpad(plain))
    except WireError as error:
        return refused(error)


def agree(plain: bytes) -> Envelope | None:
    """Both refuse, or both agree and the bytes are the only ones that this envelope is written as."""
    stepped, whole = stepped_over(plain), read_whole(plain)
    assert (stepped is None) is (whole is None), "one accepts what the other refuses"
    if stepped is None or whole is None:
        return None
    (_, message, payload, session, causes, causes_end), profile = stepped
    assert profile == whole.profile
    assert plain[message : message + 16] == whole.message.message_id
    assert int.from_bytes(plain[message + 16 : message + 24], "big") == whole.message.created_at
    assert int.from_bytes(plain[message + 24 : message + 32], "big") == whole.message.expires_at
    assert session == whole.message.correlation_id.encode()
    assert plain[causes:causes_end] == codec.encode(CAUSES, list(whole.message.causation_ids))
    assert codec.read_prefixed(plain, payload, len(plain))[0] == whole.payload
    once = written(whole)
    assert once + bytes(len(plain) - len(once)) == plain, "a covert channel"
    return whole


CAUSES = codec.Schema("causes", {"type": "array", "items": {"type": "fixed", "name": "Id", "size": 16}}, b"")


@settings(max_examples=150)
@given(PROFILES, MESSAGES, st.binary(max_size=300), st.sampled_from([0, 1, 64, 4352]))
@example(profile_of(), message_of(), b"", 0)
def test_both_readers_give_back_what_was_written(profile, message, payload, cell):
    told = Envelope(profile, message, payload)
    assert agree(written(told, cell)) == told


@given(PROFILES, PROFILES, MESSAGES)
def test_a_known_profile_is_found_again_and_changes_nothing(profile, other, message):
    plain = written(Envelope(profile, message, b"payload"))
    known = codec.prefixed(envelope.encode_profile(profile))
    found = envelope.split(plain, known)
    assert found[0] is known, "the same object, so that its decision is found by identity"
    assert found == envelope.split(plain)
    assert envelope.split(plain, codec.prefixed(envelope.encode_profile(other))) == found


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "insert", "delete", "cut"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1,
    max_size=3,
)


def changed(plain: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    data = bytearray(plain)
    for how, where, byte in changes:
        place = min(int(where * len(data)), max(len(data) - 1, 0))
        if not data:
            break
        if how == "flip":
            data[place] ^= 1 << byte % 8
        elif how == "set":
            data[place] = byte
        elif how == "insert":
            data.insert(place, byte)
        elif how == "delete":
            del data[place]
        else:
            del data[place:]
    return bytes(data)


@settings(max_examples=800)
@given(PROFILES, MESSAGES, st.binary(max_size=40), CHANGES, st.sampled_from([0, 64]), st.booleans())
def test_both_readers_agree_on_changed_bytes(profile, message, payload, changes, cell, same_length):
    """``same_length`` writes the frame's own length anew, so that the change reaches the envelope behind it."""
    content = envelope.unpad(written(Envelope(profile, message, payload)))
    agree(changed(envelope.pad(content, cell), changes))
    broken = changed(content, changes)
    agree(envelope.pad(broken, cell if same_length else 0))


FULL = Envelope(
    profile_of(metadata={"a": "1", "b": "2"}, labels=("x", "y"), delegation=b"token"),
    message_of(
        causation_ids=(bytes(16), b"c" * 16),
        reply_to="notes",
        tickets=(b"one", b"two"),
        traceparent="00-trace",
        chunk=Chunk(b"g" * 16, 1, 2),
        field_protection=(("a.b", "mask"), ("c", "hash")),
    ),
    b"payload",
)


def test_both_readers_agree_on_every_change_of_one_byte():
    plain = written(FULL, 16)
    assert agree(plain) == FULL
    for place in range(len(plain)):
        for byte in {0, 1, 2, 4, 32, 126, 127, 128, 254, 255, plain[place] ^ 1, plain[place] + 2 & 255}:
            agree(plain[:place] + bytes([byte]) + plain[place + 1 :])
        agree(plain[:place] + plain[place + 1 :])
        agree(plain[:place])
        content = envelope.unpad(plain)
        if place < len(content):
            agree(envelope.pad(content[:place] + content[place + 1 :]))
            for byte in (0, 1, 2, 128):
                agree(envelope.pad(content[:place] + bytes([byte]) + content[place:]))


@pytest.mark.parametrize("end", range(1, 256))
def test_an_array_of_causes_ends_with_a_zero(end):
    content = envelope.unpad(written(FULL))
    place = content.index(b"c" * 16) + 16
    assert content[place] == 0
    assert agree(envelope.pad(content[:place] + bytes([end]) + content[place + 1 :])) is None


# Bounds: the last value that is written and read, and the first that is neither.
def raw(profile: bytes = envelope.encode_profile(profile_of()), **changed: bytes) -> bytes:
    """The frame of an envelope whose writer knows no bounds; ``changed`` replaces the encoding of a part."""
    parts = {
        "fixed": bytes(16) + (1).to_bytes(8, "big") + (2).to_bytes(8, "big"),
        "correlation": b"\x00",
        "causes": b"\x00",
        "reply_to": b"\x00",
        "tickets": b"\x00",
        "trace": b"\x00",
        "chunk": b"\x00",
        "protection": b"\x00",
        "payload": b"\x00",
    }
    assert not set(changed) - set(parts)
    return envelope.pad(envelope.MARK + codec.prefixed(profile) + b"".join((parts | changed).values()))


def block(*items: bytes) -> bytes:
    """An Avro array or map of one block."""
    return codec.length(len(items)) + b"".join(items) + b"\x00"


def text(size: int) -> bytes:
    return codec.prefixed(b"x" * size)


WIRE_BOUNDS = {
    "correlation id": ({"correlation": text(63)}, {"correlation": text(64)}),
    "reply_to": ({"reply_to": text(63)}, {"reply_to": text(64)}),
    "traceparent": ({"trace": text(63)}, {"trace": text(64)}),
    "causes": ({"causes": block(*[bytes(16)] * 63)}, {"causes": block(*[bytes(16)] * 64)}),
    "tickets": ({"tickets": block(*[text(1)] * 16)}, {"tickets": block(*[text(1)] * 17)}),
    "a ticket": ({"tickets": block(text(512))}, {"tickets": block(text(513))}),
    "protection": ({"protection": block(*[text(1) * 2] * 32)}, {"protection": block(*[text(1) * 2] * 33)}),
    "a path": ({"protection": block(text(16384) + text(0))}, {"protection": block(text(16385) + text(0))}),
    "a chunk": ({"chunk": b"\x02" + bytes(24)}, {"chunk": b"\x04" + bytes(24)}),
    "payload": ({"payload": text(70000)}, {"payload": text(70000)[:-1]}),
}


@pytest.mark.parametrize(("within", "beyond"), WIRE_BOUNDS.values(), ids=WIRE_BOUNDS)
def test_a_bound_on_the_wire_is_reached_and_not_passed(within, beyond):
    assert agree(raw(**within)) is not None
    assert agree(raw(**beyond)) is None


NOT_CANONICAL = {
    "another marker": envelope.pad(b"\xc3\x01" + bytes(300)),
    "a correlation id in a longer form": raw(correlation=b"\x82\x00x"),
    "a negative correlation id": raw(correlation=b"\x01"),
    "a correlation id that is not UTF-8": raw(correlation=b"\x02\xff"),
    "a reply_to that is not UTF-8": raw(reply_to=b"\x02\xff"),
    "a traceparent that is not UTF-8": raw(trace=b"\x04\xc0\x80"),
    "a path with a surrogate": raw(protection=block(b"\x06\xed\xa0\x80" + text(0))),
    "a correlation id of 64 bytes behind one byte": raw(correlation=b"\x80" + b"x" * 64),
    "a reply_to of 64 bytes behind one byte": raw(reply_to=b"\x80" + b"x" * 64),
    "a traceparent of 64 bytes behind one byte": raw(trace=b"\x80" + b"x" * 64),
    "64 causes behind one byte": raw(causes=b"\x80" + bytes(64 * 16 + 1)),
    "causes with the size of their block": raw(causes=b"\x01\x20" + bytes(17)),
    "causes in two blocks": raw(causes=(b"\x02" + bytes(16)) * 2 + b"\x00"),
    "no tickets in a longer form": raw(tickets=b"\x80\x00"),
    "tickets in two blocks": raw(tickets=(b"\x02" + text(1)) * 2 + b"\x00"),
    "a ticket's length in a longer form": raw(tickets=block(b"\x82\x00x")),
    "protection in two blocks": raw(protection=(b"\x02" + text(1) * 2) * 2 + b"\x00"),
    "a union branch in a longer form": raw(chunk=b"\x82\x00" + bytes(24)),
    "a payload's length in a longer form": raw(payload=b"\x82\x00x"),
    "a byte after the payload": raw(payload=b"\x00\x00"),
    "nothing": b"",
    "a length alone": bytes(4),
    "less than a length": bytes(3),
    "a marker alone": envelope.pad(envelope.MARK),
}


@pytest.mark.parametrize("plain", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_another_encoding_is_refused_by_both_readers(plain):
    assert agree(raw()) is not None
    assert agree(plain) is None


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ({"correlation_id": "é" * 31}, {"correlation_id": "é" * 32}),
        ({"reply_to": "x" * 63}, {"reply_to": "x" * 64}),
        ({"traceparent": "x" * 63}, {"traceparent": "x" * 64}),
        ({"causation_ids": (bytes(16),) * 63}, {"causation_ids": (bytes(16),) * 64}),
        ({"tickets": (b"",) * 16}, {"tickets": (b"",) * 17}),
        ({"tickets": (bytes(512),)}, {"tickets": (bytes(513),)}),
        ({"field_protection": (("", ""),) * 32}, {"field_protection": (("", ""),) * 33}),
    ],
)
def test_a_writer_refuses_a_message_that_a_reader_would_refuse(within, beyond):
    told = Envelope(profile_of(), message_of(**within), b"")
    assert agree(written(told)) == told
    with pytest.raises(WireError) as refusal:
        envelope.encode_message(message_of(**beyond))
    assert refusal.value.code is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ({"labels": ("x",) * 32}, {"labels": ("x",) * 33}),
        ({"metadata": {str(n): "" for n in range(64)}}, {"metadata": {str(n): "" for n in range(65)}}),
        ({"delegation": bytes(16384 - 48)}, {"delegation": bytes(16384 - 47)}),
    ],
)
def test_a_writer_refuses_a_profile_that_a_reader_would_refuse(within, beyond, monkeypatch):
    told = Envelope(profile_of(**within), message_of(), b"")
    if "delegation" in within:
        assert len(envelope.encode_profile(told.profile)) == envelope.MAX_PROFILE
    assert agree(written(told)) == told
    with pytest.raises(WireError) as refusal:
        envelope.encode_profile(profile_of(**beyond))
    assert refusal.value.code is Code.TOO_LARGE
    monkeypatch.setattr(envelope, "MAX_LABELS", 99)
    monkeypatch.setattr(envelope, "MAX_METADATA", 99)
    monkeypatch.setattr(envelope, "MAX_PROFILE", 99999)
    plain = written(Envelope(profile_of(**beyond), message_of(), b""))
    monkeypatch.undo()
    assert agree(plain) is None


def test_metadata_keys_out_of_order_are_refused():
    data = envelope.encode_profile(profile_of(metadata={"a": "1", "b": "2"}))
    first, second = codec.text("a") + codec.text("1"), codec.text("b") + codec.text("2")
    assert agree(raw(data)) is not None
    assert agree(raw(data.replace(first + second, second + first))) is None


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=6), st.randoms())
def test_the_order_in_which_metadata_was_given_leaves_no_trace(metadata, random):
    shuffled = list(metadata.items())
    random.shuffle(shuffled)
    one, other = profile_of(metadata=metadata), profile_of(metadata=dict(shuffled))
    assert envelope.encode_profile(one) == envelope.encode_profile(other)


# The frame.
@given(st.binary(max_size=300), st.integers(0, 128))
def test_a_frame_fills_its_cell_and_comes_back(data, cell):
    framed = envelope.pad(data, cell)
    assert envelope.unpad(framed) == data
    assert framed == len(data).to_bytes(4, "big") + data + bytes(len(framed) - 4 - len(data))
    assert len(framed) % cell == 0 if cell else len(framed) == len(data) + 4
    assert not cell or len(framed) - 4 - len(data) < cell


@given(st.binary(max_size=60), st.integers(1, 64), st.data())
def test_padding_is_zeros_and_nothing_else(data, cell, draw):
    framed = bytearray(envelope.pad(data, cell) + bytes(1))
    assert envelope.unpad(bytes(framed)) == data, "a reader does not know the cell"
    place = draw.draw(st.integers(4 + len(data), len(framed) - 1))
    framed[place] = draw.draw(st.integers(1, 255))
    with pytest.raises(WireError) as refusal:
        envelope.unpad(bytes(framed))
    assert refusal.value.code is Code.DECODE


@given(st.binary(max_size=20), st.integers(1, 2**32 - 21))
def test_a_frame_that_says_more_than_there_is_is_refused(data, more):
    with pytest.raises(WireError) as refusal:
        envelope.unpad((len(data) + more).to_bytes(4, "big") + data)
    assert refusal.value.code is Code.DECODE


def test_kinds_with_a_target_are_calls_and_tools():
    told = {Kind.RPC_REQUEST, Kind.RPC_REPLY, Kind.TOOL_CALL, Kind.TOOL_RESULT}
    assert {kind for kind in Kind if kind.targeted} == told


def test_an_envelopes_repr_shows_no_payload():
    assert "payload" not in repr(replace(FULL, payload=b"secret"))
    assert "secret" not in repr(replace(FULL, payload=b"secret"))
