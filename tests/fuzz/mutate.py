"""Structure-aware mutation: any honest sample, changed where readers of binary and text formats go wrong.

All choices come from one ``random.Random``; a hypothesis strategy may stand in for it, so that tests shrink what fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (0, 1, 2, 31, 32, 33, 63, 64, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
LENGTHS = (
    b"\x00", b"\x01", b"\x02", b"\x7f", b"\x80\x00", b"\x82\x00", b"\x80\x80\x00", b"\xff\x01", b"\x80\x01",
    b"\xfe\xff\x07", b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10", b"\xff" * 9 + b"\x01",
    b"\xfe" + b"\xff" * 8 + b"\x01",
)  # fmt: skip
"""Variable-length integers as Avro writes them: small, odd (negative), padded, over-long, near 2^32 and 2^64."""

TEXTS = (
    b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85",
    "\u0661\u0662".encode(), "\u017f".encode(), "\u0131".encode(), "e\u0301".encode(), "\u202e".encode(),
    b"\r\n", b"\n", b"\t", b" ", b"",
)  # fmt: skip
"""Bytes that are no UTF-8, and characters that fold, count or break lines in unexpected ways."""

DIGITS = (
    b"0", b"-1", b"00", b"1.0", b"1e400", b"1e999999", b"-0", b"1_0", b"0x10", b"NaN", b"Infinity", b"true", b"null",
    str(2**32).encode(), str(2**63).encode(), str(2**64).encode(), b"9" * 400, b"9" * 4400,
)  # fmt: skip

Edit = Callable[[Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def _span(random: Random, data: bytearray) -> slice:
    """A part of ``data``, mostly short."""
    at = random.randrange(len(data) + 1)
    return slice(at, at + random.choice((1, 1, 2, 4, 8, 16, 64, len(data))))


def flip(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """One bit."""
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def byte(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """One byte."""
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def cut(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A part goes."""
    del data[_span(random, data)]


def truncate(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """The end goes."""
    del data[random.randrange(len(data) + 1) :]


def repeat(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A part comes again, once or many times."""
    part = bytes(data[_span(random, data)])
    at = random.randrange(len(data) + 1)
    data[at:at] = part * random.choice((1, 1, 2, 3, 40, 300))


def splice(random: Random, data: bytearray, samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A part of another sample comes in, or takes the place of a part."""
    other = bytearray(random.choice(samples))
    to = _span(random, data)
    data[to if random.randrange(2) else slice(to.start, to.start)] = other[_span(random, other)]


def number(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A big-endian field gets a number at the edge of something."""
    size = random.choice((1, 2, 4, 8))
    at = random.randrange(len(data) + 1)
    data[at : at + size] = (random.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "big")


def length(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A length takes the place of up to two bytes."""
    at = random.randrange(len(data) + 1)
    data[at : at + random.randrange(3)] = random.choice(LENGTHS)


def digits(random: Random, data: bytearray, _samples: Sequence[bytes], _tokens: Sequence[bytes]) -> None:
    """A run of decimal digits becomes another number."""
    at = next((i for i in range(random.randrange(len(data) + 1), len(data)) if 48 <= data[i] <= 57), len(data))
    end = at
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    data[at:end] = random.choice(DIGITS)


def token(random: Random, data: bytearray, _samples: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    """A word of the format, or odd text, comes in or takes the place of a part; sometimes nested deeply."""
    word = random.choice(tokens or TEXTS) * random.choice((1, 1, 1, 1, 1, 1, 2, 50, 2000))
    to = _span(random, data)
    data[to if random.randrange(2) else slice(to.start, to.start)] = word


EDITS: tuple[Edit, ...] = (flip, byte, cut, truncate, repeat, splice, number, length, digits, token)
TEXT_EDITS: tuple[Edit, ...] = (flip, byte, cut, truncate, repeat, splice, digits, token, token, token)


def edited(random: Random, data: bytes, samples: Sequence[bytes], tokens: Sequence[bytes], limit: int) -> bytes:
    """``data`` after one to eight edits, at most ``limit`` bytes."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        random.choice(TEXT_EDITS if tokens else EDITS)(random, out, samples, tokens)
        del out[limit:]
    return bytes(out)


def mutated(random: Random, samples: Sequence[bytes], tokens: Sequence[bytes], limit: int) -> bytes:
    """An edited sample; one in fifty stays as it is."""
    data = random.choice(samples)
    return edited(random, data, samples, tokens, limit) if random.randrange(50) else data
