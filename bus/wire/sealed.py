"""Framing of a Sealed record (agent -> enforcer): every field before the body has a fixed place.

Parsing slices and checks; it verifies nothing. A value that passes has one encoding only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.schemas import schema

SUITE: Final = (1).to_bytes(2, "big")
HEADER_LENGTH: Final = 52
MAC_END: Final = 84
TAG_LENGTH: Final = 16
MIN_LENGTH: Final = MAC_END + 1 + TAG_LENGTH
MAX_LENGTH: Final = 1_000_000
"""Bytes. The largest value that may be offered to an enforcer; see ``derived.MAX_OVERHEAD`` for what an output adds."""

HEAD: Final = schema("sealed").head + SUITE
"""Marker and suite: the 12 bytes that begin every Sealed of this version."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A framed, unverified Sealed. ``tail`` is the body behind its length, as the MAC covers it."""

    header: bytes
    key_id: bytes
    instance: bytes
    sequence: int
    mac: bytes
    tail: bytes
    body: bytes


def header(key_id: bytes, instance: bytes, sequence: int) -> bytes:
    """The 52 bytes before the MAC."""
    return HEAD + key_id + instance + sequence.to_bytes(8, "big")


def check_head(value: bytes) -> None:
    """Raise WireError (bounds, version) unless ``value`` has a possible length and begins as a Sealed of suite 1."""
    size = len(value)
    if not MIN_LENGTH <= size <= MAX_LENGTH:
        raise WireError(f"sealed: expected {MIN_LENGTH} to {MAX_LENGTH} bytes, found {size}")
    if not value.startswith(HEAD):
        raise WireError(f"sealed: expected marker and suite {HEAD.hex()}, found {value[:12].hex()}", code=Code.VERSION)


def body_start(value: bytes) -> int:
    """Where the body begins; raises WireError(bounds) unless its length is minimal and equal to the rest."""
    size, start = codec.read_length(value, MAC_END)
    if start + size != len(value):
        raise WireError(f"sealed: expected a body of {size} bytes, found {len(value) - start}")
    return start


def parse(value: bytes) -> Sealed:
    """Slice ``value``. Raises WireError: bounds (size, varint, trailing bytes) or version (marker, suite)."""
    check_head(value)
    start = body_start(value)
    return Sealed(
        header=value[:HEADER_LENGTH],
        key_id=value[12:28],
        instance=value[28:44],
        sequence=int.from_bytes(value[44:52], "big"),
        mac=value[52:84],
        tail=value[84:],
        body=value[start:],
    )
