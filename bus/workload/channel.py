"""The bytes between a runner and its workload: `u32 length | u8 kind | content type behind u8 | data`."""

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
    return (2 + len(told) + len(data)).to_bytes(4, "big") + bytes((kind, len(told))) + told + data


def read(reader: Reader) -> tuple[Kind, str, bytes] | None:
    """The next frame, or None where the other side went away. Raises ValueError for no frame."""
    head = _exactly(reader, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if not 2 <= size <= MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    body = _exactly(reader, size)
    if body is None or body[1] + 2 > size:
        return None
    end = 2 + body[1]
    return Kind(body[0]), body[2:end].decode(), body[end:]


def _exactly(reader: Reader, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = reader.read(size - len(found))
        if not part:
            return None
        found += part
    return bytes(found)
