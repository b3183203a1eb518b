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
from typing import Any

from bus.crypto.keys import Secret
from bus.wire.derived import TOKEN_LENGTH

Value = str | int | float | bool


def token(key: Secret, value: str | float | bool) -> bytes:
    """The token (16 bytes) of ``value``: text by NFKC and case folding, anything else as JSON writes it."""
    text = unicodedata.normalize("NFKC", value).casefold() if isinstance(value, str) else json.dumps(value)
    return hmac.digest(key.reveal(), text.encode("utf-8", "surrogatepass"), hashlib.sha256)[:TOKEN_LENGTH]


def values(payload: bytes, fields: Sequence[str]) -> list[tuple[str, Value]]:
    """What stands under ``fields`` (keys with dots between them) of a JSON payload, each once with its field; nothing
    where it is no JSON."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return []
    found = {(field, type(each), each): None for field in fields for each in _values(value, field.split("."))}
    return [(field, each) for field, _, each in found]


def _values(value: Any, path: Sequence[str]) -> Iterator[Value]:
    """What is at ``path``, through arrays into each element. Objects and null have no token."""
    if isinstance(value, list):
        for each in value:
            yield from _values(each, path)
    elif path:
        if isinstance(value, Mapping) and path[0] in value:
            yield from _values(value[path[0]], path[1:])
    elif isinstance(value, str | int | float):
        yield value
