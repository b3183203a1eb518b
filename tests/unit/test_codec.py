"""Strict Avro: one encoding a value. What fastavro alone would take is refused, for every published schema.

Values are generated from the schema files; lengths are compared with an encoder written here from the Avro
specification (zig-zag, groups of seven bits, low group first).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec, hop, records
from bus.wire.schemas import SCHEMA_DIRECTORY, Schema, schema
from tests.unit import build  # noqa: F401  # no deadline for an example

SCHEMAS = sorted(path.name.removesuffix(".v1.avsc") for path in SCHEMA_DIRECTORY.glob("*.v1.avsc"))
LARGEST = 2**34 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def varint(number: int) -> bytes:
    """``number`` (not negative) in groups of seven bits, low group first."""
    groups = [number % 128]
    while number := number // 128:
        groups.append(number % 128)
    return bytes([*(each + 128 for each in groups[:-1]), groups[-1]])


def values(kind: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A strategy of values of an Avro schema (parsed JSON); ``named`` collects its named types."""
    if isinstance(kind, list):
        return st.one_of([values(each, named) for each in kind])
    if isinstance(kind, str):
        plain = {
            "null": st.none(),
            "boolean": st.booleans(),
            "int": st.integers(-(2**31), 2**31 - 1),
            "long": st.integers(-(2**63), 2**63 - 1),
            "bytes": st.binary(max_size=200),
            "string": TEXT,
        }
        return plain[kind] if kind in plain else values(named[kind], named)
    named[kind.get("name", "")] = kind
    if kind["type"] == "record":
        fields = {field["name"]: values(field["type"], named) for field in kind["fields"]}
        return st.fixed_dictionaries(fields)
    if kind["type"] == "array":
        return st.lists(values(kind["items"], named), max_size=4)
    if kind["type"] == "map":
        return st.dictionaries(TEXT, values(kind["values"], named), max_size=4)
    if kind["type"] == "fixed":
        return st.binary(min_size=kind["size"], max_size=kind["size"])
    return st.sampled_from(kind["symbols"]) if kind["type"] == "enum" else values(kind["type"], named)


STRATEGIES = {name: values(json.loads((SCHEMA_DIRECTORY / f"{name}.v1.avsc").read_text()), {}) for name in SCHEMAS}


def refused(call: Any, code: Code, *arguments: Any) -> None:
    with pytest.raises(WireError) as refusal:
        call(*arguments)
    assert refusal.value.code is code


def decoded(kind: Schema, data: bytes) -> tuple[Any, Code | None]:
    """The value in ``data``, or the code of its refusal; any other exception is a failure."""
    try:
        return codec.decode(kind, data), None
    except WireError as error:
        return None, error.code


# Lengths.
@given(st.integers(0, LARGEST), st.binary(max_size=4), st.binary(max_size=4))
@example(0, b"", b"")
@example(63, b"", b"\x00")
@example(64, b"\x80", b"\x80")
@example(LARGEST, b"", b"")
def test_a_length_in_its_shortest_form_is_read_back(count, before, after):
    written = varint(2 * count)
    assert codec.length(count) == written
    assert codec.read_length(before + written + after, len(before)) == (count, len(before) + len(written))


