"""Fields of a JSON payload that are sealed for another domain's readers, inside a record that this one's may read.

A sealed field stands as ``{"sealed": domain, "data": base64}``. Its source makes it, the enforcer sees that it is
there, and who may read the other domain finds the value in its place; others find what stands there. A path goes
through objects by key and through arrays into each element; a field that is not there is no fault. Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bus.guardrails.unpack import once

SUITE: Final = 1
SHORTEST: Final = 49
"""First byte and least length of what a source seals (``bus.crypto.session``)."""
Path = tuple[str, ...]
Rules = Mapping[Path, str]
"""The domain that each field is sealed for."""
_KEYS: Final = {"sealed", "data"}
_Place = tuple[Any, Any, str]
"""What holds a value, the key of it there, and the path to it with the indexes of arrays in it."""


def read(payload: bytes) -> Any:
    """The JSON in ``payload``. Raises ValueError or RecursionError where there is none, or a key is given twice."""
    return json.loads(payload, object_pairs_hook=once)


def write(value: Any) -> bytes:
    """JSON as it is written anew. Raises ValueError for a number beyond what floats hold."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def places(value: Any, path: Path, way: str = "") -> Iterator[_Place]:
    """Where the field stands."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from places(each, path, f"{way}[{index}]")
    elif isinstance(value, dict) and path[0] in value:
        here = f"{way}.{path[0]}"
        if path[1:]:
            yield from places(value[path[0]], path[1:], here)
        else:
            yield value, path[0], here


def is_sealed(value: Any, domain: str) -> bool:
    """Whether ``value`` stands for one that is sealed for ``domain``."""
    return (
        isinstance(value, dict)
        and value.keys() == _KEYS
        and value["sealed"] == domain
        and isinstance(value["data"], str)
        and len(data := data_of(value)) >= SHORTEST
        and data[0] == SUITE
    )


def data_of(value: Mapping[str, str]) -> bytes:
    """The sealed bytes; empty where there are none."""
    try:
        return base64.b64decode(value["data"], validate=True)
    except ValueError:
        return b""


def seal_fields(payload: bytes, rules: Rules, seal: Callable[[str, str, bytes], bytes]) -> bytes:
    """``payload`` with its fields sealed: ``seal`` takes a domain, the path to the field, and its value as JSON.

    Raises ValueError or RecursionError where the payload is no JSON.
    """
    value, changed = read(payload), False
    for path, domain in rules.items():
        for held, key, way in list(places(value, path)):
            sealed = seal(domain, way, write(held[key]))
            held[key] = {"sealed": domain, "data": base64.b64encode(sealed).decode()}
            changed = True
    return write(value) if changed else payload


def open_fields(payload: bytes, rules: Rules, opener: Callable[[str, str, bytes], bytes | None]) -> bytes:
    """``payload`` with the values of fields that ``opener`` opens (it gives None where its key is not held).

    Raises ValueError where a field is not sealed or holds no JSON, and what ``opener`` raises.
    """
    value, changed = read(payload), False
    for path, domain in rules.items():
        for held, key, way in list(places(value, path)):
            if not is_sealed(held[key], domain):
                raise ValueError(f"field {'.'.join(path)} is not sealed")
            inner = opener(domain, way, data_of(held[key]))
            if inner is not None:
                held[key], changed = read(inner), True
    return write(value) if changed else payload


class Unsealed(ValueError):
    """A field that should be sealed and is not; its name."""


class Kept:
    """Sealed fields of one payload, kept aside while guardrails and masks look at the rest: what is found in base64 by
    chance must not be redacted."""

    def __init__(self, payload: bytes, rules: Rules) -> None:
        """Raises Unsealed for a field that is not sealed, ValueError or RecursionError where there is no JSON."""
        value = read(payload)
        self._rules = rules
        self._kept: list[Any] = []
        for path, domain in rules.items():
            for held, key, _ in list(places(value, path)):
                if not is_sealed(held[key], domain):
                    raise Unsealed(".".join(path))
                self._kept.append(held[key])
                held[key] = {"sealed": len(self._kept) - 1}
        self.without = write(value) if self._kept else payload
        """The payload with a number in place of each."""

    def back(self, payload: bytes) -> bytes:
        """``payload`` with the fields in their places again. Raises ValueError where they are not there."""
        if not self._kept:
            return payload
        value = read(payload)
        for path in self._rules:
            for held, key, _ in list(places(value, path)):
                if isinstance(told := held[key], dict) and isinstance(told.get("sealed"), int):
                    held[key] = self._kept[told["sealed"]]
        return write(value)
