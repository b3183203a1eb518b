"""Roles of a law: which there are, what each inherits and which an agent is given. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bus.policy.document import Agent, SecurityMesh


def known_roles(law: SecurityMesh) -> list[str]:
    """Every role that a domain allows or `roles` defines, sorted."""
    return sorted({role for domain in law.domains for role in domain.allowed_roles} | set(law.roles))


def closure(law: SecurityMesh, roles: Iterable[str]) -> list[str]:
    """``roles`` with all that they inherit, sorted."""
    found: set[str] = set()
    waiting = list(roles)
    while waiting:
        role = waiting.pop()
        if role not in found:
            found.add(role)
            waiting += law.roles[role].inherits if role in law.roles else []
    return sorted(found)


def agent_roles(agent: Agent) -> list[str]:
    """The roles that an agent is given, without what they inherit."""
    return ([agent.role] if agent.role else []) + (agent.roles or [])
