"""What each type of a guardrail finds in a text, to the character, and what only looks like it.

In the tables ``<<`` and ``>>`` stand around what must be found, and nothing else may be; a text without them is a
refusal. Keys are made up, and put together here so that no scanner of this repository takes them for real ones.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.guardrails import types
from bus.guardrails.scanner import PatternScanner, Span
from bus.guardrails.types import CONTEXT, DETECTORS, TYPES, luhn
from tests.unit import build  # noqa: F401  # no deadline for an example

ALL = PatternScanner(TYPES)
LETTERS = "a1B2c3D4e5F6g7H8i9J0"


def unmarked(text: str, kind: str) -> tuple[str, list[Span]]:
    """``text`` without its marks, and the spans that they stood around."""
    plain, spans = "", []
    for number, piece in enumerate(re.split("<<|>>", text)):
        if number % 2:
            spans.append(Span(len(plain), len(plain) + len(piece), kind))
        plain += piece
    return plain, spans


def cases(table: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(kind, text, id=f"{kind}: {text[:60]}") for kind, texts in table.items() for text in texts]


TEXTS = {
    "CREDIT_CARD": [
        "<<4012888888881881>>",
        "paid with <<4012-8888-8888-1881>>, thanks",
        "<<4012 8888 8888 1881>>",
        "<<3782 822463 10005>> (15 digits, grouped as on the card)",
        "<<30569309025904>> (14 digits)",
        "<<2223003122003222>> and <<6011000990139424>>",
        "<<5105105105105100>> <<4012888888881881>>",
        "<<676214002195>> has 12 digits, the fewest",
        "<<4012888888881876128>> has 19 digits, the most",
        "12345678903 has 11 digits and its checksum is right",
        "60110009901394238715 has 20 digits and its checksum is right",
        *(f"401288888888188{digit}" for digit in "023456789"),
        "4012888888818881: two digits stand in each other's place",
        "70111111111118, 80123456789018, 90123456789016: nobody issues these",
        "00123456789015",
        "0000 0000 0000 0000",
        "4012.8888.8888.1881",
        "4012  8888  8888  1881",
        "a4012888888881881",
        "4012888888881881a",
    ],
    "IBAN": [
        "<<GB82WEST12345698765432>>",
        "to <<GB82 WEST 1234 5698 7654 32>>, please",
        "<<DE89370400440532013000>>; <<DE89 3704 0044 0532 0130 00>>",
        "<<de89370400440532013000>>",
        "<<NO9386011117947>> is the shortest that a country has",
        "<<NO93 8601 1117 947>>",
        "<<MT84MALT011000012345MTLCAST001S>>",
        "<<ZZ09AAAAAAAAA1234567890BBBBBBBBBBB>> has 34 characters, the most",
        "ZZ83AAAAAAAAA1234567890BBBBBBBBBBBB has 35 and its remainder is right",
        "ZZ121234567890 has 14 and its remainder is right",
        "ZZ12 1234 5678 90",
        "ZZ83 AAAA AAAA A123 4567 890B BBBB BBBB BBB",
        "GB83WEST12345698765432",
        "GB82WEST12345698765423",
        "DE89 3704 0044 0532 0130 01",
        "DE89 3704 0044 5032 0130 00",
        "AB12 CDEF 3456 7890 is a licence",
    ],
    "SSN": [
        "<<219-09-9999>>",
        "<<219 09 9999>>",
        "<<001-01-0001>>, <<665-99-9999>>, <<667-01-0001>>, <<899-99-9999>>: the ends of the ranges",
        "SSN <<219099999>>",
        "my ssn is <<219099999>>",
        "Social Security number: <<219099999>>",
        "SS# <<219099999>>",
        "000-12-3456",
        "666-12-3456",
        "900-12-3456, 999-12-3456",
        "219-00-9999",
        "219-09-0000",
        "SSN 000123456",
        "219099999",
        "assn 219099999",
        "SSN" + " " * CONTEXT + "219099999",
        "219-099-999",
        "2190-09-9999",
        "219-09-99990",
    ],
    "IP_ADDRESS": [
        "<<192.0.2.44>>",
        "from <<10.0.0.1>>:8080, <<198.51.100.7>>/24.",
        "<<0.0.0.0>> and <<255.255.255.255>>",
        "256.1.1.1",
        "1.1.1.999",
        "01.02.03.04",
        "192.0.2",
        "1192.0.2.44",
        "<<2001:db8::7:1>>",
        "<<2001:DB8::7:1>>",
        "<<2001:db8:0:0:8:800:200c:417a>>",
        "<<2001:0db8:85a3:0000:0000:8a2e:0370:7334>>",
        "route <<2001:db8::>>/32",
        "2001:db8:0:0:8:800:200c",
        "2001:db8::12345",
        "12:30:45",
        "at 09:15",
    ],
    "MAC_ADDRESS": [
        "<<00:1b:44:11:3a:b7>>",
        "<<00-1B-44-11-3A-B7>>",
        "00:1b:44:11:3a",
        "00:1b:44:11:3a:g7",
        "001b44113ab7",
    ],
    "EMAIL": [
        "<<ops-desk@example.org>>",
        "to <<ops.desk+alerts@mail.example.co.uk>>, <<x@y.example>>.",
        "<<büro@bücher.example>>",
        "<ops@example.org>".replace("<", "(<<").replace(">", ">>)"),
        "ops@localhost",
        "@example.org",
        "ops@",
        "ops at example.org",
        "ops@.org",
    ],
    "URL": [
        "<<https://example.org/a?b=1#c>>",
        "see <<http://192.0.2.44:8080/x>> now",
        'href="<<HTTPS://EXAMPLE.ORG>>"',
        "ftp://example.org",
        "example.org/a",
        "https://",
    ],
    "PHONE": [
        "<<+1 415 555 0100>>",
        "<<+14155550100>>",
        "<<0044 20 7946 0958>>",
        "<<(415) 555-0100>>",
        "<<415-555-0100>>",
        "<<415.555.0100>>",
        "<<020 7946 0958>>",
        "call me at <<4155550100>>",
        "Call <<555-0100>>!",
        "phone: <<07700 900123>>",
        "Tel. <<415-555-0100 ext. 12>>",
        "my number is <<415-555-0100x12345>>",
        "call <<1234567>> has seven digits, the fewest",
        "call 123456",
        "4155550100",
        "555-0100",
        "07700 900123",
        "+1",
        "+999 123 456 789",
        "2026-03-02",
        "02.03.2026",
        "phone 2026-03-02",
        "tel 02/03/2026",
        "order 415-555-0100",
        "invoice number 4155550100",
        "ticket 415-555-0100",
        "Call me. 4155550100 is what I paid",
        "account 415-555-0100. Call <<415-555-0100>>",
        "1,234,567.89",
    ],
    "API_KEY": [
        f"<<sk-{LETTERS}>>",
        f"<<sk_live_{LETTERS}>>, <<pk_test_{LETTERS}>>, <<rk_live_{LETTERS}>>",
        f"<<sk-proj-{LETTERS}>>",
        f"<<sk-ant-api03-{LETTERS}-x_y>>",
        *(f"token <<{start}_{'a1B2' * 9}>>" for start in ("ghp", "gho", "ghu", "ghs", "ghr")),
        f"<<github_pat_{LETTERS}_x1>>",
        f"<<glpat-{LETTERS}>>",
        f"<<AKIA{'Q7' * 8}>> or <<ASIA{'Q7' * 8}>>",
        *(f"<<xox{letter}-{'12345-' * 2}abc>>" for letter in "abeoprs"),
        f"<<AIza{'a1B2-' * 7}>>",
        "Authorization: Bearer <<" + ".".join(["eyJ" + "hbGci", "eyJ" + "zdWIi", "c2lnbmF0dXJl"]) + ">>",
        "password: <<Zx9qLmT4vB7nKc2w>>",
        "api_key = '<<Zx9qLmT4vB7nKc2w>>'",
        'API-Key: "<<Zx9qLmT4vB7nKc2w>>"',
        "the secret is <<Zx9qLmT4vB7nKc2w>>",
        "access_token=<<Zx9qLmT4vB7nKc2w>>",
        "sk-" + LETTERS[:19],
        "sk_live_" + LETTERS[:15],
        "sk_other_" + LETTERS,
        "ghp_" + ("a1B2" * 9)[:35],
        "glpat-" + LETTERS[:19],
        "AKIA" + "Q7" * 7 + "Q",
        "AKIA" + "Q7" * 8 + "Q",
        "akia" + "q7" * 8,
        "xoxb-123456789",
        "AIza" + ("a1B2-" * 7)[:34],
        "eyJhbGci.eyJzdWIi",
        "password: Zx9qLmT4vB7nKc2",
        "password: aaaa1111aaaa1111",
        "password: correcthorsebattery",
        "password: 12345678901234567890",
        "passwords Zx9qLmT4vB7nKc2w",
    ],
    "PRIVATE_KEY": [
        "<<-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY----->>\nafter",
        "before <<-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ\n-----END RSA PRIVATE KEY----->>",
        "<<-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY----->>",
        "<<-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n-----END ENCRYPTED PRIVATE KEY----->>",
        "<<-----BEGIN A PRIVATE KEY-----\nMHc\n-----END A PRIVATE KEY----->><<-----BEGIN B PRIVATE KEY-----\nM>>",
        "a key without its end goes to the end of all: <<-----BEGIN PRIVATE KEY-----\nMIIEvQ\n\nand more>>",
        "-----BEGIN PUBLIC KEY-----\nMIIBIj\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIBIj\n-----END CERTIFICATE-----",
        "----BEGIN PRIVATE KEY----\nMIIEvQ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
    ],
    "PERSON": [
        "Dear Mr <<Example>>, hello",
        "Dr. <<Example>>.",
        "Customer: <<Example>>",
        "Name: <<Example>>",
        "my name is <<Émile>>",
        "mr example",
        "Mr. 12",
        "the name is set",
        "rename: Example",
        "Mrs",
    ],
}


@pytest.mark.parametrize(("kind", "text"), cases(TEXTS))
def test_exactly_what_is_marked_is_found(kind, text):
    plain, spans = unmarked(text, kind)
    assert PatternScanner([kind]).scan(plain) == spans


def test_every_type_has_texts_with_and_without_it():
    assert set(TEXTS) == TYPES
    assert all(
        any("<<" in text for text in texts) and any("<<" not in text for text in texts) for texts in TEXTS.values()
    )


BESIDE = {
    "CREDIT_CARD": [
        "<<4012 8888 8888 1881>> 12/27",
        "<<4012888888881881>> 123",
        "table 12 <<4012 8888 8888 1881>>",
        "<<4012888888881881>> 01-02-2027",
    ],
    "IBAN": ["<<BE68 5390 0754 7034>> 2026", "<<BE68 5390 0754 7034>> IN EUR", "<<DE89 3704 0044 0532 0130 00>> EUR"],
}


@pytest.mark.parametrize(("kind", "text"), cases(BESIDE))
def test_digits_or_capitals_beside_a_number_do_not_hide_it(kind, text):
    """A longer match that fails its check says nothing of the shorter one inside it."""
    plain, spans = unmarked(text, kind)
    assert PatternScanner([kind]).scan(plain) == spans


@pytest.mark.parametrize("text", ["<<4111 1111 1111 1111>>", "<<5555555555554444>>"])
def test_a_card_may_have_only_two_different_digits(text):
    """The best known numbers of test systems do."""
    plain, spans = unmarked(text, "CREDIT_CARD")
    assert PatternScanner(["CREDIT_CARD"]).scan(plain) == spans


@pytest.mark.parametrize(
    "text",
    [
        "<<fe80::1>>",
        "<<fe80::21b:44ff:fe11:3ab7>>",
        "<<2001:db8:1:2:3:4:5::>>",
        "std::vector",
        "Module::name",
    ],
)
def test_a_shortened_ipv6_address_is_found_whole_and_a_name_of_a_program_is_none(text):
    plain, spans = unmarked(text, "IP_ADDRESS")
    assert PatternScanner(["IP_ADDRESS"]).scan(plain) == spans


@pytest.mark.parametrize(
    "text",
    [
        "my name is <<Sample Specimen>>.",
        "Mrs <<Sample van Specimen>>",
        "Dr <<Sample S. Specimen>>, MD",
        "Mr <<Example>> delivered it",
        "Ms <<Example>> later called",
    ],
)
def test_a_name_ends_where_its_last_word_ends(text):
    plain, spans = unmarked(text, "PERSON")
    assert PatternScanner(["PERSON"]).scan(plain) == spans


@pytest.mark.parametrize("text", ["12345-6789", "Springfield, IL 62704-1234", "219-099999"])
def test_digits_that_are_grouped_otherwise_are_no_social_security_number(text):
    """A ZIP code with four more digits is the one that is met most."""
    assert PatternScanner(["SSN"]).scan(text) == []


# Types beside each other.
TOGETHER = {
    "5105 1051 0510 5100": ["CREDIT_CARD"],
    "call 5105 1051 0510 5100": ["CREDIT_CARD"],
    "call 219-09-9999": ["SSN"],
    "DE89 3704 0044 0532 0130 00": ["IBAN"],
    "call 192.168.10.20": ["IP_ADDRESS"],
    "00:1b:44:11:3a:b7": ["MAC_ADDRESS"],
    "https://example.org/+14155550100": ["URL"],
    "name: ops@example.org": ["EMAIL"],
    "password: sk-" + LETTERS: ["API_KEY"],
    "-----BEGIN PRIVATE KEY-----\nsk-" + LETTERS + "\nops@example.org\n-----END PRIVATE KEY-----": ["PRIVATE_KEY"],
    "ops@example.org, 192.0.2.44 ops2@example.org": ["EMAIL", "IP_ADDRESS", "EMAIL"],
    "Mr Example, +1 415 555 0100, 219-09-9999": ["PERSON", "PHONE", "SSN"],
}


@pytest.mark.parametrize(("text", "kinds"), TOGETHER.items(), ids=[repr(text[:40]) for text in TOGETHER])
def test_one_place_is_of_the_one_type_that_comes_first(text, kinds):
    assert [span.type for span in ALL.scan(text)] == kinds


def test_a_type_that_is_not_wanted_takes_no_place():
    text = "5105 1051 0510 5100"
    assert [span.type for span in PatternScanner(["CREDIT_CARD", "PHONE"]).scan(text)] == ["CREDIT_CARD"]
    assert PatternScanner(["EMAIL"]).scan(text) == []
    assert PatternScanner([]).scan(text) == []


SOME = st.sampled_from(
    [re.sub("<<|>>", "", text) for texts in TEXTS.values() for text in texts] + ["\n", ", ", "é", "\0", "😀", "--"]
)


@given(st.lists(st.one_of(SOME, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), max_size=12))
def test_spans_are_in_order_within_the_text_and_none_lies_over_another(pieces):
    text = "".join(pieces)
    spans = ALL.scan(text)
    assert spans == sorted(spans)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))


WHOLE = st.lists(
    st.one_of(SOME, st.sampled_from(["-----BEGIN PRIVATE KEY-----\nMII", "card", "+", "order ", ""])), max_size=3
)


@settings(max_examples=1000)
@given(st.lists(WHOLE.map("".join), max_size=8, unique=True))
def test_texts_that_are_scanned_together_give_what_each_gives_alone(texts):
    assert ALL.scan_each(texts) == {text: spans for text in texts if (spans := ALL.scan(text))}


@given(st.text("ü€😀 ", max_size=30))
def test_places_count_characters_and_not_bytes(before):
    (span,) = ALL.scan(f"{before} ops@example.org")
    assert span.start == len(before) + 1


# Checksums.
@given(st.text("0123456789", min_size=1, max_size=30))
def test_exactly_one_last_digit_satisfies_luhn(digits):
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@given(st.text("0123456789", min_size=2, max_size=30), st.data())
def test_luhn_sees_every_single_wrong_digit(digits, data):
    place = data.draw(st.integers(0, len(digits) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != digits[place]]))
    if luhn(digits):
        assert not luhn(digits[:place] + other + digits[place + 1 :])


# Time.
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda each: f"{each.type}: {each.pattern[:30]}")
def test_every_pattern_compiles_under_re2_which_has_no_backtracking(detector):
    assert re2.compile(detector.pattern).groups >= detector.group


HELPERS = {name: value for name, value in vars(types).items() if isinstance(value, re.Pattern)}
ADVERSARIAL = [
    "phone ",
    "number.",
    "ssn",
    "order id ",
    "1-",
    "1 ",
    "(1",
    "0000-00-00",
    "12.12.",
    "a",
    " ",
    "\n",
    "é",
    "+1(",
]


@pytest.mark.parametrize("name", HELPERS)
def test_no_helper_pattern_explodes_on_64_kib(name):
    """A nested quantifier would not come back within the age of the machine, a single one does in a moment."""
    assert len(HELPERS) >= 5
    for repeated in ADVERSARIAL:
        text = (repeated * (2**16 // len(repeated)))[: 2**16 - 1] + "!"
        for ask in (HELPERS[name].search, HELPERS[name].fullmatch):
            ask(text)


@pytest.mark.parametrize(
    "repeated", ["(1", "phone 1", "1 ", "1-1.", "a:", "::", "-----BEGIN PRIVATE KEY-----", "sk-", "eyJa."]
)
def test_64_kib_of_beginnings_without_an_end_are_scanned(repeated):
    ALL.scan(repeated * (2**16 // len(repeated)))


def steps(call: Callable[[], object]) -> int:
    """Lines of Python that ``call`` runs through: the same number on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_twice_as_much_to_find_takes_twice_as_many_steps():
    text = "ops@example.org, 192.0.2.44; "
    ALL.scan(text)
    once, twice = steps(lambda: ALL.scan(text * 200)), steps(lambda: ALL.scan(text * 400))
    assert once > 400
    assert twice < 2.5 * once


def test_only_parts_that_are_long_enough_to_be_a_card_are_asked():
    """A match of single digits has 171 parts, and a payload may hold nothing else: each one that is asked costs."""
    scanner = PatternScanner(frozenset({"CREDIT_CARD"}))
    (detector,) = scanner._detectors
    asked: list[str] = []

    def accepts(found: str, before: str) -> bool:
        asked.append(found.replace(" ", ""))
        return detector.accepts(found, before)

    scanner._detectors = [replace(detector, accepts=accepts)]
    digits = "1345646446542311242"  # no run of 12 or more checks
    assert scanner.scan(" ".join(digits)) == []
    assert sorted(map(len, asked)) == sorted(size for size in range(12, 20) for _ in range(20 - size))
    assert scanner.scan(" ".join("5105105105105100" + "777")) != [], "a card among them is found all the same"
