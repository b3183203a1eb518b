"""Payloads and metadata through guardrails: what was found by rule, type and count, and the bytes with it redacted.

JSON is walked (keys, strings, numbers), text is scanned as it stands. A string that holds JSON or base64 of text is
unpacked once and packed again, so that nothing hides one level deep. What is unclear is refused, never passed on.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bus.guardrails.scanner import Scanner, default_scanner

MAX_DEPTH: Final = 64
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{10,}={0,2}\Z")
_DIGITS: Final = 7
"""A number of fewer digits is no card, telephone or social security number."""
_BETWEEN: Final = "\n\0"
"""Stands between texts that are scanned together: no pattern reaches over it but to the end of all."""


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


class Unclear(ValueError):
    """Nobody knows what the payload holds: too deep, no JSON though it says so, or a key that is given twice."""


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
    """Some guardrails, together: one pass finds for all of them."""

    def __init__(self, rules: Sequence[Rule], scanner: Callable[[frozenset[str]], Scanner] = default_scanner) -> None:
        self._rules = tuple(rules)
        self._scanner = scanner(frozenset().union(*(rule.detect for rule in rules)))

    def payload(self, payload: bytes, content_type: str) -> Inspected:
        """A payload; ``value`` is the very bytes that came in where nothing was redacted. Raises Unclear."""
        told = Inspected(payload)
        if "json" in content_type.lower():
            try:
                parsed = json.loads(payload, object_pairs_hook=once)
            except (ValueError, RecursionError) as error:
                raise Unclear(f"not the JSON that it says: {type(error).__name__}") from None
            texts: list[str] = []
            _collect(parsed, texts, 0, packed=False)
            if not self._scanner.scan(_BETWEEN.join(texts)):
                return told  # nothing anywhere: no need to know where
            walked = self._walk(parsed, told, 0, packed=False)
            if walked is not parsed:
                told.value = _dumped(walked).encode("utf-8", "replace")
            return told
        text = payload.decode("utf-8", "surrogateescape")
        made = self._text(text, told, packed=False)
        if made is not text:
            told.value = made.encode("utf-8", "surrogateescape")
        return told

    def metadata(self, metadata: Mapping[str, str]) -> Inspected:
        """Metadata; ``value`` is a dict."""
        told = Inspected(dict(metadata))
        told.value = _apart(
            (self._text(key, told, packed=False), self._text(value, told, packed=False))
            for key, value in metadata.items()
        )
        return told

    def _walk(self, value: Any, told: Inspected, depth: int, *, packed: bool) -> Any:
        """``value`` itself where nothing in it was redacted."""
        if depth > MAX_DEPTH:
            raise Unclear(f"nested more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            return self._text(value, told, packed=packed)
        if isinstance(value, list):
            made = [self._walk(each, told, depth + 1, packed=packed) for each in value]
            return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
        if isinstance(value, dict):
            pairs = [
                (self._text(key, told, packed=packed), self._walk(each, told, depth + 1, packed=packed), key, each)
                for key, each in value.items()
            ]
            if any(key is not old or each is not before for key, each, old, before in pairs):
                return _apart((key, each) for key, each, _, _ in pairs)
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 10 ** (_DIGITS - 1):
            text = str(value)
            made_text = self._text(text, told, packed=True)
            return value if made_text is text else made_text
        return value

    def _text(self, text: str, told: Inspected, *, packed: bool) -> str:
        """What is packed in ``text`` is looked into first: the same places are never counted in both forms."""
        if packed or len(text) < _DIGITS:
            return self._scanned(text, told)
        if (parsed := _parsed(text)) is not None:
            walked = self._walk(parsed, told, 1, packed=True)
            return text if walked is parsed else _dumped(walked)
        if (inner := _decoded(text)) is not None:
            made = self._inner(inner, told)
            if made is not inner:
                return base64.b64encode(made.encode("utf-8", "replace")).decode()
        return self._scanned(text, told)

    def _inner(self, text: str, told: Inspected) -> str:
        """What was behind base64."""
        parsed = _parsed(text)
        if parsed is None:
            return self._scanned(text, told)
        walked = self._walk(parsed, told, 1, packed=True)
        return text if walked is parsed else _dumped(walked)

    def _scanned(self, text: str, told: Inspected) -> str:
        spans = self._scanner.scan(text)
        if not spans:
            return text
        pieces, at, changed = [], 0, False
        for span in spans:
            redact = False
            for rule in self._rules:
                if span.type in rule.detect:
                    told.found[rule.name, span.type] += 1
                    redact = redact or rule.then == "redact"
                    if rule.then == "deny" and not told.denied:
                        told.denied = rule.name
            if redact:
                pieces += [text[at : span.start], f"[{span.type}]"]
                at, changed = span.end, True
        return "".join([*pieces, text[at:]]) if changed else text


def _apart(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys may have become the same: none takes another's place."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        name, number = key, 1
        while name in made:
            number += 1
            name = f"{key} {number}"
        made[name] = value
    return made


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Unclear("a number that JSON has no word for") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object for ``json.loads``. Raises Unclear: what stands under a key that comes again, some readers see."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unclear("a key is given twice")
    return made


def _parsed(text: str) -> Any:
    """The object or array that ``text`` holds, or None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, object_pairs_hook=once)
    except Unclear:
        raise
    except json.JSONDecodeError:
        return None
    except (ValueError, RecursionError) as error:
        raise Unclear(f"packed JSON that cannot be read: {type(error).__name__}") from None


def _decoded(text: str) -> str | None:
    """The text behind base64 (RFC 4648, either alphabet), or None."""
    if not _BASE64.match(text):
        return None
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _collect(value: Any, texts: list[str], depth: int, *, packed: bool) -> None:
    """Every text that ``Inspection._walk`` would scan."""
    if depth > MAX_DEPTH:
        raise Unclear(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        texts.append(value)
        if packed or len(value) < _DIGITS:
            return
        if (parsed := _parsed(value)) is None and (inner := _decoded(value)) is not None:
            texts.append(inner)
            parsed = _parsed(inner)
        if parsed is not None:
            _collect(parsed, texts, 1, packed=True)
    elif isinstance(value, dict):
        for key, each in value.items():
            _collect(key, texts, depth + 1, packed=packed)
            _collect(each, texts, depth + 1, packed=packed)
    elif isinstance(value, list):
        for each in value:
            _collect(each, texts, depth + 1, packed=packed)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 10 ** (_DIGITS - 1):
        texts.append(str(value))
