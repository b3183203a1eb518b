"""Finds many strings in the bytes of a folder, however they are written there: every form of ``demo.observer``.

A form of few bytes may stand in a ciphertext by chance: it counts where it stands in text, of the 16 bytes around it
at most two no printable ASCII (in random bytes once in some ten thousand such places).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.observer import encodings, stored

SHORT: Final = 8
AROUND: Final = 8
BLOCK: Final = 8 * 1024 * 1024
ODD: Final = 2
_TEXT: Final = frozenset(range(32, 127)) | {9, 10, 13}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, and in how much."""

    items: frozenset[str]
    files: int
    bytes_read: int


class Scanner:
    """Looks for ``items`` in many places."""

    def __init__(self, items: Collection[str]) -> None:
        self._forms: dict[bytes, list[tuple[bytes, str]]] = defaultdict(list)
        for item in items:
            for form in {form for form in encodings(item) if len(form) >= 4}:
                self._forms[form[:4]].append((form, item))
        import numpy as np  # of the extra `plot`

        self._np: Any = np
        self._first = np.sort(np.frombuffer(b"".join(self._forms), dtype="<u4"))

    def folder(self, folder: Path, *, without: str = "-") -> Seen:
        """Everything below ``folder`` but folders whose name begins with ``without``."""
        found: set[str] = set()
        files = count = 0
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(part.startswith(without) for part in path.relative_to(folder).parts):
                files += 1
                for data in stored(path):
                    count += len(data)
                    found |= self.find(data)
        return Seen(frozenset(found), files, count)

    def find(self, data: bytes) -> set[str]:
        """Items in ``data``."""
        found: set[str] = set()
        for begin in range(0, len(data), BLOCK):
            block = data[begin : begin + BLOCK + 4096]
            for at in self._candidates(block):
                for form, item in self._forms[block[at : at + 4]]:
                    if item not in found and block.startswith(form, at) and _in_text(block, at, len(form)):
                        found.add(item)
        return found

    def _candidates(self, block: bytes) -> Iterator[int]:
        """Where some form's first four bytes stand."""
        for shift in range(4):
            size = (len(block) - shift) // 4
            if size > 0:
                words = self._np.frombuffer(block, dtype="<u4", count=size, offset=shift)
                places = self._np.searchsorted(self._first, words)
                hits = self._first[self._np.minimum(places, len(self._first) - 1)] == words
                for number in self._np.flatnonzero(hits):
                    yield int(number) * 4 + shift


def _in_text(block: bytes, at: int, size: int) -> bool:
    if size >= SHORT:
        return True
    around = block[max(at - AROUND, 0) : at] + block[at + size : at + size + AROUND]
    return sum(each not in _TEXT for each in around) <= ODD
