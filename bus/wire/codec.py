"""Strict Avro: fastavro behind checks that it does not make itself.

fastavro alone takes trailing bytes, non-minimal and over-long integers, negative enum indexes, wrong block sizes and
repeated map keys. ``decode`` therefore accepts only what ``encode`` would have written: it decodes, encodes again and
compares. Two encodings of one value would be a covert channel in whatever is copied on unread. Varints that are read
by slicing (record framing) are read by ``read_length``, which refuses anything but the shortest form.
"""

from __future__ import annotations

import io
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from bus.codes import Code
from bus.errors import WireError
from bus.wire.schemas import Schema


def encode(kind: Schema, value: Any) -> bytes:
    """``value`` in the schema's binary encoding, without a marker."""
    out = io.BytesIO()
    schemaless_writer(out, kind.parsed, value)
    return out.getvalue()


def decode(kind: Schema, data: bytes, *, code: Code = Code.DECODE) -> Any:
    """The value that ``data`` holds, whole and canonical. Raises WireError(code) for anything else."""
    source = io.BytesIO(data)
    try:
        value = schemaless_reader(source, kind.parsed, None)
    except Exception as error:  # fastavro raises many unrelated types on bad bytes
        raise WireError(f"{kind.name}: not decodable: {type(error).__name__}", code=code) from error
    if source.tell() != len(data):
        raise WireError(f"{kind.name}: expected {source.tell()} bytes, found {len(data)}", code=code)
    try:
        again = encode(kind, value)
    except Exception as error:
        raise WireError(f"{kind.name}: not encodable: {type(error).__name__}", code=code) from error
    if again != data:
        raise WireError(f"{kind.name}: not in canonical form", code=code)
    return value


def decode_marked(kind: Schema, data: bytes, *, code: Code = Code.DECODE) -> Any:
    """Like ``decode`` for bytes that begin with the schema's marker; raises WireError(version) for another marker."""
    check_marker(kind, data)
    return decode(kind, data[len(kind.head) :], code=code)


def check_marker(kind: Schema, data: bytes) -> None:
    """Raise WireError unless ``data`` begins with the marker of ``kind``."""
    head = kind.head
    if not data.startswith(head):
        if len(data) < len(head):
            raise WireError(f"{kind.name}: expected at least {len(head)} bytes, found {len(data)}")
        raise WireError(
            f"{kind.name}: expected marker {head.hex()}, found {data[: len(head)].hex()}",
            code=Code.VERSION,
        )


def registered_code(text: str, what: str) -> Code:
    """``text`` as a code of the registry. Raises WireError(decode) for one that it does not know."""
    try:
        return Code(text)
    except ValueError:
        raise WireError(f"{what}: unknown code {text!r}", code=Code.DECODE) from None


def length(count: int) -> bytes:
    """``count`` >= 0 as Avro writes a length: zig-zag, variable length, shortest form."""
    value = count << 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefixed(data: bytes) -> bytes:
    """``data`` as an Avro bytes or string value."""
    return length(len(data)) + data


def text(value: str) -> bytes:
    """``value`` as an Avro string."""
    return prefixed(value.encode())


def read_length(data: bytes, at: int, *, code: Code = Code.BOUNDS) -> tuple[int, int]:
    """A length at ``at`` and the place after it. At most 5 bytes, not negative, shortest form, else WireError(code)."""
    # Most lengths take one byte or two, and every record has several.
    pair = data[at : at + 2]
    if len(pair) == 2:
        low, high = pair
        if low < 0x80:
            if not low & 1:
                return low >> 1, at + 1
        elif 0 < high < 0x80 and not low & 1:
            return (low & 0x7F | high << 7) >> 1, at + 2
    value = shift = 0
    for place in range(at, min(at + 5, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value & 1:
                break
            return value >> 1, place + 1
        shift += 7
    raise WireError(f"length at byte {at}: expected a minimal, non-negative varint", code=code)


def read_prefixed(data: bytes, at: int, limit: int, *, code: Code = Code.BOUNDS) -> tuple[bytes, int]:
    """Bytes behind their length, at most ``limit`` of them, and the place after them."""
    size, start = read_length(data, at, code=code)
    end = start + size
    if size > limit or end > len(data):
        raise WireError(f"length at byte {at}: {size} is over {min(limit, len(data) - start)}", code=code)
    return data[start:end], end
