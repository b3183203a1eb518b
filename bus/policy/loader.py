"""Policy files to a compiled policy; every refusal with file, line, column, what was expected and what was found.

Shape is checked by the models of ``bus.policy.document``; here their errors get their place in the file, and what
holds between values is checked: names that collide, roles that exist, narrowing that only narrows, safe values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bus.errors import PolicyError
from bus.policy.document import Agent, AgentsFile, Domain, MeshFile
from bus.policy.model import FORMAT, Policy, canonical, compile_policy
from bus.policy.yamldoc import Document, read
from bus.wire.names import LOWER_NAME, ROLE_NAME, folded, is_lower_name

MESH_FILE: Final = "mesh.yaml"
AGENTS_FILE: Final = "agents.yaml"

M = TypeVar("M", bound=BaseModel)


def load_policy(directory: Path, *, development: bool = True) -> Policy:
    """The policy in ``directory``. Raises the first PolicyError; its ``__notes__`` hold the others, in file order."""
    mesh, agents = read(directory / MESH_FILE), read(directory / AGENTS_FILE)
    mesh_model, agents_model = _validate(mesh, MeshFile), _validate(agents, AgentsFile)
    errors = [
        *_check_domains(mesh, mesh_model.security_mesh.domains, development=development),
        *_check_topics(mesh, mesh_model),
        *_check_agents(agents, agents_model, mesh_model),
    ]
    _raise_first(errors)
    return compile_policy(canonical(_document(mesh, mesh_model, agents_model)))


def _raise_first(errors: Iterable[PolicyError]) -> None:
    ordered = sorted(errors, key=lambda each: (each.file, each.line, each.column))
    if ordered:
        for other in ordered[1:]:
            ordered[0].add_note(str(other))
        raise ordered[0]


def _validate(document: Document, model: type[M]) -> M:
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        found: list[dict[str, Any]] = [dict(each) for each in error.errors()]
        # A misspelt key is also a missing one: say it once, at the key that is there.
        near = {(each["loc"][:-1], _nearest(model, each["loc"])) for each in found if each["type"] == "extra_forbidden"}
        kept = [each for each in found if (each["loc"][:-1], each["loc"][-1] if each["loc"] else "") not in near]
        _raise_first([_placed(document, model, each) for each in kept])
        raise  # unreachable: a ValidationError has at least one error


def _placed(document: Document, model: type[BaseModel], error: dict[str, Any]) -> PolicyError:
    path = tuple(part for part in error["loc"] if part != "[key]")
    kind = error["type"]
    name = path[-1] if path else "file"
    if kind == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        message = f"unknown key {name!r}; expected one of {', '.join(known)}"
        return document.error(path, message, nearest=_nearest(model, path), key=True)
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
            return LOWER_NAME if context["pattern"].startswith("^[a-z]") else ROLE_NAME
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


def _known_keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Keys of the model that stands at ``path`` under ``model``."""
    at: Any = model
    for part in path:
        if get_origin(at) in (list, dict):  # list[Domain] by index, dict[str, Agent] by name
            at = get_args(at)[-1]
        else:
            fields = {each.alias or name: each for name, each in at.model_fields.items()}
            at = fields[str(part)].annotation
    if isinstance(at, type) and issubclass(at, BaseModel):
        return sorted(each.alias or name for name, each in at.model_fields.items())
    return []


