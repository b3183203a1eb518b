"""Checked policy files to the document that a snapshot carries. Keys that a policy does not use are left out."""

from __future__ import annotations

from typing import Any

from bus.policy.checks import LAW
from bus.policy.compiling import FORMAT
from bus.policy.document import AgentsFile, Domain, SecurityMesh
from bus.policy.model import QUOTA_KEYS
from bus.policy.roles import agent_roles, closure, known_roles
from bus.policy.yamldoc import Document


def build_document(mesh: Document, law: SecurityMesh, who: AgentsFile) -> dict[str, Any]:
    """The policy as JSON values. Roles inherit here: whoever reads the document finds them whole."""
    optional = {
        "quotas": {
            name: {
                key: limit
                for key, limit in zip(QUOTA_KEYS, (each.consume, each.produce, each.requests), strict=True)
                if limit
            }
            for name, each in law.broker_quotas.items()
        },
        "tenants": sorted(law.tenants),
        "zones": {name: each.model_dump(exclude_none=True) for name, each in law.zones.items()},
        "flows": [
            {
                **each.model_dump(by_alias=True, exclude_none=True),
                "location": _line(mesh, "flows", index),
            }
            for index, each in enumerate(law.flows)
        ],
        "labels": law.labels.model_dump(by_alias=True) if law.labels else {},
        "clearances": _clearances(law),
        "inherits": {role: held for role in law.roles if len(held := closure(law, [role])) > 1},
        "conditions": dict(law.conditions),
        "masks": {name: each.model_dump(exclude_none=True) for name, each in law.masks.items()},
        "guardrails": {name: each.model_dump() for name, each in law.guardrails.items()},
        "rate_limits": {name: each.model_dump(exclude_none=True) for name, each in law.rate_limits.items()},
        "circuit_breakers": {name: each.model_dump() for name, each in law.circuit_breakers.items()},
        "locations": _locations(mesh, law),
    }
    return {
        "format": FORMAT,
        **{key: value for key, value in optional.items() if value},
        "global": law.global_.model_dump(),
        "topics": {
            "partitions": law.topics.partitions,
            "replication": law.topics.replication,
            "retention_ms": law.topics.retention,
            "backlog_horizon_ms": law.topics.backlog_horizon,
        },
        "domains": {each.name: _domain(mesh, index, each) for index, each in enumerate(law.domains)},
        "agents": {
            name: {
                "roles": closure(law, agent_roles(agent)),
                **({"tenant": agent.tenant} if agent.tenant else {}),
                **({"zone": agent.zone} if agent.zone else {}),
                **({"measurements": sorted(agent.measurements)} if agent.measurements else {}),
            }
            for name, agent in who.agents.items()
        },
    }


def _line(mesh: Document, *path: str | int) -> str:
    place = (LAW, *path)
    line, _ = mesh.marks.get((*place, "~key"), mesh.at(place))
    return f"{mesh.file}:{line}"


def _clearances(law: SecurityMesh) -> dict[str, list[str]]:
    """What each role is cleared for, with what it inherits."""
    if law.labels is None:
        return {}
    found = {}
    for role in known_roles(law):
        held = [law.roles[each] for each in closure(law, [role]) if each in law.roles]
        names = {name for each in held for name in each.categories}
        found[role] = sorted(names) + [each.clearance for each in held if each.clearance]
    return {role: names for role, names in found.items() if names}


def _locations(mesh: Document, law: SecurityMesh) -> dict[str, str]:
    found = {f"conditions:{name}": _line(mesh, "conditions", name) for name in law.conditions}
    found |= {f"roles:{name}": _line(mesh, "roles", name) for name in law.roles}
    found |= {f"guardrails:{name}": _line(mesh, "guardrails", name) for name in law.guardrails}
    found |= {f"masks:{name}": _line(mesh, "masks", name) for name in law.masks}
    found |= {f"rate_limits:{name}": _line(mesh, "rate_limits", name) for name in law.rate_limits}
    found |= {f"circuit_breakers:{name}": _line(mesh, "circuit_breakers", name) for name in law.circuit_breakers}
    if law.tenants:
        found["tenants"] = _line(mesh, "tenants")
    if law.zones:
        found["zones"] = _line(mesh, "zones")
    return found


def _domain(mesh: Document, index: int, domain: Domain) -> dict[str, Any]:
    def line(key: str) -> str:
        return _line(mesh, "domains", index, key)

    optional: dict[str, Any] = {
        "delegates": sorted(domain.delegates),
        "kinds": sorted(domain.kinds) if domain.kinds is not None else [],
        "label": list(domain.label),
        "when": list(domain.when),
        "masks": list(domain.masks),
        "guardrails": list(domain.guardrails),
        "rate_limit": domain.rate_limit,
        "circuit_breaker": domain.circuit_breaker,
        "max_token_age_ms": domain.max_token_age_ms,
        "padding": domain.padding,
        "computation": domain.computation,
        "protect_at": domain.protect_at,
        "fhe_context": domain.fhe_context,
        "mpc": domain.mpc.model_dump(exclude_none=True) if domain.mpc is not None else None,
        "sealed_fields": domain.sealed_fields,
        "constant_size": domain.constant_size,
        "blind_index": domain.blind_index,
        "user_required": domain.user_required,
        "audit_payload": domain.audit_payload if domain.audit_payload == "sealed" else None,
    }
    optional = {key: value for key, value in optional.items() if value}
    if domain.tools is not None:
        optional["tools"] = {tool: sorted(roles) for tool, roles in domain.tools.items()}
    locations = {
        "name": line("name"),
        "tier": line("tier"),
        "produce": line("produce" if domain.produce is not None else "allowed_roles"),
        "consume": line("consume" if domain.consume is not None else "allowed_roles"),
        **{key: line(key) for key in optional},
    }
    if domain.attestation_required:
        locations["attestation_required"] = line("attestation_required")
    return {
        "tier": domain.tier,
        "produce": sorted(domain.producers),
        "consume": sorted(domain.allowed_roles if domain.consume is None else domain.consume),
        "metadata_masking": domain.metadata_masking,
        "audit_level": domain.audit_level,
        "attestation_required": domain.attestation_required,
        "locations": locations,
        **optional,
    }
