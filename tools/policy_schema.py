"""Write schemas/{mesh,agents,cases}.schema.json from the models of the policy files: `python -m tools.policy_schema`.

The schemas are for editors: they say what one file's shape may be, as ``bus.policy.document`` and ``casefile`` do. What
holds between values is checked by `bus policy check` alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from bus.policy.casefile import CasesFile
from bus.policy.document import AgentsFile, MeshFile
from tools.policy_keys import meaning, models

FOLDER: Final = Path(__file__).resolve().parents[1] / "schemas"
FILES: Final[dict[str, type[BaseModel]]] = {"mesh": MeshFile, "agents": AgentsFile, "cases": CasesFile}
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


class _Generator(GenerateJsonSchema):
    """Pydantic's, but that a mapping whose keys have a pattern takes no other keys, as the models do."""

    def dict_schema(self, schema: core_schema.DictSchema) -> dict[str, Any]:
        made = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"])
        if keys == {"type": "string"}:
            return made
        values = self.generate_inner(schema["values_schema"])
        kept = {key: value for key, value in made.items() if key != "patternProperties"}
        return {**kept, "propertyNames": keys, "additionalProperties": values}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of ``name``.yaml."""
    root = FILES[name]
    made = root.model_json_schema(by_alias=True, schema_generator=_Generator)
    parts = {each.__name__: each for each in models(root)}
    for title, each in {**made.get("$defs", {}), root.__name__: made}.items():
        for key, value in each["properties"].items():
            told = meaning(parts[title], key)
            written = f" {value['description']}" if "description" in value else ""
            each["properties"][key] = {**value, "description": told + written}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{name}.schema.json",
        "title": f"sealbus {name}.yaml",
    }
    tidied = _tidy(made)
    return {**head, **{key: value for key, value in tidied.items() if key != "$defs"}, "$defs": tidied["$defs"]}


def text(name: str) -> str:
    """The file's content."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"


def _tidy(value: Any) -> Any:
    """Without titles made of keys, without defaults that the file has in other words, and with plain quotes."""
    if isinstance(value, list):
        return [_tidy(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: _tidy(each) for key, each in value.items() if not (key == "title" and isinstance(each, str))}
    if isinstance(made.get("description"), str):
        made["description"] = " ".join(made["description"].replace("``", "`").split())
    if "default" in made and not isinstance(made["default"], dict) and made.get("type") == "string":
        made["default"] = _written(made["default"])
    if made.get("default", 0) is None or "$ref" in made:
        made.pop("default", None)
    return made


def _written(value: Any) -> Any:
    """A duration as the file has it."""
    if not isinstance(value, int):
        return value
    unit, size = next((unit, size) for unit, size in _UNITS if value % size == 0)
    return f"{value // size}{unit}"


def main() -> None:
    """Write the three files."""
    for name in FILES:
        (FOLDER / f"{name}.schema.json").write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