def _check_domains(document: Document, domains: list[Domain], *, development: bool) -> Iterable[PolicyError]:
    seen: dict[str, str] = {}
    for index, domain in enumerate(domains):
        path = ("security_mesh", "domains", index)
        name = domain.name
        if not is_lower_name(name):
            yield document.error((*path, "name"), f"name: expected {LOWER_NAME}, found {name!r}")
        if other := seen.get(folded(name)):
            same = "is given twice" if other == name else f"collides with {other!r}: Kafka folds '.', '-' and '_'"
            yield document.error((*path, "name"), f"domain {name!r} {same}")
        seen[folded(name)] = name
        for key in ("allowed_roles", "produce", "consume"):
            roles = getattr(domain, key) or []
            for place, role in enumerate(roles):
                where = (*path, key, place)
                if role in roles[:place]:
                    yield document.error(where, f"{key}: role {role!r} is given twice")
                elif role not in domain.allowed_roles:
                    message = f"{key}: expected one of allowed_roles {domain.allowed_roles}, found {role!r}"
                    near = difflib.get_close_matches(role, domain.allowed_roles, 1)
                    yield document.error(where, message, nearest=near[0] if near else "")
        if domain.tier == "PLAINTEXT" and not development:
            yield document.error((*path, "tier"), "tier: PLAINTEXT is for development mode only")
        if domain.tier == "PLAINTEXT" and domain.attestation_required:
            yield document.error((*path, "tier"), "tier: a domain that requires attestation cannot be PLAINTEXT")


def _check_topics(document: Document, model: MeshFile) -> Iterable[PolicyError]:
    topics = model.security_mesh.topics
    if topics.retention < topics.backlog_horizon:
        yield document.error(
            ("security_mesh", "topics", "retention"),
            f"retention: expected at least backlog_horizon ({topics.backlog_horizon} ms), found {topics.retention} ms",
        )


def _agent_roles(agent: Agent) -> list[str]:
    return ([agent.role] if agent.role else []) + (agent.roles or [])


def _check_agents(document: Document, model: AgentsFile, mesh: MeshFile) -> Iterable[PolicyError]:
    known = sorted({role for domain in mesh.security_mesh.domains for role in domain.allowed_roles})
    seen: dict[str, str] = {}
    for name, agent in model.agents.items():
        path = ("agents", name)
        if not is_lower_name(name):
            yield document.error(path, f"agent: expected {LOWER_NAME}, found {name!r}", key=True)
        if other := seen.get(folded(name)):
            yield document.error(path, f"agent {name!r} collides with {other!r} after folding", key=True)
        seen[folded(name)] = name
        if (agent.role is None) == (agent.roles is None):
            yield document.error(path, "expected one of `role` and `roles`")
        for role in _agent_roles(agent):
            if role not in known:
                near = difflib.get_close_matches(role, known, 1)
                where = (*path, "role") if agent.role else (*path, "roles")
                message = f"role: expected one that a domain allows ({', '.join(known)}), found {role!r}"
                yield document.error(where, message, nearest=near[0] if near else "")


def _document(mesh: Document, model: MeshFile, agents: AgentsFile) -> dict[str, Any]:
    law = model.security_mesh
    domains = {}
    for index, domain in enumerate(law.domains):
        path = ("security_mesh", "domains", index)
        lines = {
            "name": mesh.at((*path, "name"))[0],
            "tier": mesh.at((*path, "tier"))[0],
            "produce": mesh.at((*path, "produce" if domain.produce is not None else "allowed_roles"))[0],
            "consume": mesh.at((*path, "consume" if domain.consume is not None else "allowed_roles"))[0],
        }
        if domain.attestation_required:
            lines["attestation_required"] = mesh.at((*path, "attestation_required"))[0]
        domains[domain.name] = {
            "tier": domain.tier,
            "produce": sorted(domain.allowed_roles if domain.produce is None else domain.produce),
            "consume": sorted(domain.allowed_roles if domain.consume is None else domain.consume),
            "metadata_masking": domain.metadata_masking,
            "audit_level": domain.audit_level,
            "attestation_required": domain.attestation_required,
            "locations": {rule: f"{mesh.file}:{line}" for rule, line in lines.items()},
        }
    return {
        "format": FORMAT,
        "global": law.global_.model_dump(),
        "topics": {
            "partitions": law.topics.partitions,
            "replication": law.topics.replication,
            "retention_ms": law.topics.retention,
            "backlog_horizon_ms": law.topics.backlog_horizon,
        },
        "domains": domains,
        "agents": {name: {"roles": sorted(_agent_roles(agent))} for name, agent in agents.agents.items()},
    }
