"""Sealed fields in an Avro schema: their type is a record of the sealed bytes, and what it was stands beside it.

A payload that brings its schema says by it what its fields are, before and behind the seal: a reader who opens a field
finds the schema that its source wrote. Values and places are ``bus.policy.sealedfields``'. Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
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
        for field in self._fields(self._document, path):
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
        for field in self._fields(self._document, path):
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

    def _fields(self, part: Any, path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Definitions of the field; through arrays and unions."""
        if isinstance(part, str):
            if (named := self._names.get(short(part))) is not None:
                yield from self._fields(named, path)
        elif isinstance(part, list):
            for each in part:
                yield from self._fields(each, path)
        elif "fields" in part:
            for field in part["fields"]:
                if field["name"] == path[0]:
                    if path[1:]:
                        yield from self._fields(field["type"], path[1:])
                    else:
                        yield field
        elif "values" in part:
            raise ValueError(f"{path[0]} is a key of a map, whose values have one type: it cannot be sealed")
        else:
            yield from self._fields(part["items"] if "items" in part else part["type"], path)


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