@given(
    st.one_of(st.binary(max_size=7), st.lists(st.sampled_from([0, 1, 2, 127, 128, 129, 255]), max_size=7).map(bytes))
)
def test_a_length_is_accepted_only_in_the_form_that_is_written(data):
    size = next((place for place, byte in enumerate(data, 1) if byte < 128), 0)
    number = sum((byte & 127) << 7 * place for place, byte in enumerate(data[:size]))
    if 1 <= size <= 5 and number % 2 == 0 and varint(number) == data[:size]:
        assert codec.read_length(data, 0) == (number // 2, size)
    else:
        refused(codec.read_length, Code.BOUNDS, data, 0)


def test_every_string_of_two_bytes_is_read_as_it_would_be_written():
    written = {varint(2 * count): count for count in range(8192)}
    for number in range(65536):
        data = number.to_bytes(2, "big")
        found = written.get(data, written.get(data[:1]))
        if found is None:
            refused(codec.read_length, Code.BOUNDS, data, 0)
        else:
            assert codec.read_length(data, 0) == (found, len(varint(2 * found)))


@given(st.integers(0, LARGEST), st.data())
def test_a_longer_form_of_a_length_is_refused(count, data):
    written = bytearray(varint(2 * count))
    written[-1] |= 128
    more = b"\x80" * data.draw(st.integers(0, 3)) + b"\x00"
    refused(codec.read_length, Code.BOUNDS, bytes(written) + more, 0)


@given(st.integers(1, LARGEST))
def test_a_negative_length_is_refused(count):
    refused(codec.read_length, Code.BOUNDS, varint(2 * count - 1), 0)


@given(st.integers(LARGEST + 1, 2**63))
def test_a_length_of_six_bytes_or_more_is_refused(count):
    assert len(varint(2 * count)) >= 6
    refused(codec.read_length, Code.BOUNDS, varint(2 * count), 0)


@given(st.integers(0, LARGEST))
def test_a_truncated_length_is_refused(count):
    for end in range(len(varint(2 * count))):
        refused(codec.read_length, Code.BOUNDS, varint(2 * count)[:end], 0)


def test_a_length_is_refused_with_the_code_of_whoever_reads_it():
    with pytest.raises(WireError) as refusal:
        codec.read_length(b"\x80", 0, code=Code.DECODE)
    assert refusal.value.code is Code.DECODE


@given(st.binary(max_size=200), st.binary(max_size=8), st.integers(0, 250))
def test_bytes_behind_their_length_are_read_up_to_the_limit(data, after, limit):
    written = codec.prefixed(data)
    if len(data) <= limit:
        assert codec.read_prefixed(written + after, 0, limit) == (data, len(written))
        if data:
            refused(codec.read_prefixed, Code.BOUNDS, written[:-1], 0, limit)
    else:
        refused(codec.read_prefixed, Code.BOUNDS, written + after, 0, limit)


def test_a_length_that_says_more_than_there_is_allocates_nothing():
    refused(codec.read_prefixed, Code.BOUNDS, varint(2 * LARGEST) + b"x", 0, LARGEST)


# Values of every schema.
@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=15)
@given(data=st.data())
def test_a_value_comes_back_and_nothing_may_follow_or_lack(name, data):
    kind, value = schema(name), data.draw(STRATEGIES[name])
    encoded = codec.encode(kind, value)
    assert codec.decode(kind, encoded) == value
    assert codec.decode_marked(kind, kind.head + encoded) == value
    refused(codec.decode, Code.DECODE, kind, encoded + data.draw(st.binary(min_size=1, max_size=3)))
    for end in {0, len(encoded) // 2, len(encoded) - 1}:
        refused(codec.decode, Code.DECODE, kind, encoded[:end])


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=40)
@given(data=st.data())
def test_changed_bytes_are_refused_or_are_what_their_value_is_written_as(name, data):
    kind = schema(name)
    encoded = bytearray(codec.encode(kind, data.draw(STRATEGIES[name])))
    place = data.draw(st.integers(0, len(encoded) - 1))
    match data.draw(st.sampled_from(["flip", "insert", "delete"])):
        case "flip":
            encoded[place] ^= data.draw(st.integers(1, 255))
        case "insert":
            encoded.insert(place, data.draw(st.integers(0, 255)))
        case _:
            del encoded[place]
    value, code = decoded(kind, bytes(encoded))
    assert code is Code.DECODE if value is None else codec.encode(kind, value) == encoded


@given(st.sampled_from(SCHEMAS), st.sampled_from(SCHEMAS), st.binary(max_size=20))
def test_a_marker_names_one_schema(name, other, body):
    kind = schema(name)
    if other != name:
        refused(codec.check_marker, Code.VERSION, kind, schema(other).head + body)
    refused(codec.check_marker, Code.BOUNDS, kind, kind.head[:9])
    codec.check_marker(kind, kind.head + body)


# What fastavro takes and this does not.
def profile(**changed: bytes) -> bytes:
    """The smallest profile, byte by byte; ``changed`` replaces the encoding of a field."""
    fields = [
        "source",
        "domain",
        "kind",
        "target",
        "tool",
        "task_type",
        "labels",
        "purpose",
        "tier_floor",
        "protect_at",
        "notify",
        "content_type",
        "schema",
        "metadata",
        "on_behalf_of",
        "delegation",
    ]
    assert not set(changed) - set(fields)
    return b"".join(changed.get(each, b"\x00") for each in fields)


PAIR = codec.text("a") + codec.text("1")
NON_CANONICAL = {
    "an enum index beyond the symbols": {"kind": varint(16)},
    "a negative enum index": {"kind": b"\x01"},
    "an enum index in a longer form": {"kind": b"\x82\x00"},
    "an enum index cut to 64 bits": {"kind": b"\x82" + b"\x80" * 9 + b"\x02"},
    "a boolean of 2": {"notify": b"\x02"},
    "a negative string length": {"purpose": b"\x01"},
    "a string length in a longer form": {"purpose": b"\x82\x00x"},
    "a string that is not UTF-8": {"purpose": b"\x02\xff"},
    "a string with a surrogate": {"purpose": b"\x06\xed\xa0\x80"},
    "an over-long NUL": {"purpose": b"\x04\xc0\x80"},
    "an array in two blocks": {"labels": b"\x02" + codec.text("a") + b"\x02" + codec.text("b") + b"\x00"},
    "an array block with its size": {"labels": b"\x01\x04" + codec.text("a") + b"\x00"},
    "an array block with a wrong size": {"labels": b"\x01\x7e" + codec.text("a") + b"\x00"},
    "an array's count in a longer form": {"labels": b"\x82\x00" + codec.text("a") + b"\x00"},
    "an empty array in a longer form": {"labels": b"\x80\x00"},
    "an array without its end": {"labels": b"\x04" + codec.text("a")},
    "an array of more items than there are": {"labels": varint(2**40) + codec.text("a")},
    "a map with a key twice": {"metadata": b"\x04" + PAIR + PAIR + b"\x00"},
    "a map in two blocks": {"metadata": b"\x02" + PAIR + b"\x02" + codec.text("b") + codec.text("2") + b"\x00"},
    "a map block with its size": {"metadata": b"\x01\x08" + PAIR + b"\x00"},
    "bytes longer than the rest": {"delegation": b"\x7e"},
}


