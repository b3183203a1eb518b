"""The part of CBOR (RFC 8949) and COSE_Sign1 (RFC 9052) that attestation documents use, read strictly.

Integers, byte and text strings, arrays, maps, false, true and null, of definite length and shortest form; no tag but
the one at the front of a COSE_Sign1, no floats. Time and memory are bounded by the input's length: an item is at least
a byte, a string is copied once, and arrays and maps nest at most eight deep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError

MAX_DEPTH: Final = 8
_SIMPLE: Final = {20: False, 21: True, 22: None}
_SIGN1_TAG: Final = b"\xd2"

Key = int | bytes | str
Value = int | bytes | str | bool | list["Value"] | dict[Key, "Value"] | None


def loads(data: bytes) -> Value:
    """The one item that ``data`` is. Raises WireError(decode)."""
    value, at = _item(data, 0, MAX_DEPTH)
    if at != len(data):
        raise _refused(f"{len(data) - at} bytes behind the item")
    return value


def head(major: int, number: int) -> bytes:
    """The first bytes of an item: its major type (0 to 7) with a number in shortest form."""
    if number < 24:
        return bytes([major << 5 | number])
    size = next(each for each in (1, 2, 4, 8) if number < 1 << 8 * each)
    return bytes([major << 5 | 23 + size.bit_length()]) + number.to_bytes(size, "big")


def byte_string(data: bytes) -> bytes:
    """``data`` as an item."""
    return head(2, len(data)) + data


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1: the protected header as bytes and as a map, payload, signature (raw r | s)."""

    protected: bytes
    headers: dict[Key, Value]
    payload: bytes
    signature: bytes

    def signed(self, external: bytes = b"") -> bytes:
        """What the signature covers (RFC 9052, section 4.4)."""
        context = head(3, len("Signature1")) + b"Signature1"
        return head(4, 4) + context + byte_string(self.protected) + byte_string(external) + byte_string(self.payload)


def read_sign1(data: bytes) -> Sign1:
    """The COSE_Sign1 in ``data``, with or without its tag. Raises WireError(decode). The signature is not verified."""
    value = loads(data.removeprefix(_SIGN1_TAG))
    if not isinstance(value, list) or len(value) != 4:
        raise _refused("expected an array of four")
    protected, unprotected, payload, signature = value
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise _refused("expected protected header, payload and signature as bytes")
    headers = loads(protected) if protected else {}
    if not isinstance(headers, dict) or not isinstance(unprotected, dict) or headers.keys() & unprotected.keys():
        raise _refused("expected headers as maps that share no label")
    return Sign1(protected, headers, payload, signature)


def _item(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if at >= len(data):
        raise _refused("it ends too early")
    major, low = data[at] >> 5, data[at] & 31
    if major == 7:
        if low not in _SIMPLE:
            raise _refused("a float or a simple value")
        return _SIMPLE[low], at + 1
    number, at = _number(data, at + 1, low)
    if major < 2:
        return (number if major == 0 else -1 - number), at
    if number > len(data) - at:  # an item takes at least a byte
        raise _refused("it is longer than its bytes")
    if major < 4:
        return _string(data[at : at + number], text=major == 3), at + number
    if depth == 0 or major == 6:
        raise _refused("a tag, or nested too deep")
    return _array(data, at, number, depth) if major == 4 else _map(data, at, number, depth)


def _number(data: bytes, at: int, low: int) -> tuple[int, int]:
    if low < 24:
        return low, at
    if low > 27:
        raise _refused("an indefinite length")
    size = 1 << low - 24
    found = data[at : at + size]
    number = int.from_bytes(found, "big")
    if len(found) != size or number < (24 if size == 1 else 1 << 4 * size):
        raise _refused("a number that is cut or not in shortest form")
    return number, at + size


def _string(found: bytes, *, text: bool) -> Value:
    if not text:
        return found
    try:
        return found.decode()
    except UnicodeDecodeError:
        raise _refused("text that is not UTF-8") from None


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[Value, int]:
    values: list[Value] = []
    for _ in range(count):
        value, at = _item(data, at, depth - 1)
        values.append(value)
    return values, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[Value, int]:
    found: dict[Key, Value] = {}
    for _ in range(count):
        key, at = _item(data, at, depth - 1)
        # False and True would collide with 0 and 1.
        if isinstance(key, bool) or not isinstance(key, int | bytes | str) or key in found:
            raise _refused("a key that is given twice or is no number or string")
        found[key], at = _item(data, at, depth - 1)
    return found, at


def _refused(why: str) -> WireError:
    return WireError(f"CBOR: {why}", code=Code.DECODE)
