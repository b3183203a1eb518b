"""Builders for the tests of the policy language: a law and its agents as values or as text, loaded by the product.

``loaded`` takes the road of the files (shape, checks, canonical document, compilation) but for YAML and the disk, which
``from_text`` adds. An agent is written as ``ROLE,ROLE@tenant/zone``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bus.codes import Code
from bus.errors import PolicyError
from bus.policy.build import build_document
from bus.policy.checks import check_files
from bus.policy.compiling import canonical, compile_policy
from bus.policy.decide import Decision, decide
from bus.policy.document import AgentsFile, MeshFile
from bus.policy.loader import load_policy, validate
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.policy.yamldoc import Document
from bus.wire.names import AgentId, DomainName

GLOBAL = {"tls_min_version": "1.3", "credential_rotation_interval_ms": 600_000, "audit_scope": "FULL_MESH"}


def domain(name: str, *roles: str, **keys: object) -> dict[str, Any]:
    """A RETRIEVAL domain of ``roles``, neither masked nor conditional; ``keys`` add and replace."""
    return {
        "name": name,
        "tier": "RETRIEVAL",
        "allowed_roles": list(roles),
        "metadata_masking": False,
        "audit_level": "FULL_MESH",
        **keys,
    }


def agent(text: str) -> dict[str, Any]:
    """The entry of agents.yaml that ``ROLE,ROLE@tenant/zone`` stands for."""
    rest, _, zone = text.partition("/")
    roles, _, tenant = rest.partition("@")
    return {"roles": roles.split(","), **({"tenant": tenant} if tenant else {}), **({"zone": zone} if zone else {})}


def loaded(domains: Sequence[Mapping[str, Any]], agents: Mapping[str, str], **sections: object) -> Policy:
    """The policy of these values. Raises the first PolicyError, at no place: values have no lines."""
    law = {"security_mesh": {"global": GLOBAL, **sections, "domains": list(domains)}}
    mesh = Document("mesh.yaml", law, {})
    who = Document("agents.yaml", {"agents": {name: agent(text) for name, text in agents.items()}}, {})
    checked, known = validate(mesh, MeshFile).security_mesh, validate(who, AgentsFile)
    for error in check_files(mesh, who, checked, known, development=True):
        raise error
    return compile_policy(canonical(build_document(mesh, checked, known)))


def from_text(mesh: str, agents: str) -> Policy:
    """The policy of two files with this text. Raises PolicyError."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("mesh.yaml", mesh), ("agents.yaml", agents)):
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return load_policy(Path(folder))


def refusal(mesh: str, agents: str) -> PolicyError:
    """The first refusal of two files with this text."""
    with pytest.raises(PolicyError) as refused:
        from_text(mesh, agents)
    assert refused.value.code is Code.POLICY
    return refused.value


def changed(base: str, old: str, new: str) -> str:
    """``base`` with the first ``old`` made ``new``."""
    assert old in base
    return base.replace(old, new, 1)


def asked(policy: Policy, who: str, what: str, **context: Any) -> Decision:
    """The decision on ``what``, as in "produce notes"."""
    action, _, name = what.partition(" ")
    return decide(AgentId(who), Action(action), DomainName(name), Context(**context), policy)


def allows(policy: Policy, who: str, what: str, **context: Any) -> bool:
    """Whether the decision on ``what`` is an ALLOW."""
    return asked(policy, who, what, **context).allowed


def denies(policy: Policy, who: str, what: str, **context: Any) -> tuple[Code, str]:
    """Code and rule of the DENY on ``what``."""
    decision = asked(policy, who, what, **context)
    assert not decision.allowed, f"{who} may {what}: {decision.rule}"
    assert decision.why
    return decision.code, decision.rule
