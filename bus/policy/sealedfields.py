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

Path = tuple[str, ...]
Rules = Mapping[Path, str]
"""The domain that each field is sealed for."""
_KEYS: Final = {"sealed", "data"}
_Place = tuple[Any, Any]
"""What holds a value, and the key or index of it there."""


def read(payload: bytes) -> Any:
    """The JSON in ``payload``. Raises ValueError or RecursionError where there is none, or a key is given twice."""
    return json.loads(payload, object_pairs_hook=once)


def write(value: Any) -> bytes:
    """JSON as it is written anew."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def places(value: Any, path: Path) -> Iterator[_Place]:
    """Where the field stands."""
    if isinstance(value, list):
        for each in value:
            yield from places(each, path)
    elif isinstance(value, dict) and path[0] in value:
        if path[1:]:
            yield from places(value[path[0]], path[1:])
        else:
            yield value, path[0]


def is_sealed(value: Any, domain: str) -> bool:
    """Whether ``value`` stands for one that is sealed for ``domain``."""
    return (
        isinstance(value, dict)
        and value.keys() == _KEYS
        and value["sealed"] == domain
        and isinstance(value["data"], str)
        and data_of(value) != b""
    )


def data_of(value: Mapping[str, str]) -> bytes:
    """The sealed bytes; empty where there are none."""
    try:
        return base64.b64decode(value["data"], validate=True)
    except ValueError:
        return b""


def seal_fields(payload: bytes, rules: Rules, seal: Callable[[str, bytes], bytes]) -> bytes:
    """``payload`` with its fields sealed: ``seal`` takes a domain, and the field's path and value as JSON.

    Raises ValueError or RecursionError where the payload is no JSON.
    """
    value, changed = read(payload), False
    for path, domain in rules.items():
        for held, key in list(places(value, path)):
            inner = write([".".join(path), held[key]])
            held[key] = {"sealed": domain, "data": base64.b64encode(seal(domain, inner)).decode()}
            changed = True
    return write(value) if changed else payload


def open_fields(payload: bytes, rules: Rules, opener: Callable[[str, bytes], bytes | None]) -> bytes:
    """``payload`` with the values of fields that ``opener`` opens (it gives None where its key is not held).

    Raises ValueError where a field was sealed as another one, and what ``opener`` raises.
    """
    value, changed = read(payload), False
    for path, domain in rules.items():
        for held, key in list(places(value, path)):
            if not is_sealed(held[key], domain):
                raise ValueError(f"field {'.'.join(path)} is not sealed")
            inner = opener(domain, data_of(held[key]))
            if inner is None:
                continue
            name, found = json.loads(inner)
            if name != ".".join(path):
                raise ValueError(f"field {'.'.join(path)} was sealed as another one")
            held[key], changed = found, True
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
            for held, key in list(places(value, path)):
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
            for held, key in list(places(value, path)):
                if isinstance(told := held[key], dict) and isinstance(told.get("sealed"), int):
                    held[key] = self._kept[told["sealed"]]
        return write(value)
