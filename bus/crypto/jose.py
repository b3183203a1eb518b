"""Parts of a compact JWS (RFC 7515), read strictly."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any


def json_part(part: bytes) -> dict[str, Any] | None:
    """The JSON object in a part of a token, or None. Two values of one name are refused: which counts is a guess."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    try:
        value = json.loads(base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", True), object_pairs_hook=once)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
