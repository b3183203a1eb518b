"""Payloads: what an agent hands in is what a reader gets by type; what is not JSON or does not fit is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict

from bus.client.delivery import Delivery
from bus.client.payload import BINARY, JSON, decode_payload, encode_payload
from bus.codes import Code
from bus.errors import Refused
from tests.unit.build import profile_of


class Note(BaseModel):
    text: str
    score: float = 0.5


@dataclasses.dataclass
class Point:
    x: int
    label: str = "p"


class Row(TypedDict):
    name: str
    count: int


class Loop:
    """A list that holds itself."""

    def __new__(cls) -> Any:
        made: list[Any] = []
        made.append(made)
        return made


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"a": [1, None, True, "ü", 1.5]}, dict),
        ([1, "two", {"three": 3}], list[Any]),
        (Note(text="prefers mail"), Note),
        (Point(3), Point),
        (Row(name="n", count=2), Row),
        ("text", str),
        (5, int),
        (None, type(None)),
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime),
        (uuid.UUID(int=5), uuid.UUID),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_payloads_come_back_by_their_type(payload, kind):
    data, content_type = encode_payload(payload)
    assert content_type == JSON
    assert decode_payload(data, content_type, kind) == payload
    assert decode_payload(data, content_type, None) == json.loads(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_carried_as_they_are(kind):
    raw = bytes(range(256))
    assert encode_payload(kind(raw)) == (raw, BINARY)
    assert decode_payload(raw, BINARY, None) == decode_payload(raw, BINARY, bytes) == raw


def test_bytes_may_be_asked_for_whatever_the_content_type():
    assert decode_payload(b'{"a":1}', JSON, bytes) == b'{"a":1}'


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats(-1e9, 1e9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_json_value_comes_back(value):
    data, content_type = encode_payload(value)
    assert content_type == JSON
    assert decode_payload(data, content_type, None) == json.loads(data) == value


@pytest.mark.parametrize(
    "payload",
    [object(), print, int, {"a": object()}, {"a": b"\xff"}, "\ud800", Loop(), ValueError("x")],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_refused(payload):
    with pytest.raises(Refused, match="expected bytes or what JSON can hold") as refused:
        encode_payload(payload)
    assert refused.value.code is Code.SCHEMA


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"a": [n]}])
def test_numbers_that_json_does_not_know_are_refused(number, wrap):
    with pytest.raises(Refused) as refused:
        encode_payload(wrap(number))
    assert refused.value.code is Code.SCHEMA


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"text": 5}', Note),
        (b"{}", Note),
        (b"[]", Note),
        (b'{"x": "three"}', Point),
        (b'{"name": "n"}', Row),
        (b'"text"', int),
        (b"", Note),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(data, kind):
    with pytest.raises(Refused, match=f"payload: not a {getattr(kind, '__name__', 'JSON')}") as refused:
        decode_payload(data, JSON, kind)
    assert refused.value.code is Code.SCHEMA


def test_a_refusal_says_nothing_of_the_payload():
    with pytest.raises(Refused) as refused:
        decode_payload(b'{"text": ["the secret"], "score": "the secret"}', JSON, Note)
    assert "2 fields do not fit" in str(refused.value)
    for shown in (str(refused.value), repr(refused.value), refused.value.hint):
        assert "the secret" not in shown
    assert refused.value.__suppress_context__


def test_a_delivery_gives_its_value_and_hides_its_payload():
    delivery = Delivery(
        profile=profile_of(metadata={"locale": "the secret"}),
        message_id=uuid.UUID(int=1).bytes,
        created_at=1,
        expires_at=2,
        correlation="s",
        causes=uuid.UUID(int=2).bytes + uuid.UUID(int=3).bytes,
        reply_to="",
        decision=bytes(10),
        epoch=1,
        place=(0, 0, 0),
        payload=b'{"text":"the secret"}',
    )
    assert (delivery.id, delivery.causation) == (uuid.UUID(int=1), (uuid.UUID(int=2), uuid.UUID(int=3)))
    assert (delivery.source, delivery.decision_id) == ("writer-1", "a" * 16)
    assert delivery.value(Note) == Note(text="the secret")
    assert delivery.value() == {"text": "the secret"}
    assert delivery.value(bytes) == delivery.payload
    assert "the secret" not in repr(delivery)
    with pytest.raises(Refused, match="not a Point"):
        delivery.value(Point)
