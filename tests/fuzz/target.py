"""What a fuzzed reader is, and the properties that every input must keep.

A *target* is one reader of bytes from outside. For any input (1) it returns or raises an error of ``bus.errors`` with a
registered code, and nothing else; (2) what it returns is encoded to the same bytes again, where the format has one
encoding; (3) where the value is signed or sealed, only the honest samples are believed. What breaks one of them is a
fault. Time and memory are measured by ``tests.fuzz.worker``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bus
from bus.codes import Code
from bus.errors import BusError

CORPUS = Path(__file__).with_name("corpus")
ROOT = Path(bus.__file__).parents[1]
PRODUCT = (str(ROOT / "bus"), str(ROOT / "consumers"))
CRASH = "crash-"
"""Begins the file names of inputs that broke a property."""


class Fault(Exception):
    """An input broke a property."""


class Hang(BaseException):
    """An input took far too long. Not an Exception: no reader may swallow it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One reader. ``seeds`` are honest samples, ``limit`` bytes the longest input, ``share`` its part of all inputs."""

    name: str
    parse: Callable[[bytes], Any]
    seeds: tuple[bytes, ...]
    encode: Callable[[Any], bytes] | None = None
    believe: Callable[[bytes], Any] | None = None
    tokens: tuple[bytes, ...] = ()
    limit: int = 4096
    share: int = 10

    def check(self, data: bytes) -> bool:
        """Whether ``data`` is accepted. Raises Fault, or what the reader should not have raised."""
        if self.believe is not None and refusal(self.believe, data) is None and data not in self.seeds:
            raise Fault("believed, but nobody sealed or signed it")
        error = refusal(self.parse, data, self.encode)
        if error is None:
            return True
        if not isinstance(error.code, Code):
            raise Fault(f"refused with {error.code!r}, which is not registered")
        return False

    def corpus(self) -> list[Path]:
        """Kept inputs, crashing ones last."""
        return sorted((CORPUS / self.name).glob("*"), key=lambda each: (each.name.startswith(CRASH), each.name))

    def samples(self) -> list[bytes]:
        """What mutation starts from: about half honest samples, half kept inputs that broke nothing."""
        kept = [path.read_bytes() for path in self.corpus() if not path.name.startswith(CRASH)]
        return [*self.seeds * max(1, len(kept) // len(self.seeds)), *kept]


def refusal(
    parse: Callable[[bytes], Any], data: bytes, encode: Callable[[Any], bytes] | None = None
) -> BusError | None:
    """How ``parse`` refuses ``data``; None where it takes it. Raises Fault where ``encode`` gives other bytes."""
    try:
        value = parse(data)
    except BusError as error:
        return error
    if encode is not None and encode(value) != data:
        raise Fault("accepted, though it is not what the writer writes")
    return None


def signature(error: BaseException) -> str:
    """Names a fault by its kind and by the product's line that raised it: one input a signature is kept."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if each.filename.startswith(PRODUCT)]
    at = own[-1] if own else frames[-1]
    told = f": {error}" if isinstance(error, Fault) else ""
    return f"{type(error).__name__} at {Path(at.filename).relative_to(ROOT)}:{at.lineno}{told}"
