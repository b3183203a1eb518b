"""Payloads to the texts in them: JSON read strictly, and what is packed in its strings unpacked once.

A string that holds JSON or base64 of text is looked into, so that nothing hides one level deep. What is unclear is
refused, never passed on. Looks for nothing itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 64
DIGITS: Final = 7
"""A number of fewer digits is no card, telephone or social security number; a text that short packs nothing."""
_NUMBERS: Final = (int, float)
_LEAST: Final = 10 ** (DIGITS - 1)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{10,}={0,2}\Z")
_PACKED: Final = re.compile(rf"\s*[{{\[]|{_BASE64.pattern}")
"""How a text begins that ``parsed`` or ``decoded`` may make something of."""


class Unclear(ValueError):
    """Nobody knows what the payload holds: too deep, no JSON though it says so, or a key that is given twice."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object for ``json.loads``. Raises Unclear: what stands under a key that comes again, some readers see."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unclear("a key is given twice")
    return made


def _no_number(word: str) -> None:
    raise Unclear(f"{word} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=once)
_STRICT: Final = json.JSONDecoder(object_pairs_hook=once, parse_constant=_no_number)
"""Of what says that it is JSON; a text may begin with ``[NaN`` and be none."""


def read_json(payload: bytes) -> tuple[str, Any]:
    """The text and the value of a payload that says it is JSON. Raises Unclear."""
    try:
        text = payload.decode(json.detect_encoding(payload), "surrogatepass")
        return text, _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise Unclear(f"not the JSON that it says: {type(error).__name__}") from None


def parsed(text: str) -> Any:
    """The object or array that ``text`` holds, or None. Raises Unclear."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _DECODER.decode(text)
    except Unclear:
        raise
    except json.JSONDecodeError:
        return None
    except (ValueError, RecursionError) as error:
        raise Unclear(f"packed JSON that cannot be read: {type(error).__name__}") from None


def decoded(text: str) -> str | None:
    """The text behind base64 (RFC 4648, either alphabet), or None."""
    if not _BASE64.match(text):
        return None
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def packs(text: str) -> bool:
    """Whether ``text`` is JSON or base64. Raises Unclear."""
    return parsed(text) is not None or decoded(text) is not None


def is_long(value: Any) -> bool:
    """Whether ``value`` is a number of enough digits to be looked at as a text."""
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and abs(value) >= _LEAST


def text_of(data: bytes) -> str:
    """Bytes as a text to look at; ``bytes_of`` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """What ``text_of`` made a text of."""
    return text.encode("utf-8", "surrogateescape")


def texts_of(value: Any) -> dict[str, bool]:
    """Every text that stands in ``value`` or in its strings, and whether it may pack something. Raises Unclear."""
    texts: dict[str, bool] = {}
    _collect(value, texts, 0, packed=False)
    return texts


def _collect(value: Any, texts: dict[str, bool], depth: int, *, packed: bool) -> None:
    """Level by level: most of a payload is keys that come again and short strings."""
    level = [value]
    strings: dict[str, object] = {}
    while level:
        if depth > MAX_DEPTH:
            raise Unclear(f"nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                strings[each] = None
            elif isinstance(each, dict):
                strings.update(each)
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, bytes):
                strings[text_of(each)] = None
            elif is_long(each):
                texts.setdefault(str(each), False)
        level = below
        depth += 1
    for text in strings:
        if packed or len(text) < DIGITS or not _PACKED.match(text):  # most texts
            texts.setdefault(text, False)
            continue
        texts[text] = True
        if (inside := parsed(text)) is None and (inner := decoded(text)) is not None:
            texts.setdefault(inner, False)
            inside = parsed(inner)
        if inside is not None:
            _collect(inside, texts, 1, packed=True)
