"""What a reader slices of a released plaintext: the compiled step gives what plain Python gives, or nothing."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.client.opening import sliced
from bus.errors import WireError
from bus.native import native
from bus.wire import codec, envelope
from bus.wire.envelope import Chunk, Message, Profile
from bus.wire.names import AgentId, DomainName

pytestmark = pytest.mark.skipif(native is None, reason="sealbus-native is not installed: no Rust compiler was found")
messages = st.builds(
    Message,
    message_id=st.binary(min_size=16, max_size=16),
    created_at=st.integers(0, 2**62),
    expires_at=st.integers(0, 2**62),
    correlation_id=st.text(max_size=20).filter(lambda text: len(text.encode()) <= 63),
    causation_ids=st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(tuple),
    reply_to=st.text(max_size=10),
    tickets=st.just(()),
    traceparent=st.just(""),
    chunk=st.none() | st.builds(Chunk, st.binary(min_size=16, max_size=16), st.integers(0, 9), st.integers(2, 10)),
)


def plain(message, payload=b"payload", cell=0, ticket=b"\0"):
    profile = envelope.encode_profile(Profile(AgentId("writer-1"), DomainName("notes"), metadata={"k": "v"}))
    framed = envelope.encode_plaintext(profile, envelope.encode_message(message), payload)[4:]
    return envelope.pad(b"d" * 10 + ticket + codec.prefixed(framed), cell)


@given(messages, st.binary(max_size=300), st.sampled_from([0, 64, 4096]))
def test_it_gives_what_plain_python_gives(message, payload, cell):
    made = plain(message, payload, cell)
    parts, ticket = sliced(made)
    assert native.released(made, envelope.MARK) == parts
    assert (ticket, parts[1], parts[8]) == (b"", message.message_id, payload)
    assert parts[2:4] == (message.created_at, message.expires_at)


@given(messages)
def test_a_ticket_is_left_to_plain_python(message):
    made = plain(message, ticket=codec.prefixed(b"ticket"))
    assert native.released(made, envelope.MARK) is None
    assert sliced(made)[1] == b"ticket"


@settings(max_examples=400)
@given(st.data())
def test_what_plain_python_refuses_it_does_not_take(data):
    made = bytearray(plain(data.draw(messages), cell=data.draw(st.sampled_from([0, 512]))))
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    made = bytes(made[: data.draw(st.integers(0, len(made)))] if data.draw(st.booleans()) else made)
    found = native.released(made, envelope.MARK)
    try:
        expected = sliced(made)[0]
    except WireError:
        assert found is None
    else:
        assert found in (None, expected)


def test_noise_is_not_taken():
    for size in range(200):
        assert native.released(os.urandom(size), envelope.MARK) is None