@pytest.mark.parametrize("changed", NON_CANONICAL.values(), ids=NON_CANONICAL)
def test_another_encoding_is_refused(changed):
    refused(codec.decode, Code.DECODE, schema("profile"), profile(**changed))


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({}, "labels", []),
        ({"kind": varint(14)}, "kind", "ARTIFACT"),
        ({"notify": b"\x01"}, "notify", True),
        ({"purpose": b"\x04\xc3\xa9"}, "purpose", "é"),
        ({"labels": b"\x04" + codec.text("a") + codec.text("b") + b"\x00"}, "labels", ["a", "b"]),
        ({"metadata": b"\x02" + PAIR + b"\x00"}, "metadata", {"a": "1"}),
    ],
)
def test_the_same_field_in_its_one_encoding_is_accepted(changed, field, value):
    assert codec.decode(schema("profile"), profile(**changed))[field] == value


UNION = codec.encode(
    schema("dead_letter"),
    {
        "suite": b"\0\1",
        "offset": bytes(8),
        "append_time": bytes(8),
        "origin_digest": bytes(32),
        "code": "",
        "sealed": None,
    },
)


@pytest.mark.parametrize("branch", [b"\x04", b"\x01", b"\x80\x00", b"\x02"])
def test_a_union_branch_that_is_not_there_is_refused(branch):
    assert codec.decode(schema("dead_letter"), UNION)["sealed"] is None
    refused(codec.decode, Code.DECODE, schema("dead_letter"), UNION[:-1] + branch)


# Codes of the registry, as values.
def dead_letter(code: str) -> bytes:
    made = records.DeadLetter(7, 8, bytes(32), Code.MAC).encode()
    return made.replace(codec.text("mac"), codec.text(code))


def verdict(code: str) -> bytes:
    made = records.Verdict(
        bytes(16), 1, 2, bytes(16), 3, bytes(10), hop.Verdict.DENY, Code.MAC, rule="r", obligations=("o",)
    ).encode()
    return made.replace(codec.text("mac"), codec.text(code))


def one_hop(code: str, facts: bytes = b"\x00") -> bytes:
    """A hop of zeros up to its topic: 150 bytes, an empty correlation id, no causes."""
    tail = hop.encode_tail(hop.HopTail("memory.in", hop.Verdict.DENY, Code.MAC, "", "", 1, bytes(32)))
    tail = tail.replace(codec.text("mac"), codec.text(code))
    return bytes(152) + tail[:-3] + facts + tail[-2:]


CODED = {
    "dead letter": (records.parse_dead_letter, dead_letter),
    "verdict": (records.parse_verdict, verdict),
    "hop": (hop.decode_hop, one_hop),
}


@pytest.mark.parametrize(("parse", "make"), CODED.values(), ids=CODED)
def test_a_code_of_the_registry_is_read(parse, make):
    found = parse(make("mac"))
    assert (found.tail.code if isinstance(found, hop.Hop) else found.code) is Code.MAC


@pytest.mark.parametrize(("parse", "make"), CODED.values(), ids=CODED)
def test_a_code_that_the_registry_does_not_know_is_refused(parse, make):
    refused(parse, Code.DECODE, make("nonsense"))


def test_the_facts_of_a_hop_stand_in_the_order_of_their_names():
    two = codec.text("a") + codec.text("1"), codec.text("b") + codec.text("2")
    assert hop.decode_hop(one_hop("mac", b"\x04" + two[0] + two[1] + b"\x00")).tail.facts == {"a": "1", "b": "2"}
    refused(hop.decode_hop, Code.DECODE, one_hop("mac", b"\x04" + two[1] + two[0] + b"\x00"))


def test_a_hop_is_named_by_its_origin_digest():
    whole = one_hop("mac")
    assert hop.decode_hop(whole).decision_id == "a" * 16
    refused(hop.decode_hop, Code.DECODE, b"\x01" + whole[1:])
