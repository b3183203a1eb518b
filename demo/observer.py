"""An observer with the broker's disks: looks for private items in every stored byte, in the encodings a leak may take.

Index files are preallocated: holes hold no byte and are not read. Record batches that are compressed are decompressed
(gzip) or refused by name, so that a codec cannot hide an item.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was found, and how much was looked at."""

    items: frozenset[str]
    files: int
    bytes_read: int


def encodings(item: str) -> set[bytes]:
    """The item as it may stand in a file: raw, JSON-escaped, base64 at each alignment, hex, UTF-16."""
    data = item.encode()
    forms = {
        data,
        *(json.dumps(item, ensure_ascii=each)[1:-1].encode() for each in (True, False)),
        data.hex().encode(),
        data.hex().upper().encode(),
    }
    forms |= {item.encode("utf-16-le"), item.encode("utf-16-be")}
    for shift in range(3):
        # Characters that depend on the neighbours are cut from both ends.
        text = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        start = (shift * 8 + 5) // 6
        whole = (shift + len(data)) * 8 // 6
        core = text[start:whole].encode()
        if len(core) >= 4:
            forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def look(folder: Path, items: Iterable[str]) -> Sighting:
    """Look for ``items`` in every byte below ``folder``."""
    wanted = {item: encodings(item) for item in items}
    found: set[str] = set()
    files = count = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        files += 1
        places = stored(path)
        count += len(places[0])
        for item, forms in wanted.items():
            if item not in found and any(form in place for place in places for form in forms):
                found.add(item)
    return Sighting(frozenset(found), files, count)


def stored(path: Path) -> list[bytes]:
    """What stands in a file, and decompressed what its batches hold where it is a log."""
    data = b"".join(_extents(path))
    return [data, *(_inflated(data) if path.suffix == ".log" else ())]


def _extents(path: Path) -> Iterator[bytes]:
    """The allocated bytes of a sparse file."""
    with path.open("rb") as source:
        end = os.fstat(source.fileno()).st_size
        at = 0
        while at < end:
            try:
                start = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole is left
            at = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            yield os.pread(source.fileno(), at - start, start)


def _inflated(data: bytes) -> Iterator[bytes]:
    """Decompressed records of the batches (message format v2) in a segment."""
    at = 0
    while at + 61 <= len(data):
        (length,) = struct.unpack_from(">i", data, at + 8)
        (attributes,) = struct.unpack_from(">h", data, at + 21)
        codec = attributes & 7
        if length <= 0:
            return
        if codec == 1:
            yield zlib.decompress(data[at + 61 : at + 12 + length], 31)
        elif codec:
            raise ValueError(f"a batch is compressed with codec {codec}: the observer must learn it first")
        at += 12 + length
