"""Avro payloads: what is read and refused, looked into, masked, indexed, sealed by fields, and what a reader gets."""

import contextlib
import io
import json
from decimal import Decimal

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import Refused, avro
from bus.client.payload import decode_payload, encode_payload
from bus.crypto.blind import values
from bus.guardrails.content import AVRO, Avro
from bus.guardrails.inspect import Inspection
from bus.guardrails.unpack import Unclear
from bus.policy.avrofields import AvroFields
from bus.policy.masking import mask_payload
from bus.policy.model import GuardrailRule, MaskRule
from bus.policy.sealedfields import Kept, Unsealed, is_sealed, open_fields, seal_fields

NONE: frozenset[str] = frozenset()
IBAN = "DE89370400440532013000"
CASE = {
    "type": "record",
    "name": "Case",
    "fields": [
        {"name": "iban", "type": "string", "default": "none"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
ITEM = {"type": "record", "name": "Item", "fields": [{"name": "score", "type": "double"}, {"name": "n", "type": "int"}]}
SCHEMA = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "case", "type": ["null", CASE]},
        {"name": "items", "type": {"type": "array", "items": ITEM}},
        {"name": "extra", "type": {"type": "map", "values": "string"}},
        {"name": "other", "type": ["null", "Case"], "default": None},
        {"name": "raw", "type": "bytes"},
        {"name": "phone", "type": "long"},
    ],
}
VALUE = {
    "id": "c-17",
    "case": {"iban": IBAN, "amount": b"\x30\x39", "note": "to jane@example.org"},
    "items": [{"score": 0.25, "n": 1}, {"score": float("inf"), "n": 2}],
    "extra": {"colour": "red"},
    "other": None,
    "raw": b"\xff mail joe@example.org",
    "phone": 1,
}
RULES = {("case", "iban"): "payments", ("items", "score"): "inference"}


def made(schema=SCHEMA, value=VALUE):
    return avro(schema, value).data


def seal(domain, way, value):
    return b"\1" + f"{domain}|{way}|".encode().ljust(60, b"_") + value


def opener(*held):
    def open_(domain, way, data):
        assert data[1:61] == f"{domain}|{way}|".encode().ljust(60, b"_")
        return data[61:] if domain in held else None

    return open_


def outside(payload):
    """As any reader of such files reads it."""
    (datum,) = fastavro.reader(io.BytesIO(payload))
    return datum


def test_a_datum_is_a_payload_that_any_reader_of_avro_reads():
    assert outside(made())["case"]["amount"] == Decimal("123.45")
    data, content_type = encode_payload(avro(SCHEMA, VALUE))
    assert decode_payload(data, content_type, None) == VALUE
    assert decode_payload(data, content_type, dict) == VALUE
    assert decode_payload(data, content_type, bytes) == data


def test_what_others_write_is_read():
    out = io.BytesIO()
    case = VALUE["case"] | {"amount": Decimal("123.45")}
    fastavro.writer(out, fastavro.parse_schema(SCHEMA), [VALUE | {"case": case}])
    assert decode_payload(out.getvalue(), AVRO, None) == VALUE


def files(*data, codec="null", **metadata):
    out = io.BytesIO()
    told = {"codec": codec, "metadata": metadata, "sync_marker": bytes(16)}
    fastavro.writer(out, fastavro.parse_schema({"type": "string"}), data, **told)
    return out.getvalue()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"Obj\x01",
        files(),
        files("a", "b"),
        files("a", codec="deflate"),
        files("a", note="jane@example.org"),
        files("a")[:-1],
        files("a") + b"\0",
        files("a")[:-1] + b"\1",
        files("a") + files("b"),
    ],
)
def test_anything_else_is_refused(payload):
    with pytest.raises(Unclear, match="expected"):
        Avro.read(payload)
    with pytest.raises(Refused, match="expected"):
        decode_payload(payload, AVRO, None)


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}


