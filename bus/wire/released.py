"""What the enforcer releases, uint32 length | origin (10) | ticket | envelope | zeros: sliced, as each part has one
encoding only. The Avro layout is schemas/released.v1.avsc.
"""

from __future__ import annotations

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec, envelope
from bus.wire.envelope import MAX_TICKET

ORIGIN: slice = slice(4, 14)


def places(plaintext: bytes) -> tuple[bytes, int, int]:
    """The ticket, and where the envelope begins and ends. Raises WireError(decode)."""
    end = envelope.content_end(plaintext)
    at, ticket = 15, b""
    if plaintext[14:15] != b"\x00":
        ticket, at = codec.read_prefixed(plaintext, 14, MAX_TICKET, code=Code.DECODE)
    size, at = codec.read_length(plaintext, at, code=Code.DECODE)
    if at + size != end:
        raise WireError(f"released: expected an envelope of {end - at} bytes, found {size}", code=Code.DECODE)
    return ticket, at, end


def payload_of(plaintext: bytes) -> bytes:
    """The payload of its envelope. Raises WireError(decode)."""
    _, begin, end = places(plaintext)
    _, _, at, *_ = envelope.split_at(plaintext, begin, end)
    _, start = codec.read_length(plaintext, at, code=Code.DECODE)
    return plaintext[start:end]
