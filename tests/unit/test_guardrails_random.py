"""Guardrails over documents that are made at random: nothing that was planted stays, all of it is counted, nothing else
changes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bus.guardrails.unpack import Unclear
from tests.unit import build  # noqa: F401  # no deadline for an example
from tests.unit.forms import BINARY, FLAG, JSON, REDACT, SECRETS, TEXT, Escaped, encoded, found, says, write

FILLER = st.text("xyzü ,;\n", max_size=8)
PLANTED = st.tuples(FILLER, st.sampled_from(sorted(SECRETS)), FILLER)
STYLES = ("plain", "escaped", "JSON", "escaped JSON", "base64", "base64 of JSON", "other alphabet", "key of JSON")
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-99_999, 99_999),
    st.floats(-9_999, 9_999),
    FILLER,
    st.tuples(st.sampled_from(STYLES), st.lists(PLANTED, min_size=1, max_size=3), st.lists(st.booleans(), min_size=3)),
    st.just(5105105105105100),
)
DOCUMENT = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.tuples(st.one_of(FILLER, st.tuples(PLANTED, st.booleans())), inner), max_size=4).map(dict),
    ),
    max_leaves=12,
)


class Planter:
    """Makes a document of what was drawn, and counts what it plants."""

    def __init__(self) -> None:
        self.planted: Counter[str] = Counter()
        self._keys = 0

    def document(self, drawn: Any) -> Any:
        if isinstance(drawn, dict):
            return {self._key(key): self.document(each) for key, each in drawn.items()}
        if isinstance(drawn, list):
            return [self.document(each) for each in drawn]
        if isinstance(drawn, tuple):
            return self._leaf(*drawn)
        self.planted["CREDIT_CARD"] += drawn == 5105105105105100
        return drawn

    def _key(self, drawn: str | tuple[tuple[str, str, str], bool]) -> str:
        self._keys += 1  # no two keys are the same, redacted or not
        mark = "z" * self._keys + " "
        if isinstance(drawn, str):
            return mark + drawn
        planted, escaped = drawn
        return (Escaped if escaped else str)(mark + self._text(planted))

    def _text(self, planted: tuple[str, str, str]) -> str:
        before, kind, after = planted
        self.planted[kind] += 1
        return f"{before} {SECRETS[kind]} {after}"

    def _leaf(self, style: str, planted: list[tuple[str, str, str]], escapes: list[bool]) -> str:
        texts = [self._text(each) for each in planted]
        if style == "plain":
            return "; ".join(texts)
        if style == "escaped":
            return Escaped("; ".join(texts))
        if style == "base64":
            return encoded("; ".join(texts))
        mixed = [Escaped(text) if escape else text for text, escape in zip(texts, escapes, strict=False)]
        if style == "escaped JSON":
            return write([Escaped(text) for text in texts])
        if style == "key of JSON":
            return write({type(text)("x" * place + text): None for place, text in enumerate(mixed)})
        made = write({"inner": mixed})
        if style == "JSON":
            return made
        safe = base64.urlsafe_b64encode(made.encode()).decode().rstrip("=")
        return safe if style == "other alphabet" else encoded(made)


@settings(max_examples=300)
@given(DOCUMENT)
def test_nothing_that_is_planted_anywhere_in_any_form_stays_and_all_of_it_is_counted(drawn):
    planter = Planter()
    data = write(planter.document(drawn)).encode()
    told = REDACT.payload(data, JSON)
    assert says(told.value, *SECRETS.values(), "5105105105105100") == []
    assert found(told) == dict(+planter.planted)
    if not planter.planted.total():
        assert told.value is data
    assert found(REDACT.payload(told.value, JSON)) == {}, "an output that is inspected again is clean"
    assert found(FLAG.payload(data, JSON)) == dict(+planter.planted)


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)


@settings(max_examples=200)
@given(ANY, st.booleans())
def test_a_document_changes_where_something_is_found_and_nowhere_else(value, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assume(b"\\ud" not in data and b"\xed" not in data)
    told = REDACT.payload(data, JSON)
    assert (told.value is data) == (not told.found)
    assert FLAG.payload(data, JSON).value is data


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([JSON, TEXT, BINARY]))
def test_any_bytes_are_inspected_or_refused_as_unclear(data, content_type):
    try:
        told = REDACT.payload(data, content_type)
    except Unclear:
        assert content_type == JSON or data[:1] in b"{[ \t\r\n" or data[:4] == b"Obj\x01"
        return
    assert (told.value is data) == (not told.found)
