"""Values that guardrails look for, the forms in which one may stand in a payload, and all that an output says.

``layers`` reads an output as a curious reader would: JSON, JSON in its texts, base64 in its texts. It shares nothing
with the code under test.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bus.guardrails.inspect import Inspected, Inspection
from bus.guardrails.types import TYPES
from bus.policy.model import GuardrailRule

JSON, TEXT, BINARY = "application/json", "text/plain", "application/octet-stream"
SECRETS = {
    "EMAIL": "ops-desk@example.org",
    "CREDIT_CARD": "5105 1051 0510 5100",
    "SSN": "219-09-9999",
    "IBAN": "GB82 WEST 1234 5698 7654 32",
    "IP_ADDRESS": "192.0.2.44",
    "PHONE": "+44 20 7946 0958",
    "MAC_ADDRESS": "00:1b:44:11:3a:b7",
    "URL": "https://example.org/x?y=1",
    "API_KEY": "AKIA" + "Q7" * 8,
    "PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----",
}
MAIL = SECRETS["EMAIL"]


def rule(name: str = "no-pii", *types: str, then: str = "redact") -> GuardrailRule:
    return GuardrailRule(name, frozenset(types or TYPES), payload=True, metadata=True, then=then)


REDACT = Inspection([rule()])
FLAG = Inspection([rule(then="flag")])


def found(told: Inspected) -> dict[str, int]:
    """Counts by type."""
    counts: Counter[str] = Counter()
    for _, kind, count in told.counts:
        counts[kind] += count
    return dict(counts)


class Escaped(str):
    """A text that ``write`` writes as nothing but \\u escapes."""

    __slots__ = ()


def write(value: Any) -> str:
    """JSON, with each ``Escaped`` as one."""
    if isinstance(value, Escaped):
        return '"' + "".join(f"\\u{ord(each):04x}" for each in value) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write(key)}: {write(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def texts_in(value: Any) -> Iterator[str]:
    """Every key and value of parsed JSON."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)
    else:
        yield str(value)


def parsed(text: str | bytes) -> list[str]:
    """The texts of JSON; none where it is not JSON."""
    try:
        return list(texts_in(json.loads(text)))
    except ValueError:
        return []


def unpacked(text: str) -> list[str]:
    """What stands one level below a text."""
    below = parsed(text)
    try:
        standard = text.replace("-", "+").replace("_", "/").rstrip("=")
        inner = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return below
    return [*below, inner, *parsed(inner)]


def layers(data: bytes) -> list[str]:
    """Everything that an output says, at any level."""
    whole = data.decode("utf-8", "replace")
    texts = [whole, *parsed(data)]
    return texts + [below for text in texts for below in unpacked(text)]


def says(data: bytes, *secrets: str) -> list[str]:
    """Those of ``secrets`` that stand somewhere in ``data``."""
    told = layers(data)
    return [secret for secret in secrets if any(secret in text for text in told)]


def url_safe(text: str) -> str:
    """Base64 of JSON in the other alphabet, without padding; what is before the text makes the alphabets differ."""
    made = base64.urlsafe_b64encode(write({"?>~": "~~~???>>>" * 2, "note": text}).encode()).decode().rstrip("=")
    assert set(made) & set("-_")
    return made


FORMS: dict[str, Callable[[str], Any]] = {
    "value": lambda text: {"note": text},
    "text alone": lambda text: text,
    "within a text": lambda text: {"note": f"so: {text} and on"},
    "key": lambda text: {text: {"deeper": 1}},
    "deep": lambda text: {"a": [{"b": [[None, True, 1.5, {"c": text}]]}]},
    "escaped": lambda text: {"note": Escaped(text)},
    "escaped key": lambda text: {Escaped(text): None},
    "JSON in a text": lambda text: {"note": write({"inner": [text]})},
    "array in a text": lambda text: [write([1, text])],
    "JSON behind white space": lambda text: [" \n\t" + write({"inner": text})],
    "key of JSON in a text": lambda text: {"note": write({text: 1})},
    "escaped JSON in a text": lambda text: {"note": write({"inner": Escaped(text)})},
    "JSON in a key": lambda text: {write([text]): 1},
    "base64": lambda text: {"note": encoded(f"so: {text} and on")},
    "base64 without padding": lambda text: {"note": encoded(f"so: {text} and on..").rstrip("=")},
    "base64 of JSON": lambda text: {"note": encoded(write({"inner": text}))},
    "base64 of escaped JSON": lambda text: {"note": encoded(write({"inner": Escaped(text)}))},
    "base64 in the other alphabet": lambda text: {"note": url_safe(text)},
    "base64 in a key": lambda text: {encoded(f"so: {text} and on"): 1},
}
