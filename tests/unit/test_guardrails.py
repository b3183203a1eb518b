"""What guardrails make of payloads and metadata: what is found goes, in whatever form it stands, and the rest stays."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.guardrails.inspect import Inspection
from bus.guardrails.scanner import Span
from bus.guardrails.unpack import MAX_DEPTH, Unclear
from tests.unit import build  # noqa: F401  # no deadline for an example
from tests.unit.forms import (
    BINARY,
    FLAG,
    FORMS,
    JSON,
    MAIL,
    REDACT,
    SECRETS,
    TEXT,
    Escaped,
    encoded,
    found,
    layers,
    rule,
    says,
    write,
)
from tests.unit.test_detectors import steps


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_redacted_stands_nowhere_in_the_output_in_any_form(form, kind):
    secret = SECRETS[kind]
    data = write(FORMS[form](secret)).encode()
    assert says(data, secret) == [secret], "the test sees it in the input"
    told = REDACT.payload(data, JSON)
    assert found(told) == {kind: 1}
    assert says(told.value, secret) == []
    assert any(f"[{kind}]" in text for text in layers(told.value))
    assert not told.denied


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_around_it_stays(form):
    told = REDACT.payload(
        write({"before": "zwölf", "x": FORMS[form](MAIL), "after": [1, 2.5, None, True]}).encode(), JSON
    )
    parsed = json.loads(told.value)
    assert (parsed["before"], parsed["after"]) == ("zwölf", [1, 2.5, None, True])
    assert list(parsed) == ["before", "x", "after"]


def test_a_text_is_redacted_in_its_place():
    data = write({"note": f"from {MAIL} to x@y.example, 219-09-9999."}).encode()
    assert REDACT.payload(data, JSON).value == b'{"note": "from [EMAIL] to [EMAIL], [SSN]."}'
    assert found(REDACT.payload(data, JSON)) == {"EMAIL": 2, "SSN": 1}


@pytest.mark.parametrize("kind", [kind for kind in SECRETS if len(SECRETS[kind]) < 12])
def test_base64_of_a_short_text_hides_nothing(kind):
    data = write({"note": encoded(SECRETS[kind])}).encode()
    told = REDACT.payload(data, JSON)
    assert says(told.value, SECRETS[kind]) == []
    assert found(told) == {kind: 1}


@pytest.mark.parametrize("number", ["5105105105105100", "5105105105105100.0", "5.1051051051051e15"])
def test_a_number_is_looked_at(number):
    told = REDACT.payload(b'{"card": %s, "n": 1}' % number.encode(), JSON)
    assert found(told) == {"CREDIT_CARD": 1}
    assert "[CREDIT_CARD]" in json.loads(told.value)["card"]
    assert says(told.value, "5105105105105100") == []


@pytest.mark.parametrize("number", ["5105105105105101", "-1", "0", "1e300", "123456", "true", "0.5105105105105100"])
def test_a_number_that_is_none_of_the_types_stays(number):
    data = b'{"n": %s}' % number.encode()
    assert REDACT.payload(data, JSON).value == data


def test_a_number_in_json_in_a_text_is_looked_at():
    told = REDACT.payload(write({"note": '{"card": 5105105105105100}'}).encode(), JSON)
    assert says(told.value, "5105105105105100") == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("form", ["value", "escaped", "base64 of JSON"])
def test_json_in_another_encoding_is_read(encoding, form):
    data = write(FORMS[form](MAIL)).encode(encoding)
    told = REDACT.payload(data, JSON)
    assert found(told) == {"EMAIL": 1}
    assert says(told.value, MAIL) == []
    harmless = write({"note": "nothing"}).encode(encoding)
    assert REDACT.payload(harmless, JSON).value == harmless


@pytest.mark.parametrize("content_type", [JSON, "application/JSON", "application/ld+json; charset=utf-8", "text/json"])
def test_every_content_type_of_json_is_walked(content_type):
    data = write([MAIL, Escaped(MAIL)]).encode()
    told = REDACT.payload(data, content_type)
    assert (found(told), says(told.value, MAIL)) == ({"EMAIL": 2}, [])


# Not JSON.
@pytest.mark.parametrize("content_type", [TEXT, BINARY, "", "text/csv"])
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (f"from {MAIL}, 219-09-9999\n", "from [EMAIL], [SSN]\n"),
        (f'say "{MAIL}" {{', 'say "[EMAIL]" {'),
        (f"zwölf {MAIL} 😀", "zwölf [EMAIL] 😀"),
        (write({"inner": MAIL}), '{"inner": "[EMAIL]"}'),
        (write({"inner": Escaped(MAIL)}), '{"inner":"[EMAIL]"}'),
        (write([1, Escaped(MAIL)]), '[1,"[EMAIL]"]'),
        (encoded(f"so: {MAIL}"), encoded("so: [EMAIL]")),
    ],
)
def test_a_text_is_scanned_as_it_stands_and_unpacked_once(content_type, payload, expected):
    told = REDACT.payload(payload.encode(), content_type)
    made = told.value.decode()
    if expected[0] in "[{":  # where JSON is written anew its white space may go
        made, expected = json.loads(made), json.loads(expected)
    assert made == expected


@pytest.mark.parametrize("content_type", [TEXT, BINARY])
@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x80" + MAIL.encode(), MAIL.encode() + b" \xc3", b"caf\xe9 " * 3])
def test_bytes_that_are_no_utf_8_are_scanned_where_they_are_text_and_kept_where_not(content_type, data):
    told = REDACT.payload(data, content_type)
    assert told.value == data.replace(MAIL.encode(), b"[EMAIL]")
    assert found(told) == ({"EMAIL": 1} if MAIL.encode() in data else {})


# Nothing to redact: the very bytes.
HARMLESS = [
    b'{ "a" : 1.50,\n "b" : "caf\\u00e9 \\/", "c": [1e2, -0, 12345678901234567890] }\n',
    b'"only a text"',
    b"null",
    b"[]",
    b"12",
    b'{"a": "{ \\"b\\" : 1.0 }"}',
    write({"a": encoded('{ "b" : 1.0 }')}).encode(),
    write({"a": encoded("sixteen and more").rstrip("=")}).encode(),
]


@pytest.mark.parametrize("data", HARMLESS)
@pytest.mark.parametrize("content_type", [JSON, TEXT])
@pytest.mark.parametrize("inspection", [REDACT, FLAG])
def test_a_payload_in_which_nothing_is_found_is_the_very_same_bytes(data, content_type, inspection):
    told = inspection.payload(data, content_type)
    assert told.value is data
    assert (told.counts, told.denied) == ((), "")


@pytest.mark.parametrize("then", ["flag", "deny"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_only_flagged_or_denied_changes_no_byte(form, then):
    data = write(FORMS[form](MAIL)).encode()
    told = Inspection([rule("keys", "EMAIL", then=then)]).payload(data, JSON)
    assert told.value is data
    assert told.counts == (("keys", "EMAIL", 1),), "each is counted once, though a text in a text is read twice"
    assert told.denied == ("keys" if then == "deny" else "")


# A redaction at one level hides nothing at the next.
MIXED = {
    "JSON in a text": lambda text: {"note": text},
    "base64 of JSON": lambda text: {"note": encoded(text)},
    "JSON in a key": lambda text: {text: 1},
}


@pytest.mark.parametrize("form", MIXED)
def test_what_is_redacted_as_it_stands_does_not_keep_what_is_packed_beside_it(form):
    inner = write({"a": "x@y.example", "b": Escaped(MAIL), "c": "219-09-9999"})
    told = REDACT.payload(write(MIXED[form](inner)).encode(), JSON)
    assert says(told.value, MAIL, "x@y.example", "219-09-9999") == []
    assert found(told) == {"EMAIL": 2, "SSN": 1}


@pytest.mark.parametrize("content_type", [TEXT, BINARY])
def test_json_that_says_it_is_text_is_unpacked_even_where_something_stands_open_in_it(content_type):
    told = REDACT.payload(write({"a": "x@y.example", "b": Escaped(MAIL)}).encode(), content_type)
    assert says(told.value, MAIL, "x@y.example") == []


PARTS = st.sampled_from([*SECRETS.values(), "555-123-4567", "x1", "x 12345", "ext. 5", "is", "= 5", "secret", "call"])


@given(st.lists(PARTS, min_size=1, max_size=3))
@example(["+49 30 901820", "x1"])
@example(["+49 30 901820", "ext 12"])
@example(["password is", "Zx9qLmT4vB7nKc2w"])
@example(["call", "4155550100"])
@example(["order number", "415-555-0100"])
def test_each_text_of_a_document_is_looked_at_by_itself(parts):
    """What stands in the next field changes nothing about this one."""
    alone: Counter[str] = Counter()
    for part in parts:
        alone.update(found(REDACT.payload(write([part]).encode(), JSON)))
    assert found(REDACT.payload(write(parts).encode(), JSON)) == dict(alone)


def test_two_keys_that_are_redacted_alike_both_keep_what_stands_under_them():
    told = REDACT.payload(write({"x@y.example": 1, MAIL: 2, "[EMAIL]": 3}).encode(), JSON)
    assert says(told.value, MAIL, "x@y.example") == []
    assert sorted(json.loads(told.value).values()) == [1, 2, 3]


def test_twice_as_many_keys_that_are_redacted_alike_take_twice_as_many_steps():
    """A record holds 70,000 of them: one that looks at all names before it would hold up its partition for minutes."""

    def redacted(count: int) -> Any:
        data = write({f"a{number}@b.io": number for number in range(count)}).encode()
        return json.loads(REDACT.payload(data, JSON).value)

    made = redacted(400)
    assert list(made.values()) == list(range(400))
    assert list(made) == ["[EMAIL]", *(f"[EMAIL] {number}" for number in range(2, 401))]
    assert steps(lambda: redacted(800)) < 2.5 * steps(lambda: redacted(400))


def test_keys_that_are_redacted_alike_do_not_take_the_place_of_one_that_reads_like_their_number():
    told = REDACT.payload(write({"a@b.io": 1, "[EMAIL] 2": 2, "c@b.io": 3, "[EMAIL] 3": 4, "d@b.io": 5}).encode(), JSON)
    assert sorted(json.loads(told.value).values()) == [1, 2, 3, 4, 5]


def test_a_redacted_document_is_json_for_every_reader():
    """Python reads 1e400 as infinity, and writes that as a word that no other reader knows."""

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    try:
        told = REDACT.payload(b'{"n": 1e400, "note": "ops-desk@example.org"}', JSON)
    except Unclear:
        return
    assert says(told.value, MAIL) == []
    json.loads(told.value, parse_constant=no_constant)


# What is unclear.
def nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


HUGE = '{"n": ' + "1" * 5000 + ', "note": ' + write(Escaped(MAIL)) + "}"
UNCLEAR = {
    "no JSON": b"{",
    "text": b"hello",
    "empty": b"",
    "two documents": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "no UTF-8": b'{"a": "\xff"}',
    "cut off": write({"note": MAIL}).encode()[:-1],
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, written otherwise": b'{"a": 1, "\\u0061": 2}',
    "a key twice, deep": b'[{"b": {"a": 1, "a": 1}}]',
    "a key twice, in a text": write({"x": '{"a": "0123456789", "a": 2}'}).encode(),
    "a key twice, in base64": write({"x": encoded('{"a": "0123456789", "a": 2}')}).encode(),
    "too deep": nested(MAX_DEPTH + 1).encode(),
    "far too deep": nested(100_000).encode(),
    "too deep, in a text": write({"x": nested(MAX_DEPTH + 1)}).encode(),
    "far too deep, in a text": write({"x": nested(5_000, write(Escaped(MAIL)))}).encode(),
    "far too deep, in base64": write({"x": encoded(nested(5_000, write(Escaped(MAIL))))}).encode(),
    "a number too long": HUGE.encode(),
    "no number": b'{"n": NaN}',
    "no number, beside a finding": b'{"n": -Infinity, "note": "ops-desk@example.org"}',
    "a number too long, in a text": write({"x": HUGE}).encode(),
}


@pytest.mark.parametrize("data", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("inspection", [REDACT, FLAG])
def test_what_is_unclear_is_refused(data, inspection):
    with pytest.raises(Unclear) as refusal:
        inspection.payload(data, JSON)
    assert MAIL not in str(refusal.value)


HALVES = [b'["\\ud800 ops-desk@example.org"]', write([encoded('["\\udfff ops-desk@example.org"]')]).encode()]


@pytest.mark.parametrize("data", HALVES)
def test_half_of_a_surrogate_pair_hides_nothing(data):
    """Not every reader takes it for JSON, so that it may as well be unclear."""
    try:
        told = REDACT.payload(data, JSON)
    except Unclear:
        return
    assert found(told) == {"EMAIL": 1}
    assert MAIL.encode() not in told.value


HALF = '{"half": "\\ud83d", "low": "\\udc80", "note": "ops-desk@example.org"}'


@pytest.mark.parametrize(
    ("data", "content_type", "inside"),
    [
        (HALF, JSON, str),
        (HALF, TEXT, str),
        (HALF, BINARY, str),
        (write({"x": HALF}), JSON, lambda text: json.loads(text)["x"]),
        (write({"x": encoded(HALF)}), JSON, lambda text: base64.b64decode(json.loads(text)["x"])),
        (encoded(HALF), TEXT, base64.b64decode),
    ],
)
def test_half_of_a_pair_beside_a_finding_stays_half_of_one(data, content_type, inside):
    told = REDACT.payload(data.encode(), content_type)
    assert found(told) == {"EMAIL": 1}
    assert json.loads(inside(told.value.decode())) == {"half": "\ud83d", "low": "\udc80", "note": "[EMAIL]"}


def test_half_of_a_pair_in_metadata_stays_half_of_one():
    told = REDACT.metadata({"x": HALF})
    assert found(told) == {"EMAIL": 1}
    assert json.loads(told.value["x"].encode()) == {"half": "\ud83d", "low": "\udc80", "note": "[EMAIL]"}


@pytest.mark.parametrize("data", [nested(MAX_DEPTH).encode(), write({"x": nested(MAX_DEPTH - 1)}).encode()])
def test_what_is_as_deep_as_may_be_is_walked(data):
    assert REDACT.payload(data, JSON).value is data


@pytest.mark.parametrize("data", [b"{", b'{"a": 1,} and so on', b"[1, 2", b"\x00\x01"])
def test_what_does_not_say_that_it_is_json_need_not_be(data):
    assert REDACT.payload(data, TEXT).value is data


def test_a_text_in_json_that_only_begins_like_json_is_a_text():
    assert REDACT.payload(b'{"x": "[Infinity or NaN"}', JSON).value == b'{"x": "[Infinity or NaN"}'
    told = REDACT.payload(write({"x": "{ see " + MAIL}).encode(), JSON)
    assert told.value == b'{"x": "{ see [EMAIL]"}'


# Rules together.
def test_each_rule_does_its_own_and_all_are_counted():
    three = Inspection(
        [rule("pii", "EMAIL", "SSN"), rule("watch", "EMAIL", "URL", then="flag"), rule("keys", "API_KEY", then="deny")]
    )
    data = write([f"{MAIL} {SECRETS['URL']}", "219-09-9999", 1]).encode()
    told = three.payload(data, JSON)
    assert told.value == f'["[EMAIL] {SECRETS["URL"]}", "[SSN]", 1]'.encode()
    assert told.counts == (("pii", "EMAIL", 1), ("pii", "SSN", 1), ("watch", "EMAIL", 1), ("watch", "URL", 1))
    assert told.denied == ""


def test_one_that_denies_is_named_and_what_the_others_found_is_counted():
    rules = [rule("pii", "EMAIL"), rule("keys", "API_KEY", then="deny"), rule("cards", "CREDIT_CARD", then="deny")]
    told = Inspection(rules).payload(write([MAIL, SECRETS["CREDIT_CARD"], SECRETS["API_KEY"]]).encode(), JSON)
    assert told.denied in ("keys", "cards")
    assert told.counts == (("cards", "CREDIT_CARD", 1), ("keys", "API_KEY", 1), ("pii", "EMAIL", 1))


@pytest.mark.parametrize("form", FORMS)
def test_a_value_of_two_rules_is_redacted_where_one_of_them_says_so_and_denied_where_one_does(form):
    data = write(FORMS[form](MAIL)).encode()
    rules = [rule("a", "EMAIL", then="flag"), rule("b", "EMAIL"), rule("c", "EMAIL", then="deny")]
    told = Inspection(rules).payload(data, JSON)
    assert (told.denied, says(told.value, MAIL)) == ("c", [])
    assert told.counts == (("a", "EMAIL", 1), ("b", "EMAIL", 1), ("c", "EMAIL", 1))


def test_a_type_that_no_rule_looks_for_stays():
    data = write([MAIL, "219-09-9999"]).encode()
    assert Inspection([rule("x", "SSN")]).payload(data, JSON).value == f'["{MAIL}", "[SSN]"]'.encode()
    assert Inspection([rule("x", "IBAN")]).payload(data, JSON).value is data


def test_a_scanner_that_a_deployment_plugs_in_is_asked_with_the_types_of_all_rules():
    asked = []

    class Words:
        """Finds the word "blue"."""

        def scan(self, text: str) -> list[Span]:
            place = text.find("blue")
            return [] if place < 0 else [Span(place, place + 4, "EMAIL")]

        def scan_each(self, texts: Collection[str]) -> dict[str, list[Span]]:
            return {text: spans for text in texts if (spans := self.scan(text))}

    def scanner(types: frozenset[str]) -> Words:
        asked.append(types)
        return Words()

    told = Inspection([rule("a", "EMAIL"), rule("b", "SSN")], scanner).payload(b'["so blue"]', JSON)
    assert (told.value, asked) == (b'["so [EMAIL]"]', [frozenset({"EMAIL", "SSN"})])


# Metadata.
@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("form", ["value", "escaped", "base64", "base64 of JSON"])
def test_metadata_is_redacted_value_by_value(form, kind):
    value = SECRETS[kind] if form == "value" else write(FORMS["escaped"](SECRETS[kind])) if form == "escaped" else None
    value = FORMS[form](SECRETS[kind])["note"] if value is None else value
    told = REDACT.metadata({"locale": "en", "reply": value})
    assert told.value["locale"] == "en"
    assert says(json.dumps(told.value).encode(), SECRETS[kind]) == []
    assert found(told) == {kind: 1}


def test_metadata_without_a_finding_stays():
    metadata = {"locale": "en", "trace": "abc-123", "": ""}
    told = REDACT.metadata(metadata)
    assert (told.value, told.counts, told.denied) == (metadata, (), "")
    assert told.value is not metadata


def test_metadata_that_is_denied_names_its_rule():
    told = Inspection([rule("keys", "API_KEY", then="deny")]).metadata({"auth": SECRETS["API_KEY"]})
    assert (told.denied, told.counts) == ("keys", (("keys", "API_KEY", 1),))


def test_a_key_of_metadata_is_looked_at_like_a_key_of_json():
    told = REDACT.metadata({MAIL: "x"})
    assert MAIL not in json.dumps(told.value)
    assert found(told) == {"EMAIL": 1}
