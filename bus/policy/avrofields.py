"""Sealed fields in an Avro schema: their type is a record of the sealed bytes, and what it was stands beside it.

A payload that brings its schema says by it what its fields are, before and behind the seal: a reader who opens a field
finds the schema that its source wrote. Values and places are ``bus.policy.sealedfields``'. Pure.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from bus.guardrails.content import short

WAS: Final = "sealbus.was"
"""What a field's type and default were."""
_NAME: Final = "sealbus.Sealed"


class AvroFields:
    """The schema of one payload, changed in place."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._sealed = str(document).count(_NAME)
        self._names: dict[str, Any] = {}
        self._named(document)

    def value_out(self, value: Any) -> bytes:
        """A field's value as bytes: JSON in which bytes are told from text. The field's own type is in the schema, and
        fastavro reads no type inside itself safely."""
        return json.dumps(_wrapped(value), separators=(",", ":")).encode()

    def value_in(self, data: bytes) -> Any:
        """The value in ``data``. Raises ValueError where there is none."""
        try:
            return _unwrapped(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no value in a sealed field: {type(error).__name__}") from None

    def seal_type(self, path: tuple[str, ...]) -> None:
        """Let the field at ``path`` hold sealed bytes. Raises ValueError where it is a key of a map, whose values have
        one type, or of a record that is sealed in another place, too."""
        for field in self._fields(path):
            if WAS in field:
                raise ValueError(f"field {'.'.join(path)}: its type is sealed in another place")
            was = {"type": field["type"]} | ({"default": field.pop("default")} if "default" in field else {})
            field[WAS] = was
            field["type"] = {
                "type": "record",
                "name": f"{_NAME}{self._sealed}",
                "fields": [{"name": "sealed", "type": "string"}, {"name": "data", "type": "bytes"}],
            }
            self._sealed += 1

    def open_type(self, path: tuple[str, ...]) -> None:
        """Let it hold what it held. Raises ValueError where that is not there."""
        for field in self._fields(path):
            was = field.pop(WAS, None)
            if not isinstance(was, dict) or not {"type"} <= was.keys() <= {"type", "default"}:
                raise ValueError(f"field {'.'.join(path)}: what its type was is not there")
            field |= was

    def _named(self, part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                self._named(each)
        elif isinstance(part, dict):
            if isinstance(part.get("name"), str) and "type" in part and part["type"] in ("record", "error"):
                self._names[short(part["name"])] = part
            for key in ("type", "items", "values", "fields"):
                self._named(part.get(key))

    def _fields(self, path: tuple[str, ...]) -> list[dict[str, Any]]:
        """Definitions of the field, each once; through arrays and unions. No part is looked at twice: a schema whose
        unions name each other's records has no end of ways."""
        found: list[dict[str, Any]] = []
        left: list[tuple[Any, tuple[str, ...]]] = [(self._document, path)]
        seen: set[tuple[int, int]] = set()
        while left:
            part, way = left.pop()
            if isinstance(part, str):
                part = self._names.get(short(part))
            if part is None or (id(part), len(way)) in seen:
                continue
            seen.add((id(part), len(way)))
            if isinstance(part, list):
                left += [(each, way) for each in part]
            elif "fields" in part:
                field = next((each for each in part["fields"] if each["name"] == way[0]), None)
                if field is not None and way[1:]:
                    left.append((field["type"], way[1:]))
                elif field is not None:
                    found.append(field)
            elif "values" in part:
                raise ValueError(f"{way[0]} is a key of a map, whose values have one type: it cannot be sealed")
            else:
                left.append((part["items"] if "items" in part else part.get("type"), way))
        return found


def _wrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_wrapped(each) for each in value]
    if isinstance(value, dict):
        return {"map": {key: _wrapped(each) for key, each in value.items()}}
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    if isinstance(value, dict):
        if "bytes" in value:
            return base64.b64decode(value["bytes"], validate=True)
        return {key: _unwrapped(each) for key, each in value["map"].items()}
    return value
