"""Payloads: dict, list, dataclass, pydantic model, TypedDict, bytes or an Avro datum to bytes, and back by a type."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from bus.codes import Code
from bus.errors import Refused
from bus.guardrails import content
from bus.guardrails.unpack import Unclear

JSON = "application/json"
BINARY = "application/octet-stream"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload that was encoded elsewhere, with its content type."""

    data: bytes = field(repr=False)
    content_type: str


def avro(schema: Any, value: Any) -> Encoded:
    """``value`` as an Avro payload that brings its ``schema`` (a JSON document): policies find its fields by name.

    Raises Refused(schema) where they do not fit, or the schema has a type inside itself."""
    try:
        return Encoded(content.avro(schema, value), content.AVRO)
    except ValueError as error:
        raise Refused(f"payload: {error}", code=Code.SCHEMA) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def encode_payload(payload: object) -> tuple[bytes, str]:
    """(bytes, content type). Raises Refused(schema) for what is not JSON."""
    if isinstance(payload, Encoded):
        return payload.data, payload.content_type
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload), BINARY
    try:
        data = pydantic_core.to_json(payload)
        if b"NaN" in data or b"Infinity" in data:  # perhaps only in a text; as numbers they are no JSON
            json.loads(data, parse_constant=_no_constant)
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError) as error:
        name = type(payload).__name__
        raise Refused(f"payload: expected bytes or what JSON can hold, found {name}", code=Code.SCHEMA) from error
    return data, JSON


def decode_payload(data: bytes, content_type: str, kind: type[T] | None) -> T | Any:
    """``data`` as ``kind``; without one, values or bytes by the content type: JSON, or Avro as
    ``bus.guardrails.content`` reads it. Raises Refused(schema)."""
    if kind is bytes or (kind is None and content_type not in (JSON, content.AVRO)):
        return data
    try:
        if content_type == content.AVRO:
            value = content.Avro.read(data).value
            return value if kind is None else TypeAdapter(kind).validate_python(value)
        if kind is None:
            return pydantic_core.from_json(data)
        return TypeAdapter(kind).validate_json(data)
    except Unclear as error:
        raise Refused(f"payload: {error}", code=Code.SCHEMA) from None
    except (ValidationError, ValueError) as error:
        count = error.error_count() if isinstance(error, ValidationError) else 1
        name = getattr(kind, "__name__", "JSON")
        raise Refused(f"payload: not a {name}: {count} fields do not fit", code=Code.SCHEMA) from None