@pytest.mark.parametrize(
    "schema",
    [
        LIST,
        {"type": "array", "items": "null"},
        {"type": "array", "items": {"type": "record", "name": "E", "fields": []}},
        {"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "a", "type": "null"}]}},
        {"type": "array", "items": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}},
        {"type": "record", "name": "E", "fields": []},
        {"type": "record", "name": "E", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": "null"}]},
        {"type": "nothing"},
        5,
        None,
        [],
    ],
)
def test_no_schema_lets_few_bytes_hold_endlessly_much(schema):
    with pytest.raises(Refused, match="its Avro schema has no place for it"):
        avro(schema, None)
    end = b"\x02" * 500_000 + b"\0"
    file = {"magic": b"Obj\x01", "mark": bytes(16), "count": 1, "block": end, "end": bytes(16)}
    kind = {"type": "fixed", "name": "M", "size": 16}
    names = [
        ("magic", {"type": "fixed", "name": "O", "size": 4}),
        ("meta", {"type": "map", "values": "bytes"}),
        ("mark", kind),
        ("count", "long"),
        ("block", "bytes"),
        ("end", "M"),
    ]
    document = {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in names]}
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(document), file | {"meta": {"avro.schema": json.dumps(schema).encode()}}
    )
    with pytest.raises(Unclear, match="expected a datum as its Avro schema says"):
        Avro.read(out.getvalue())


@given(st.binary(max_size=200))
def test_no_bytes_behind_a_head_do_more_than_be_refused(data):
    for payload in (b"Obj\x01" + data, made()[: -20 - len(data)] + data):
        with contextlib.suppress(Unclear):
            assert Avro.read(payload).written()


def test_guardrails_look_into_strings_bytes_and_the_schema():
    mail = Inspection([GuardrailRule("mail", frozenset({"EMAIL"}), True, True, "redact")])
    schema = json.loads(json.dumps(SCHEMA))
    schema["doc"] = "by ann@example.org"
    told = mail.payload(made(schema), "application/octet-stream")
    got = outside(told.value)
    assert got["case"]["note"] == "to [EMAIL]"
    assert got["raw"] == b"\xff mail [EMAIL]"
    assert b"ann@" not in told.value
    assert told.counts == (("mail", "EMAIL", 3),)
    clean = made(value=VALUE | {"case": None, "raw": b""})
    assert mail.payload(clean, AVRO).value is clean
    for payload in (b"no file", files("jane@example.org", codec="deflate")):
        with pytest.raises(Unclear):
            mail.payload(payload, AVRO)
    deny = Inspection([GuardrailRule("mail", frozenset({"EMAIL"}), True, True, "deny")])
    assert deny.payload(made(), AVRO).denied == "mail"


def test_what_cannot_be_redacted_in_a_number_is_refused():
    cards = Inspection([GuardrailRule("cards", frozenset({"CREDIT_CARD"}), True, True, "redact")])
    with pytest.raises(Unclear, match="what was found cannot be redacted"):
        cards.payload(made(value=VALUE | {"phone": 4111111111111111}), AVRO)


def mask(how, *path):
    return [MaskRule("m", None, NONE, NONE, NONE, NONE, {path: how})]


def test_masks_change_fields_and_refuse_what_the_schema_has_no_place_for():
    got = outside(mask_payload(made(), mask("last4", "case", "iban"), b"k" * 32))
    assert got["case"]["iban"] == "********3000"
    got = outside(mask_payload(made(), mask("drop", "case", "note"), b"k" * 32))
    assert got["case"]["note"] is None
    assert outside(mask_payload(made(), mask("drop", "case", "iban"), b"k" * 32))["case"]["iban"] == "none"
    for rules in (mask("drop", "id"), mask("hash", "items", "n"), mask("hash", "raw")):
        with pytest.raises(ValueError, match="its Avro schema has no place for it"):
            mask_payload(made(), rules, b"k" * 32)
    assert mask_payload(made(), mask("drop", "absent"), b"") == made()


def test_the_blind_index_finds_values_in_avro():
    assert values(made(), ("id", "items.n")) == [("id", "c-17"), ("items.n", 1), ("items.n", 2)]
    assert values(made()[:-1], ("id",)) == []


