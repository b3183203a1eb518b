"""Payloads and metadata through guardrails: what was found by rule, type and count, and the bytes with it redacted.

JSON and Avro are walked (keys, strings, numbers), text is scanned as it stands; what strings pack (``unpack``) is
packed again.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bus.guardrails.content import AVRO, Avro, is_avro
from bus.guardrails.rewrite import rewritten
from bus.guardrails.scanner import HALVES, Scanners, Span, default_scanner
from bus.guardrails.unpack import (
    Unclear,
    bytes_of,
    decoded,
    is_long,
    packs,
    parsed,
    read_json,
    text_of,
    texts_of,
)

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Rule(Protocol):
    """What of a policy's guardrail is needed here."""

    @property
    def name(self) -> str:
        """Its name in the policy."""
        ...

    @property
    def detect(self) -> frozenset[str]:
        """Types."""
        ...

    @property
    def then(self) -> str:
        """redact, deny or flag."""
        ...


@dataclass(slots=True)
class Inspected:
    """``found`` counts (rule, type); ``denied`` is the first rule that refuses; ``value`` has all else redacted."""

    value: Any
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    denied: str = ""

    @property
    def counts(self) -> tuple[tuple[str, str, int], ...]:
        """(rule, type, count), sorted: what a hop keeps."""
        return tuple((rule, kind, count) for (rule, kind), count in sorted(self.found.items()))


class Inspection:
    """Some guardrails, together: one pass finds for all of them. Raises PolicyError for a type nobody here knows."""

    def __init__(self, rules: Sequence[Rule], scanners: Scanners = default_scanner) -> None:
        self._rules = tuple(rules)
        self._scanner = scanners(frozenset().union(*(rule.detect for rule in rules)))

    def payload(self, payload: bytes, content_type: str) -> Inspected:
        """A payload; ``value`` is the very bytes that came in where nothing was redacted. Raises Unclear."""
        told = Inspected(payload)
        if is_avro(payload) or AVRO in content_type.lower():
            told.value = self._avro(payload, told)
            return told
        if "json" in content_type.lower():
            redacted = self._json(payload, told)
            if redacted is not None:
                told.value = redacted.encode("utf-8", "replace")
            return told
        text = text_of(payload)
        made = self._redacted(text, told)
        if made is not text:
            told.value = bytes_of(made)
        return told

    def metadata(self, metadata: Mapping[str, str]) -> Inspected:
        """Metadata; ``value`` is a dict. Raises Unclear."""
        told = Inspected(dict(metadata))
        told.value = self._redacted(told.value, told)
        return told

    def _avro(self, payload: bytes, told: Inspected) -> bytes:
        """What its schema says is looked at, too: names and documentation are texts of its source."""
        content = Avro.read(payload)
        found = [content.document, content.value]
        made = self._redacted(found, told)
        if made is found:
            return payload
        content.document, content.value = made
        try:
            return content.written()
        except ValueError as error:
            raise Unclear(f"what was found cannot be redacted: {error}") from None

    def _json(self, payload: bytes, told: Inspected) -> str | None:
        """None where nothing was redacted."""
        document, value = read_json(payload)
        walk = self._walk(value, told)
        if walk is None:
            return None
        redacted = rewritten(document, walk.found, walk.scanned) if walk.flat else None
        if redacted is None:
            made = walk.value(value, packed=False)
            return None if made is value else _dumped(made)
        return None if redacted == document else redacted

    def _redacted(self, value: Any, told: Inspected) -> Any:
        """``value`` itself where nothing in it was redacted."""
        walk = self._walk(value, told)
        return value if walk is None else walk.value(value, packed=False)

    def _walk(self, value: Any, told: Inspected) -> _Walk | None:
        """None where nothing is found anywhere: no need to know where."""
        texts = texts_of(value)
        spans = self._scanner.scan_each(texts)
        packing = frozenset(text for text, may_pack in texts.items() if may_pack)
        return _Walk(self._rules, spans, packing, told) if spans else None


class _Walk:
    """One payload or metadata in which something was found: ``spans`` by text, and the texts that may pack something.
    All other texts stay."""

    def __init__(
        self, rules: Sequence[Rule], spans: Mapping[str, list[Span]], packing: frozenset[str], told: Inspected
    ) -> None:
        self._rules = rules
        self._spans = spans
        self._packing = packing
        self._looked_at = packing.union(spans)
        self._told = told

    def value(self, value: Any, *, packed: bool) -> Any:
        """``value`` itself where nothing in it was redacted; no deeper than ``texts_of`` went."""
        if isinstance(value, str):
            return self._text(value, packed=packed) if value in self._looked_at else value
        if isinstance(value, dict):
            return self._object(value, packed=packed)
        if isinstance(value, bytes):
            text = text_of(value)
            return value if (told := self.value(text, packed=packed)) is text else bytes_of(told)
        if isinstance(value, list):
            made = [self.value(each, packed=packed) for each in value]
            return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
        if is_long(value):
            text = str(value)
            made_text = self.scanned(text)
            return value if made_text is text else made_text
        return value

    def _object(self, value: dict[str, Any], *, packed: bool) -> dict[str, Any]:
        pairs, same = [], True
        for key, each in value.items():
            name = self._text(key, packed=packed) if key in self._looked_at else key
            made = self.value(each, packed=packed)
            same = same and name is key and made is each
            pairs.append((name, made))
        return value if same else _apart(pairs)

    def _text(self, text: str, *, packed: bool) -> str:
        """What is packed in ``text`` is looked into first: the same places are never counted in both forms."""
        if packed or text not in self._packing:
            return self.scanned(text)
        if (inside := parsed(text)) is not None:
            walked = self.value(inside, packed=True)
            return text if walked is inside else _dumped(walked)
        if (inner := decoded(text)) is not None:
            made = self._inner(inner)
            if made is not inner:
                return base64.b64encode(made.encode("utf-8", "replace")).decode()
        return self.scanned(text)

    def _inner(self, text: str) -> str:
        """What was behind base64."""
        inside = parsed(text)
        if inside is None:
            return self.scanned(text)
        walked = self.value(inside, packed=True)
        return text if walked is inside else _dumped(walked)

    @property
    def found(self) -> AbstractSet[str]:
        """Texts in which something was found."""
        return self._spans.keys()

    @property
    def flat(self) -> bool:
        """Whether no text packs anything. Raises Unclear."""
        return not any(map(packs, self._packing))

    def scanned(self, text: str) -> str:
        """One text as it stands, not what it may pack."""
        spans = self._spans.get(text)
        if spans is None:
            return text
        pieces, at, changed = [], 0, False
        for span in spans:
            redact = False
            for rule in self._rules:
                if span.type in rule.detect:
                    self._told.found[rule.name, span.type] += 1
                    redact = redact or rule.then == "redact"
                    if rule.then == "deny" and not self._told.denied:
                        self._told.denied = rule.name
            if redact:
                pieces += [text[at : span.start], f"[{span.type}]"]
                at, changed = span.end, True
        return "".join([*pieces, text[at:]]) if changed else text


def _apart(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys may have become the same: none takes another's place."""
    made: dict[str, Any] = {}
    last: dict[str, int] = {}
    for key, value in pairs:
        name, number = key, last.get(key, 1)  # from where the key before it came to: any other way is quadratic
        while name in made:
            number += 1
            name = f"{key} {number}"
        last[key] = number
        made[name] = value
    return made


def _dumped(value: Any) -> str:
    """JSON of ``value``, whose half characters are escapes again. Raises Unclear."""
    try:
        return HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", _ENCODER.encode(value))
    except ValueError:
        raise Unclear("a number that JSON has no word for") from None
