"""The bytes of an encrypted batch: `SBF1` | scheme u8 | context 32 | rows u16 | columns u8 | the columns.

A column: name behind u8 | bound f64 | depth u8 | ciphertext behind u32. Names ascend; one encoding only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Self

from bus.codes import Code
from bus.errors import WireError

MAGIC: Final = b"SBF1"
MAX_COLUMNS: Final = 64
MAX_CIPHER: Final = 1_048_576
MAX_DEPTH: Final = 8
CONTENT_TYPE: Final = "application/vnd.sealbus.fhe"
_HEAD: Final = struct.Struct(">4sB32sHB")
_COLUMN: Final = struct.Struct(">dBI")


class Scheme(IntEnum):
    """CKKS computes with real numbers, to some seven digits; BFV with integers, exactly."""

    CKKS = 1
    BFV = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One ciphertext, as the library holds it or as bytes; values within ``bound`` after ``depth`` multiplications."""

    cipher: Any = field(repr=False)
    bound: float
    depth: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A batch whose ciphertexts are bytes."""

    scheme: Scheme
    context: bytes
    rows: int
    columns: Mapping[str, Column] = field(repr=False)

    def encode(self) -> bytes:
        """Its bytes."""
        parts = [_HEAD.pack(MAGIC, self.scheme, self.context, self.rows, len(self.columns))]
        for name, each in sorted(self.columns.items()):
            data = name.encode()
            parts += [bytes((len(data),)), data, _COLUMN.pack(each.bound, each.depth, len(each.cipher)), each.cipher]
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The frame in ``data``. Raises WireError(decode)."""
        try:
            return cls(*_parse(data))
        except (ValueError, struct.error, IndexError):
            raise WireError("FHE: expected a batch of encrypted columns", code=Code.DECODE) from None


def _parse(data: bytes) -> tuple[Scheme, bytes, int, dict[str, Column]]:
    """Raises ValueError, struct.error or IndexError for anything else."""
    magic, scheme, context, rows, count = _HEAD.unpack_from(data)
    if magic != MAGIC or not 1 <= count <= MAX_COLUMNS or not rows:
        raise ValueError("head")
    at, columns, last = _HEAD.size, dict[str, Column](), ""
    for _ in range(count):
        begin = at + 1 + data[at]
        name = data[at + 1 : begin].decode()
        bound, depth, size = _COLUMN.unpack_from(data, begin)
        at = begin + _COLUMN.size + size
        if name <= last or depth > MAX_DEPTH or size > MAX_CIPHER or at > len(data):
            raise ValueError(name)
        if not (math.isfinite(bound) and bound >= 0):
            raise ValueError(name)
        columns[name], last = Column(data[at - size : at], bound, depth), name
    if at != len(data):
        raise ValueError("rest")
    return Scheme(scheme), context, rows, columns
