"""One HTTP POST to somebody outside: a webhook, a witness. Follows no redirect, keeps no connection."""

from __future__ import annotations

import contextlib
import http.client
from typing import Final
from urllib.parse import SplitResult

TIMEOUT_S: Final = 5.0
"""For the connection, and for each read."""


def post(url: SplitResult, path: str, body: bytes, content_type: str, most: int) -> tuple[int, bytes]:
    """The answer's status and at most ``most`` bytes of it; of ``url`` the scheme and the host are taken.

    Raises OSError and http.client.HTTPException.
    """
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    with contextlib.closing(kind(url.netloc, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read(most)
