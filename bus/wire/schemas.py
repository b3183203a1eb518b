"""The published schemas, their CRC-64-AVRO fingerprints, and the marker that begins every value.

The schema files in ``schemas/`` are the contract; a wheel carries them as ``bus/schemas``. Fingerprints follow the
Avro specification (Parsing Canonical Form, CRC-64-AVRO, single-object encoding); the functions are fastavro's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

MARKER = b"\xc3\x01"

_PACKAGED = Path(__file__).resolve().parent.parent / "schemas"
_CHECKOUT = Path(__file__).resolve().parents[2] / "schemas"
SCHEMA_DIRECTORY = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@dataclass(frozen=True, slots=True)
class Schema:
    """A parsed schema. ``head`` is the 10 bytes that begin a value of it: C3 01 and the fingerprint, little endian."""

    name: str
    parsed: Any
    head: bytes


def single_object_head(document: Any) -> bytes:
    """C3 01 and the CRC-64-AVRO fingerprint (8 bytes, little endian) of a schema document."""
    printed = fingerprint(to_parsing_canonical_form(document), "CRC-64-AVRO")
    return MARKER + bytes.fromhex(printed)


@cache
def schema(name: str) -> Schema:
    """The schema in ``schemas/<name>.v1.avsc``; raises FileNotFoundError for a name that is not published."""
    document = json.loads((SCHEMA_DIRECTORY / f"{name}.v1.avsc").read_text(encoding="utf-8"))
    return Schema(name, fastavro.parse_schema(document), single_object_head(document))
