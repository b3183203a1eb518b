"""JSON text with some of its strings written anew; all else stays as it stands, so that nothing needs a walk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
_NUMBER: Final = re.compile(r"-?[\d.]+(?:e[+-]?\d+)?")
"""As ``str`` writes those that are looked at."""
_STRING: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"')


def rewritten(document: str, found: AbstractSet[str], rewrite: Callable[[str], str]) -> str | None:
    """``document``, known to be JSON, with each string of ``found`` as ``rewrite`` gives it; None, before any call,
    where one of them stands in a key, or may stand in a number."""
    if any(map(_NUMBER.fullmatch, found)):
        return None
    # In turn what stands between strings, and what stands in one.
    escaped = "\\" in document
    pieces: list[str] = _STRING.split(document) if escaped else document.split('"')
    texts = [json.loads(f'"{each}"') for each in pieces[1::2]] if escaped else pieces[1::2]
    places = [at for at, text in enumerate(texts) if text in found]
    if any(pieces[2 * at + 2].lstrip().startswith(":") for at in places):
        return None
    for at in places:
        text = texts[at]
        if (instead := rewrite(text)) is not text:
            pieces[2 * at + 1] = _ENCODER.encode(instead)[1:-1]
    return '"'.join(pieces)
