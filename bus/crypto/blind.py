"""Blind index: tokens by which who may open a record finds it by a value in it, and nobody else learns the value.

A token is a truncated PRF of the normalised value (HMAC-SHA-256, 16 bytes) under a key of one reader, epoch and field.
It leaks equality within an epoch to whoever reads the topic; guessing a value needs the key. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bus.crypto.keys import Secret
from bus.guardrails.content import Avro, is_avro
from bus.wire.derived import TOKEN_LENGTH

Value = str | int | float | bool
MAX_TEXT: Final = 256
"""Characters. More do not name a case, and cost much: NFKC makes up to 18 of one, and each reader has a token."""


def token(key: Secret, value: str | float | bool) -> bytes:
    """The token (16 bytes) of ``value``: text by NFKC and case folding, anything else as JSON writes it."""
    text = unicodedata.normalize("NFKC", value).casefold() if isinstance(value, str) else json.dumps(value)
    return hmac.digest(key.reveal(), text.encode("utf-8", "surrogatepass"), hashlib.sha256)[:TOKEN_LENGTH]


def indexed(value: Value) -> bool:
    """Whether ``value`` has a token: texts of more than ``MAX_TEXT`` characters have none."""
    return not isinstance(value, str) or len(value) <= MAX_TEXT


def values(payload: bytes, fields: Sequence[str]) -> list[tuple[str, Value]]:
    """What stands under ``fields`` (keys with dots between them) of a payload (JSON, Avro) and has a token, each once
    with its field; nothing where it is neither."""
    try:
        value = Avro.read(payload).value if is_avro(payload) else json.loads(payload)
    except (ValueError, RecursionError):
        return []
    found = {(name, type(each), each): None for name in fields for each in _values(value, name.split("."))}
    return [(name, each) for name, _, each in found]


def _values(value: Any, path: Sequence[str]) -> Iterator[Value]:
    """What is at ``path``, through arrays into each element, in their order. Objects and null have no token."""
    left = [(value, 0)]
    while left:
        each, at = left.pop()
        if isinstance(each, list):
            left += [(one, at) for one in reversed(each)]
        elif at < len(path):
            if isinstance(each, Mapping) and path[at] in each:
                left.append((each[path[at]], at + 1))
        elif isinstance(each, str | int | float) and indexed(each):
            yield each
