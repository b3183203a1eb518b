"""Policy files to a compiled policy; every refusal with file, line, column, what was expected and what was found.

Shape is checked by the models of ``bus.policy.document``: here their errors get their place in the file. What holds
between values is checked by ``bus.policy.checks``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bus.errors import PolicyError
from bus.guardrails.types import TYPES
from bus.policy.build import build_document
from bus.policy.checks import check_files
from bus.policy.compiling import canonical, compile_policy
from bus.policy.document import AgentsFile, MeshFile
from bus.policy.model import Policy
from bus.policy.yamldoc import Document, read
from bus.wire.names import LOWER_NAME, ROLE_NAME

MESH_FILE: Final = "mesh.yaml"
AGENTS_FILE: Final = "agents.yaml"

PATTERNS: Final = {
    r"^[a-z][a-z0-9_-]{0,62}$": LOWER_NAME,
    r"^(produce|consume) [a-z][a-z0-9_-]{0,62}$": "`produce DOMAIN` or `consume DOMAIN`",
    r"^[a-z][a-z0-9_-]{0,30}(\.[a-z][a-z0-9_-]{0,30}){0,3}$": "a tool, as in sql.read",
    r"^[A-Za-z0-9_.-]{1,64}$": "a key, as in locale or payload.email",
}
M = TypeVar("M", bound=BaseModel)


def load_policy(directory: Path, *, development: bool = True, types: frozenset[str] = TYPES) -> Policy:
    """The policy in ``directory``; ``types`` are those that a guardrail may name. Raises the first PolicyError; its
    ``__notes__`` hold the others, in file order."""
    mesh, agents = read(directory / MESH_FILE), read(directory / AGENTS_FILE)
    mesh_model, agents_model = validate(mesh, MeshFile), validate(agents, AgentsFile)
    law = mesh_model.security_mesh
    raise_first(check_files(mesh, agents, law, agents_model, development=development, types=types))
    return compile_policy(canonical(build_document(mesh, law, agents_model)))


def raise_first(errors: Iterable[PolicyError]) -> None:
    """Raise the first in file order, with the others as its notes."""
    ordered = sorted(errors, key=lambda each: (each.file, each.line, each.column))
    if ordered:
        for other in ordered[1:]:
            ordered[0].add_note(str(other))
        raise ordered[0]


def validate(document: Document, model: type[M]) -> M:
    """``document`` as ``model``. Raises the first PolicyError, with its place; its notes hold the others."""
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        found: list[dict[str, Any]] = [dict(each) for each in error.errors()]
        # A misspelt key is also a missing one: say it once, at the key that is there.
        near = {(each["loc"][:-1], _nearest(model, each["loc"])) for each in found if each["type"] == "extra_forbidden"}
        kept = [each for each in found if (each["loc"][:-1], each["loc"][-1] if each["loc"] else "") not in near]
        raise_first([_placed(document, model, each) for each in kept])
        raise  # unreachable: a ValidationError has at least one error


def _placed(document: Document, model: type[BaseModel], error: dict[str, Any]) -> PolicyError:
    told = tuple(part for part in error["loc"] if part != "[key]")
    path = _walk(model, told)[0]
    kind = error["type"]
    name = path[-1] if path else "file"
    if kind == "extra_forbidden":
        known = _known_keys(model, told[:-1])
        message = f"unknown key {name!r}; expected one of {', '.join(known)}"
        return document.error(path, message, nearest=_nearest(model, told), key=True)
    if kind == "missing":
        return document.error(path[:-1], f"expected key {name!r}, found none")
    found = error["input"]
    shown = found if isinstance(found, str | int | float | bool | None) else type(found).__name__
    near = []
    if kind == "literal_error" and isinstance(found, str):
        near = difflib.get_close_matches(found, re.findall(r"'([^']+)'", error["ctx"]["expected"]), 1)
    return document.error(
        path,
        f"{name}: expected {_expected(error)}, found {shown!r}",
        nearest=near[0] if near else "",
        key="[key]" in error["loc"],
    )


def _nearest(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    """The known key that an unknown one at ``path`` probably means, or ""."""
    near = difflib.get_close_matches(str(path[-1]), _known_keys(model, path[:-1]), 1)
    return near[0] if near else ""


def _expected(error: dict[str, Any]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(context["expected"])
        case "string_pattern_mismatch":
            return PATTERNS.get(context["pattern"], ROLE_NAME)
        case "string_type":
            return "text (in quotes where YAML would read something else)"
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case "less_than_equal":
            return f"at most {context['le']}"
        case "too_short":
            return f"at least {context['min_length']}"
        case "too_long":
            return f"at most {context['max_length']}"
        case "value_error":
            return str(context["error"]).removeprefix("expected ")
        case kind:
            names = {
                "bool_type": "true or false",
                "int_type": "a whole number",
                "list_type": "a list",
                "dict_type": "a mapping",
                "model_type": "a mapping",
            }
            return str(names.get(kind, error["msg"]))


def _given(annotation: Any) -> Any:
    """What stands there where something stands there: ``Labels | None`` is Labels."""
    choices = [each for each in get_args(annotation) if each is not type(None)]
    return choices[0] if get_origin(annotation) in (UnionType, Union) and len(choices) == 1 else annotation


def _tagged(annotation: Any, tag: str | int) -> Any:
    """Of a union of models told apart by a literal, the one with ``tag``; else None."""
    if get_origin(annotation) in (UnionType, Union):
        for each in get_args(annotation):
            fields = each.model_fields.values() if hasattr(each, "model_fields") else ()
            if any(tag in get_args(field.annotation) for field in fields if get_origin(field.annotation) is Literal):
                return each
    return None


def _walk(model: type[BaseModel], path: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], Any]:
    """``path`` as it stands in the file, without the tags of unions, and what stands there under ``model``."""
    at: Any = model
    there: list[str | int] = []
    for part in path:
        at = _given(at)
        found = _tagged(at, part)
        if found is not None:
            at = found
            continue
        there.append(part)
        if get_origin(at) in (list, dict):  # list[Domain] by index, dict[str, Agent] by name
            at = _bare(get_args(at)[-1])
        elif hasattr(at, "model_fields"):
            fields = {each.alias or name: each for name, each in at.model_fields.items()}
            at = _bare(fields[str(part)].annotation) if str(part) in fields else None
    return tuple(there), _given(at)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _known_keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Keys of the model that stands at ``path`` under ``model``."""
    at = _walk(model, path)[1]
    if isinstance(at, type) and issubclass(at, BaseModel):
        return sorted(each.alias or name for name, each in at.model_fields.items())
    return []
