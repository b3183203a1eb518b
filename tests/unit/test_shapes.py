"""Profiles of one shape: what is masked by slicing is what the codec would have given; all else is left to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import WireError
from bus.policy.masking import KEPT, mask_profile
from bus.wire import codec, envelope
from bus.wire.envelope import Kind, decode_profile, encode_profile
from consumers.enforcer.shapes import Shape
from tests.unit.build import READER, World, enforce, plaintext, profile_of, state

KEYS = st.sampled_from([*sorted(KEPT), "sender_ip", "routing_path", "request_id", "ü"])
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
REST = {"purpose": "care", "labels": ("a", "b"), "kind": Kind.TOOL_CALL, "target": READER, "delegation": b"d" * 70}


def data_of(metadata: dict[str, str], **changes: object) -> bytes:
    return encode_profile(profile_of(metadata=metadata, **{**REST, **changes}))


def by_codec(data: bytes, *, masked: bool) -> bytes:
    """The masked profile behind its length. Raises WireError."""
    return codec.prefixed(encode_profile(mask_profile(decode_profile(data), masked=masked)))


@given(st.dictionaries(KEYS, VALUES, min_size=1), st.data(), st.booleans())
def test_other_values_give_the_masked_profile_of_the_codec(metadata, data, masked):
    first = data_of(metadata)
    shape = Shape(first, decode_profile(first), masked=masked)
    other = data_of({key: data.draw(VALUES) for key in metadata})
    assert shape.masked(codec.prefixed(other)) == by_codec(other, masked=masked)
    assert shape.masked(codec.prefixed(first)) == by_codec(first, masked=masked)


@settings(max_examples=300)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), st.data())
def test_changed_bytes_are_left_to_the_codec_or_give_what_it_gives(metadata, data):
    first = data_of(metadata)
    shape = Shape(first, decode_profile(first), masked=True)
    changed = bytearray(codec.prefixed(first))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    masked = shape.masked(bytes(changed))
    if masked is not None:
        body, end = codec.read_prefixed(bytes(changed), 0, envelope.MAX_PROFILE)
        assert end == len(changed)
        assert masked == by_codec(body, masked=True)


@pytest.mark.parametrize(
    "other",
    [
        data_of({"locale": "en"}),
        data_of({"locale": "en", "sender_ip": "1", "zone": "x"}),
        data_of({"locale": "en", "sender_if": "1"}),
        data_of({"locale": "en", "sender_ip": "1"}, purpose="other"),
        data_of({"locale": "en", "sender_ip": "1"}, delegation=b""),
        data_of({"locale": "en", "sender_ip": "1"}) + b"\x00",
        data_of({"locale": "en", "sender_ip": "1"})[:-1],
        b"",
    ],
)
def test_a_profile_of_another_shape_is_left_to_the_codec(other):
    first = data_of({"locale": "de", "sender_ip": "10.0.0.1"})
    assert Shape(first, decode_profile(first), masked=True).masked(codec.prefixed(other)) is None


def test_a_value_that_is_not_utf_8_is_left_to_the_codec_which_refuses_it():
    first = data_of({"locale": "aaaa"})
    wrong = first.replace(b"aaaa", b"a\xff\xffa")
    assert Shape(first, decode_profile(first), masked=True).masked(codec.prefixed(wrong)) is None
    with pytest.raises(WireError):
        decode_profile(wrong)


def test_records_with_a_changing_metadata_value_are_decided_once_and_not_kept(monkeypatch):
    world = World()
    context, place, sealer = world.context(), state(), world.sealer()
    values = [sealer.seal(0, plaintext(metadata={"request_id": str(n), "locale": str(n)}))[1] for n in range(40)]
    outcomes = enforce(context, place, *values)
    assert len({id(each.decided.decision) for each in outcomes}) == 1
    assert len({each.decided.tail for each in outcomes}) == 1
    assert len(place.profiles) == 1
    for number, each in enumerate(outcomes):
        body, _ = codec.read_prefixed(each.decided.masked, 0, envelope.MAX_PROFILE)
        assert decode_profile(body).metadata == {"locale": str(number)}
