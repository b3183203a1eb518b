"""base64url without padding (RFC 7515), one text a value: bits behind the last byte are refused, as is padding."""

from __future__ import annotations

import base64
import re

from bus.codes import Code
from bus.errors import WireError


def encode(data: bytes) -> str:
    """``data`` as text."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes in ``text``. Raises WireError(decode) for any text that ``encode`` does not write."""
    if re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1 and not text.endswith("\n"):
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if encode(data) == text:
            return data
    raise WireError("base64url: expected text without padding", code=Code.DECODE)
