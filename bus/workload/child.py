"""The confined process of a workload: `python -I -m bus.workload.child MODULE:FUNC CODE MEMORY`.

It is given payloads on standard input and gives results on what was standard output. It has no keys, no environment,
no network and no files but its code and Python's; what the function prints goes nowhere, and of an error only its type
is told: nothing of a payload leaves but the result.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import bus
from bus.client.payload import decode_payload, encode_payload
from bus.errors import BusError
from bus.workload.channel import Kind, pack, read
from bus.workload.sandbox import confine


def readable(code: Path) -> list[Path]:
    """What a workload may read: its code, this package, Python and the system's libraries."""
    found = [code, Path(bus.__file__).parent, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve()]
    system = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/urandom")
    return [*found, *map(Path, system)]


def main(target: str, code: Path, memory: int) -> None:
    """Answer frames until standard input ends."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    try:
        confine(readable(code), memory)
        sys.path.insert(0, str(code))
        module, _, name = target.partition(":")
        function: Callable[..., object] = getattr(importlib.import_module(module), name)
        hints = get_type_hints(function)
        kind = next((each for argument, each in hints.items() if argument != "return"), None)
    except BaseException as error:  # whatever it is, the runner must hear of it
        text = str(error) if isinstance(error, BusError) else _name(error)
        _put(sink, pack(Kind.FAILED, "", text.encode()))
        return
    _put(sink, pack(Kind.READY))
    while (frame := read(source)) is not None:
        _, content_type, data = frame
        try:
            result = function(decode_payload(data, content_type, kind))
            told = pack(Kind.NOTHING) if result is None else _output(result)
        except Exception as error:  # the function's own
            told = pack(Kind.FAILED, "", _name(error).encode())
        _put(sink, told)


def _name(error: BaseException) -> str:
    """The name of an error of Python's own or of this package: a function could say anything by one that it makes."""
    known = type(error).__module__ == "builtins" or isinstance(error, BusError)
    return type(error).__name__ if known else "an error of its own"


def _output(result: object) -> bytes:
    data, content_type = encode_payload(result)
    return pack(Kind.OUTPUT, content_type, data)


def _put(sink: int, data: bytes) -> None:
    at = 0
    while at < len(data):
        at += os.write(sink, data[at:])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
