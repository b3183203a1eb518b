"""What a payload holds, as values, and the payload again with other values in it: JSON, or one Avro datum.

Avro comes as an object container file (Avro specification 1.12) of one block with one datum, not compressed: it brings
its schema, so that no schema needs to be agreed on. Values are what JSON has, and bytes; logical types stay what they
are made of. What is unclear is refused, never passed on. Looks for nothing itself.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Protocol

import fastavro

from bus.errors import WireError
from bus.guardrails.unpack import MAX_DEPTH, Unclear, once
from bus.wire import codec
from bus.wire.schemas import Schema

AVRO: Final = "avro/binary"
MAGIC: Final = b"Obj\x01"
MAX_SCHEMA: Final = 65536
_FIXED: Final = {"type": "fixed", "name": "Mark", "size": 16}
_FILE: Final = Schema(
    "object container file",
    fastavro.parse_schema(
        {
            "type": "record",
            "name": "File",
            "fields": [
                {"name": "magic", "type": {"type": "fixed", "name": "Magic", "size": 4}},
                {"name": "meta", "type": {"type": "map", "values": "bytes"}},
                {"name": "mark", "type": _FIXED},
                {"name": "count", "type": "long"},
                {"name": "block", "type": "bytes"},
                {"name": "end", "type": "Mark"},
            ],
        }
    ),
    b"",
)


class Content(Protocol):
    """One payload's; ``value`` may be changed in place and given to ``written``."""

    value: Any

    def written(self) -> bytes:
        """The payload anew. Raises ValueError for what its form has no place for."""
        ...

    def as_data(self, data: bytes) -> str | bytes:
        """How bytes stand in it."""
        ...


def read_content(payload: bytes) -> Content:
    """Raises ValueError or RecursionError where it is neither of the two."""
    return Avro.read(payload) if is_avro(payload) else Json(json.loads(payload, object_pairs_hook=once))


def avro(schema: Any, value: Any, mark: bytes = bytes(16)) -> bytes:
    """``value`` as such a file; ``schema`` is a JSON document. Raises ValueError where they do not fit."""
    return Avro(schema, value, mark).written()


def is_avro(payload: bytes) -> bool:
    """Whether it says so by its first bytes, whatever its content type."""
    return payload.startswith(MAGIC)


class Json:
    """JSON values."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def written(self) -> bytes:
        """Raises ValueError for a number beyond what floats hold."""
        return json.dumps(self.value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def as_data(self, data: bytes) -> str:
        """Base64."""
        return base64.b64encode(data).decode()


class Avro:
    """A datum and its schema, ``document``, as it was written; both may be changed."""

    def __init__(self, document: Any, value: Any, mark: bytes) -> None:
        self.document = document
        self.value = value
        self._mark = mark

    @classmethod
    def read(cls, payload: bytes) -> Avro:
        """Raises Unclear, with what was expected."""
        try:
            file = codec.decode(_FILE, payload)
            head = file["meta"]
            document = json.loads(head["avro.schema"], object_pairs_hook=once)
        except (ValueError, KeyError, WireError, RecursionError):
            raise Unclear("expected an Avro object container file of one block, with its schema") from None
        if file["end"] != file["mark"] or file["count"] != 1 or head.get("avro.codec", b"null") != b"null":
            raise Unclear("expected one Avro datum, not compressed")
        if len(head["avro.schema"]) > MAX_SCHEMA or len(head) > 2 or not head.keys() <= {"avro.schema", "avro.codec"}:
            raise Unclear(f"expected an Avro file that holds its schema, at most {MAX_SCHEMA} bytes, and nothing else")
        try:
            value = codec.decode(_parsed(document), file["block"])
        except (ValueError, WireError, RecursionError):
            raise Unclear("expected a datum as its Avro schema says, in the shortest form") from None
        return cls(document, value, file["mark"])

    def written(self) -> bytes:
        """Raises ValueError where the schema has no place for the value."""
        try:
            block = codec.encode(_parsed(self.document), self.value)
            file = {"magic": MAGIC, "mark": self._mark, "count": 1, "block": block, "end": self._mark}
            schema = json.dumps(self.document, separators=(",", ":")).encode()
            return codec.encode(_FILE, file | {"meta": {"avro.codec": b"null", "avro.schema": schema}})
        except Exception as error:  # fastavro raises many unrelated types where a value does not fit
            raise ValueError(f"its Avro schema has no place for it: {type(error).__name__}") from None

    def as_data(self, data: bytes) -> bytes:
        """As they are."""
        return data


def _parsed(document: Any) -> Schema:
    """Raises ValueError for no schema, or one under which few bytes hold endlessly much."""
    try:
        plain = _plain(document, (), {})
        return Schema("datum", fastavro.parse_schema(plain, named_schemas={}), b"")
    except Exception as error:  # as above
        raise ValueError(f"no Avro schema: {type(error).__name__}") from None


def _plain(part: Any, around: tuple[str, ...], hollow: dict[str, bool]) -> Any:
    """A schema without logical types, whose values JSON and masks have no words for. ``around``: the named types that
    it stands in; ``hollow``: by name, whether a value of it takes no bytes.

    Raises ValueError for a type inside itself (fastavro would follow a datum of it until the stack ends), and for
    records and elements of arrays that take no bytes (a length alone, or records of records, would hold no end)."""
    if len(around) > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(part, str):
        if short(part) in around:
            raise ValueError(f"{part} stands in itself")
        return part
    if isinstance(part, list):
        return [_plain(each, (*around, ""), hollow) for each in part]
    made = {key: each for key, each in part.items() if key != "logicalType"}
    inside = (*around, short(str(made.get("name", ""))))
    for key in ("type", "items", "values"):
        if key in made and (key != "type" or not isinstance(made[key], str) or "fields" not in made):
            made[key] = _plain(made[key], inside, hollow)
    if "fields" in made:
        made["fields"] = [
            {"name": each["name"], "type": _plain(each["type"], inside, hollow)}
            | ({"default": each["default"]} if "default" in each else {})
            for each in made["fields"]
        ]
    if "name" in made:
        hollow[inside[-1]] = _hollow(made, hollow)
        if "fields" in made and hollow[inside[-1]]:
            raise ValueError(f"record {inside[-1]} takes no bytes")
    if "items" in made and _hollow(made["items"], hollow):
        raise ValueError("array of what takes no bytes")
    return made


def _hollow(part: Any, hollow: dict[str, bool]) -> bool:
    if isinstance(part, str):
        return part == "null" or hollow.get(short(part), False)
    if not isinstance(part, dict):
        return False
    if "fields" in part:
        return all(_hollow(each["type"], hollow) for each in part["fields"])
    return part.get("size") == 0 or _hollow(part.get("type"), hollow)


def short(name: str) -> str:
    """A type's name without its namespace."""
    return name.rpartition(".")[2]