def test_fields_are_sealed_and_each_reader_finds_what_it_holds_keys_of():
    sealed = seal_fields(made(), RULES, seal)
    got = outside(sealed)
    assert is_sealed(got["case"]["iban"], "payments")
    assert is_sealed(got["items"][1]["score"], "inference")
    assert (got["id"], got["case"]["amount"], got["items"][1]["n"]) == ("c-17", Decimal("123.45"), 2)
    assert IBAN.encode() not in sealed.replace(b"payments", b"")[: sealed.index(b"\x01payments")]
    assert open_fields(sealed, RULES, opener()) == sealed
    part = outside(open_fields(sealed, RULES, opener("inference")))
    assert part["items"] == VALUE["items"]
    assert is_sealed(part["case"]["iban"], "payments")
    whole = Avro.read(open_fields(sealed, RULES, opener("inference", "payments")))
    assert (whole.document, whole.value) == (SCHEMA, VALUE)


def test_fields_that_are_not_there_change_nothing():
    payload = made(value=VALUE | {"case": None, "items": []})
    assert seal_fields(payload, RULES, seal) == payload == open_fields(payload, RULES, opener("inference"))
    assert Kept(payload, RULES).without == payload


def test_what_is_not_sealed_is_named_and_what_is_is_kept_aside():
    with pytest.raises(Unsealed, match=r"^case\.iban$"):
        Kept(made(), RULES)
    with pytest.raises(ValueError, match=r"field case\.iban is not sealed"):
        open_fields(made(), RULES, opener("payments"))
    sealed = seal_fields(made(), RULES, seal)
    kept = Kept(sealed, RULES)
    assert b"\x01payments" not in kept.without
    assert kept.back(kept.without) == sealed
    masked = mask_payload(kept.without, mask("drop", "case", "note"), b"")
    assert outside(kept.back(masked))["case"]["iban"] == outside(sealed)["case"]["iban"]


@pytest.mark.parametrize(
    ("rules", "value", "match"),
    [
        ({("extra", "colour"): "d"}, VALUE, "colour is a key of a map"),
        ({("case", "iban"): "d"}, VALUE | {"other": VALUE["case"]}, "has no place"),
        ({("case", "iban"): "d", ("other", "iban"): "d"}, VALUE | {"other": VALUE["case"]}, "in another place"),
    ],
)
def test_what_a_schema_does_not_let_be_sealed_is_refused(rules, value, match):
    with pytest.raises(ValueError, match=match):
        seal_fields(made(value=value), rules, seal)


@pytest.mark.parametrize(
    "inner", [b"", b"{}", b'{"bytes": 5}', b'{"map": []}', b'"text"' + b"]", b"[" * 100_000, b'["text"]']
)
def test_what_was_sealed_and_is_no_value_of_its_field_is_refused(inner):
    sealed = seal_fields(made(), RULES, lambda domain, way, _: seal(domain, way, inner))
    with pytest.raises(ValueError, match=r"no value in a sealed field|has no place"):
        open_fields(sealed, RULES, opener("payments"))


def test_a_schema_with_endlessly_many_ways_to_a_field_is_walked_once():
    levels = [
        [{"type": "record", "name": f"R{level}_{each}", "fields": []} for each in range(12)] for level in range(8)
    ]
    for above, below in zip(levels, [*levels[1:], None], strict=True):
        for each in above:
            names = [one["name"] for one in below] if below is not None else "string"
            each["fields"].append({"name": "a", "type": names})
    document = [each for level in reversed(levels) for each in level]
    fields = AvroFields(document)
    fields.seal_type(("a",) * 8)
    assert str(document).count("sealbus.Sealed") == 12


def test_a_type_that_was_taken_out_of_the_schema_is_refused():
    content = Avro.read(seal_fields(made(), RULES, seal))
    del content.document["fields"][1]["type"][1]["fields"][0]["sealbus.was"]
    with pytest.raises(ValueError, match="what its type was is not there"):
        open_fields(content.written(), RULES, opener("payments"))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_comes_back_as_it_was(value):
    fields = AvroFields("null")
    again = fields.value_in(fields.value_out(value))
    assert repr(again) == repr(value)
