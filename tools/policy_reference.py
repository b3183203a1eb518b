"""Write the reference of the policy files into docs/policy.md, between its markers: `python -m tools.policy_reference`.

Made of the same models and words as the published schemas (``policy_schema``, ``policy_keys``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from bus.guardrails.types import MODEL_TYPES, TYPES
from bus.policy import values
from bus.policy.casefile import Question
from bus.policy.document import Key
from bus.wire.names import LOWER_NAME, ROLE_NAME
from tools.policy_keys import key_of, meaning
from tools.policy_schema import FILES, schema

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "policy.md"
BEGIN: Final = "<!-- Reference: begin. Written by `python -m tools.policy_reference`; do not edit. -->"
END: Final = "<!-- Reference: end. -->"

_TYPES: Final[dict[str, Any]] = {
    "name": values.LowerName,
    "ROLE": values.RoleText,
    "tool": values.ToolText,
    "key": Key,
    "expression": values.Expression,
    "measurement": values.MeasurementText,
    "question": Question,
    "duration": values.Duration,
    "size": values.Size,
    "byte rate": values.ByteRate,
    "percent": values.Percent,
    "record rate": values.RecordRate,
    "refusals": values.Refusals,
}
_WORDS: Final = {
    "name": LOWER_NAME,
    "ROLE": ROLE_NAME,
    "tool": "one to four words of lower-case letters, digits, `_` and `-`, with dots between them: `sql.read`",
    "key": "a metadata key, or `payload.a.b` for a field of a JSON payload",
    "expression": f"CEL, at most {values.MAX_EXPRESSION} characters",
    "measurement": "`software:sha256:HEX`, `tpm:pcrN:HEX`, `snp:HEX` or `nitro:pcrN:HEX`, not zeros "
    "(docs/operations/attestation.md)",
    "question": "`produce DOMAIN` or `consume DOMAIN`",
}


def _known(annotation: Any) -> tuple[Any, ...]:
    made = TypeAdapter(annotation).json_schema()
    return made.get("pattern"), made.get("maxLength")


def reference() -> str:
    """All that stands between the markers."""
    used: set[str] = set()
    parts = [part for name in FILES for part in _file(name, used)]
    legend = ["| in the tables | is |", "|---|---|"]
    for word, annotation in _TYPES.items():
        if word in used:
            told = _WORDS.get(word) or TypeAdapter(annotation).json_schema()["description"]
            legend.append(f"| {word} | {told} |")
    found, more = (", ".join(f"`{each}`" for each in sorted(held)) for held in (TYPES, MODEL_TYPES - TYPES))
    types = f"Types that a guardrail can detect: {found}; with the engine `presidio` {more}, too."
    return "\n".join([*legend, "", types, "", *parts])


def _file(name: str, used: set[str]) -> Iterator[str]:
    made = schema(name)
    yield f"### {name}.yaml"
    told: dict[type[BaseModel], str] = {}
    for path, model in _places(FILES[name], ""):
        if model not in told:
            part = made["$defs"][model.__name__] if path else made
            if path:
                yield f"#### `{path}`"
                yield part["description"]
            yield ""
            yield from _table(model, part, told, used)
            yield ""
            told[model] = path


def _places(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model with the place where it stands: `security_mesh.domains[]`, `security_mesh.zones.NAME`."""
    yield path, model
    for name, field in model.model_fields.items():
        place = f"{path}.{key_of(model, name)}".lstrip(".")
        for below, each in _models(field.annotation, place):
            yield from _places(each, below)


def _models(annotation: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, annotation
    inside = get_args(annotation)
    if get_origin(annotation) is dict:
        inside, path = inside[1:], f"{path}.NAME"
    elif get_origin(annotation) is list:
        path = f"{path}[]"
    for each in inside:
        yield from _models(each, path)


def _table(
    model: type[BaseModel], made: dict[str, Any], told: dict[type[BaseModel], str], used: set[str]
) -> Iterator[str]:
    """The keys of ``model``; those that it has from another one were told there."""
    bases = [each for each in model.__mro__[1:] if each in told]
    yield "| key | value | unless told | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if any(name in base.model_fields and base.model_fields[name].annotation == field.annotation for base in bases):
            continue
        key = key_of(model, name)
        each = made["properties"][key]
        value = _value(each, used).replace("|", "\\|")
        default = "needed" if key in made.get("required", []) else _default(each)
        yield f"| `{key}` | {value} | {default} | {meaning(model, key)} |"
    for base in bases:
        yield ""
        yield f"And every key of `{told[base]}`."


def _default(each: dict[str, Any]) -> str:
    default = each.get("default")
    return "" if default in (None, [], {}, "") else f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _value(each: dict[str, Any], used: set[str]) -> str:
    """What may stand there, in words."""
    if "anyOf" in each:
        return " or ".join(_value(one, used) for one in each["anyOf"] if one != {"type": "null"})
    if "$ref" in each:
        return "mapping"
    if "enum" in each or "const" in each:
        return ", ".join(f"`{_scalar(one)}`" for one in each.get("enum", [each.get("const")]))
    kind = each.get("type")
    if kind == "array":
        return f"list of {_value(each['items'], used)}{_bounds(each, 'Items')}"
    if kind == "object":
        names = _value(each["propertyNames"], used) if "propertyNames" in each else "text"
        inner = each["additionalProperties"]
        return f"{names}: {_value(inner, used)}{_bounds(each, 'Properties')}"
    if kind == "string":
        return _text(each, used)
    if kind == "integer":
        low, high = each.get("minimum"), each.get("maximum")
        return "whole number" if low is None else f"{low} to {high}"
    return {"boolean": "`true` or `false`", "number": "number"}.get(str(kind), "anything")


def _scalar(value: Any) -> str:
    """As it is written in the file: text that YAML would read as a number in quotes."""
    return json.dumps(value) if not isinstance(value, str) or value[0].isdigit() else value


def _text(each: dict[str, Any], used: set[str]) -> str:
    found = (each.get("pattern"), each.get("maxLength"))
    if found == (None, None):
        return "text"
    for word, annotation in _TYPES.items():
        if _known(annotation) == found:
            used.add(word)
            return word
    return f"text like `{each.get('pattern')}`"


def _bounds(each: dict[str, Any], what: str) -> str:
    low, high = each.get(f"min{what}"), each.get(f"max{what}")
    told = [f"at least {low}" if low else "", f"at most {high:,}" if high else ""]
    return f" ({', '.join(part for part in told if part)})" if low or high else ""


def page(text: str) -> str:
    """``text`` with the reference in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
