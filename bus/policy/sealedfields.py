"""Fields of a payload (JSON, Avro) that are sealed for another domain's readers, in a record that this one's may read.

A sealed field stands as ``{"sealed": domain, "data": base64}``, or as a record of these two. Its source makes it, the
enforcer sees that it is there, and who may read the other domain finds the value in its place; others find what stands
there. A path goes through objects by key and through arrays into each element; a field that is not there is no fault.
Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bus.guardrails.content import Avro, Content, Json, read_content
from bus.policy.avrofields import AvroFields

SUITE: Final = 1
SHORTEST: Final = 49
"""First byte and least length of what a source seals (``bus.crypto.session``)."""
Path = tuple[str, ...]
Rules = Mapping[Path, str]
"""The domain that each field is sealed for."""
_KEYS: Final = {"sealed", "data"}
_Place = tuple[Any, Any, str]
"""What holds a value, the key of it there, and the path to it with the indexes of arrays in it."""


class _JsonFields:
    """Values of fields as JSON; there are no types to change."""

    def value_out(self, value: Any) -> bytes:
        return Json(value).written()

    def value_in(self, data: bytes) -> Any:
        return read_content(data).value

    def seal_type(self, path: Path) -> None:
        pass

    def open_type(self, path: Path) -> None:
        pass


def _form(content: Content) -> AvroFields | _JsonFields:
    return AvroFields(content.document) if isinstance(content, Avro) else _JsonFields()


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
        and len(data := data_of(value["data"])) >= SHORTEST
        and data[0] == SUITE
    )


def data_of(data: str | bytes) -> bytes:
    """The sealed bytes: base64 in JSON, as they are in Avro; empty where there are none."""
    if isinstance(data, bytes):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, TypeError):
        return b""


def seal_fields(payload: bytes, rules: Rules, seal: Callable[[str, str, bytes], bytes]) -> bytes:
    """``payload`` with its fields sealed: ``seal`` takes a domain, the path to the field, and its value as JSON (of an
    Avro payload: as ``bus.policy.avrofields`` writes it).

    Raises ValueError or RecursionError where the payload is neither, or its schema does not let a field be sealed.
    """
    content = read_content(payload)
    form, changed = _form(content), False
    for path, domain in rules.items():
        found = list(places(content.value, path))
        for held, key, way in found:
            held[key] = {"sealed": domain, "data": content.as_data(seal(domain, way, form.value_out(held[key])))}
        if found:
            form.seal_type(path)
            changed = True
    return content.written() if changed else payload


def open_fields(payload: bytes, rules: Rules, opener: Callable[[str, str, bytes], bytes | None]) -> bytes:
    """``payload`` with the values of fields that ``opener`` opens (it gives None where its key is not held).

    Raises ValueError where a field is not sealed or holds no value, and what ``opener`` raises.
    """
    content = read_content(payload)
    form, changed = _form(content), False
    for path, domain in rules.items():
        found = list(places(content.value, path))
        opened = []
        for held, key, way in found:
            if not is_sealed(held[key], domain):
                raise ValueError(f"field {'.'.join(path)} is not sealed")
            inner = opener(domain, way, data_of(held[key]["data"]))
            if inner is not None:
                opened.append((held, key, form.value_in(inner)))
        if not opened or len(opened) < len(found):
            continue  # all that one message seals for one domain is under one key
        for held, key, value in opened:
            held[key] = value
        form.open_type(path)
        changed = True
    return content.written() if changed else payload


class Unsealed(ValueError):
    """A field that should be sealed and is not; its name."""


class Kept:
    """Sealed fields of one payload, kept aside while guardrails and masks look at the rest: what is found in base64 by
    chance must not be redacted."""

    def __init__(self, payload: bytes, rules: Rules) -> None:
        """Raises Unsealed for a field that is not sealed, ValueError or RecursionError where there is no JSON."""
        content = read_content(payload)
        self._rules = rules
        self._kept: list[Any] = []
        for path, domain in rules.items():
            for held, key, _ in list(places(content.value, path)):
                if not is_sealed(held[key], domain):
                    raise Unsealed(".".join(path))
                self._kept.append(held[key])
                held[key] = {"sealed": str(len(self._kept) - 1), "data": content.as_data(b"")}
        self.without = content.written() if self._kept else payload
        """The payload with a number in place of each."""

    def back(self, payload: bytes) -> bytes:
        """``payload`` with the fields in their places again. Raises ValueError where it is none any more."""
        if not self._kept:
            return payload
        content = read_content(payload)
        for path in self._rules:
            for held, key, _ in list(places(content.value, path)):
                if isinstance(told := held[key], dict) and str(told.get("sealed")).isdecimal():
                    held[key] = self._kept[int(told["sealed"])]
        return content.written()
