"""The bytes between a runner and its workload: `u32 length | u8 kind | content type behind u16 | data`."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

MAX_FRAME: Final = 64 * 1024 * 1024


class Kind(IntEnum):
    """INPUT goes in; READY, OUTPUT, NOTHING (no result) and FAILED (with the name of an error) come out."""

    INPUT = 0
    READY = 1
    OUTPUT = 2
    NOTHING = 3
    FAILED = 4


class Reader(Protocol):
    """What gives bytes."""

    def read(self, size: int, /) -> bytes | None:
        """At most ``size`` bytes, b"" at the end."""


def pack(kind: Kind, content_type: str = "", data: bytes = b"") -> bytes:
    """One frame."""
    told = content_type.encode()
    head = bytes((kind,)) + len(told).to_bytes(2, "big")
    return (3 + len(told) + len(data)).to_bytes(4, "big") + head + told + data


def read(reader: Reader) -> tuple[Kind, str, bytes] | None:
    """The next frame, or None where the other side went away. Raises ValueError for no frame."""
    head = _exactly(reader, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if not 3 <= size <= MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    body = _exactly(reader, size)
    if body is None:
        return None
    end = 3 + int.from_bytes(body[1:3], "big")
    if end > size:
        raise ValueError(f"a content type of {end - 3} bytes in a frame of {size}")
    return Kind(body[0]), body[3:end].decode(), body[end:]


def _exactly(reader: Reader, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = reader.read(size - len(found))
        if not part:
            return None
        found += part
    return bytes(found)
