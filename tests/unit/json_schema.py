"""As much of JSON Schema 2020-12 as schemas/*.schema.json use; a keyword that is not known here is an error.

Test support: small enough to be read beside the specification. Patterns are searched for, as the specification has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
SAYS_NOTHING = {"$schema", "$id", "$defs", "title", "description", "default"}


def refusals(value: Any, schema: Any, root: dict[str, Any], at: str = "") -> Iterator[str]:
    """Where and why ``value`` is not what ``schema`` says; nothing where it is."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{at}: nothing may stand here"
        return
    for keyword, said in schema.items():
        if keyword not in SAYS_NOTHING:
            yield from _KEYWORDS[keyword](value, said, schema, root, at)


def is_json_schema(schema: Any, root: dict[str, Any]) -> None:
    """Raises where ``schema`` has a keyword or a reference that is not known."""
    if isinstance(schema, bool):
        return
    for keyword, said in schema.items():
        if keyword in ("properties", "$defs"):
            for each in said.values():
                is_json_schema(each, root)
        elif keyword in ("items", "propertyNames", "additionalProperties"):
            is_json_schema(said, root)
        elif keyword == "anyOf":
            for each in said:
                is_json_schema(each, root)
        elif keyword == "$ref":
            _found(said, root)
        elif keyword == "type":
            assert said in TYPES, said
        elif keyword == "pattern":
            re.compile(said)
        else:
            assert keyword in SAYS_NOTHING or keyword in _KEYWORDS, keyword


def _found(reference: str, root: dict[str, Any]) -> Any:
    assert reference.startswith("#/$defs/"), reference
    return root["$defs"][reference.removeprefix("#/$defs/")]


def _type(value: Any, said: str, _schema: Any, _root: Any, at: str) -> Iterator[str]:
    is_truth = isinstance(value, bool) and said != "boolean"  # Python's truths are numbers, JSON's are not
    if is_truth or not isinstance(value, TYPES[said]):
        yield f"{at}: expected {said}"


def _ref(value: Any, said: str, _schema: Any, root: Any, at: str) -> Iterator[str]:
    yield from refusals(value, _found(said, root), root, at)


def _any_of(value: Any, said: list[Any], _schema: Any, root: Any, at: str) -> Iterator[str]:
    tried = [list(refusals(value, each, root, at)) for each in said]
    if all(tried):
        yield f"{at}: none of {len(said)}: {tried}"


def _enum(value: Any, said: list[Any], _schema: Any, _root: Any, at: str) -> Iterator[str]:
    if not any(type(value) is type(each) and value == each for each in said):
        yield f"{at}: expected one of {said}"


def _const(value: Any, said: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    yield from _enum(value, [said], schema, root, at)


def _pattern(value: Any, said: str, _schema: Any, _root: Any, at: str) -> Iterator[str]:
    # `$` is the end there, and here the end or before a last line feed.
    if isinstance(value, str) and not re.search(re.sub(r"\$\Z", r"\\Z", said), value):
        yield f"{at}: expected text like {said}"


def _length(value: Any, said: int, kinds: tuple[type, ...], at: str, *, most: bool) -> Iterator[str]:
    if isinstance(value, kinds) and (len(value) > said if most else len(value) < said):
        yield f"{at}: expected {'at most' if most else 'at least'} {said}"


def _bound(value: Any, said: int, at: str, *, most: bool) -> Iterator[str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value > said if most else value < said):
        yield f"{at}: expected {'at most' if most else 'at least'} {said}"


def _properties(value: Any, said: dict[str, Any], _schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value.keys() & said.keys():
            yield from refusals(value[key], said[key], root, f"{at}/{key}")


def _additional(value: Any, said: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value.keys() - schema.get("properties", {}).keys():
            yield from refusals(value[key], said, root, f"{at}/{key}")


def _names(value: Any, said: Any, _schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value:
            yield from refusals(key, said, root, f"{at}/{key}")


def _required(value: Any, said: list[str], _schema: Any, _root: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{at}/{key}: expected, found none" for key in said if key not in value)


def _items(value: Any, said: Any, _schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from refusals(each, said, root, f"{at}/{place}")


_KEYWORDS: dict[str, Any] = {
    "type": _type,
    "$ref": _ref,
    "anyOf": _any_of,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minLength": lambda v, said, *rest: _length(v, said, (str,), rest[-1], most=False),
    "maxLength": lambda v, said, *rest: _length(v, said, (str,), rest[-1], most=True),
    "minItems": lambda v, said, *rest: _length(v, said, (list,), rest[-1], most=False),
    "maxItems": lambda v, said, *rest: _length(v, said, (list,), rest[-1], most=True),
    "minProperties": lambda v, said, *rest: _length(v, said, (dict,), rest[-1], most=False),
    "maxProperties": lambda v, said, *rest: _length(v, said, (dict,), rest[-1], most=True),
    "minimum": lambda v, said, *rest: _bound(v, said, rest[-1], most=False),
    "maximum": lambda v, said, *rest: _bound(v, said, rest[-1], most=True),
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "required": _required,
    "items": _items,
}
