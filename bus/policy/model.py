"""The compiled policy: frozen, digested, the same in the SDK, the enforcer and the CLI.

``document`` is canonical JSON (RFC 8785) and is what a signed snapshot carries; ``compile_policy`` reads it back.
Rules know their file and line, so that a refusal can name where it is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785

from bus.codes import Code
from bus.errors import WireError
from bus.wire.names import AgentId, DomainName, RoleName, Tier

FORMAT: Final = "sealbus.policy/1"


@dataclass(frozen=True, slots=True)
class DomainPolicy:
    """One domain. Roles in ``produce`` may write, in ``consume`` read; both within the file's ``allowed_roles``."""

    name: DomainName
    tier: Tier
    produce: frozenset[RoleName]
    consume: frozenset[RoleName]
    metadata_masking: bool
    audit_full: bool
    attestation_required: bool
    partitions: int
    retention_ms: int
    locations: Mapping[str, str] = field(default_factory=dict)

    def location(self, rule: str) -> str:
        """file:line of ``produce``, ``consume`` or ``tier`` in the files that were loaded."""
        return self.locations.get(rule, self.locations.get("name", ""))


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """One agent and its roles."""

    name: AgentId
    roles: frozenset[RoleName]


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy. ``digest`` = SHA-256 of ``document``."""

    domains: Mapping[DomainName, DomainPolicy]
    agents: Mapping[AgentId, AgentPolicy]
    rotation_interval_ms: int
    replication: int
    backlog_horizon_ms: int
    document: bytes = field(repr=False)
    digest: bytes

    def may_produce(self, agent: AgentId) -> list[DomainPolicy]:
        """Domains that ``agent`` may write, by name."""
        return [each for each in self._domains() if each.produce & self._roles(agent)]

    def may_consume(self, agent: AgentId) -> list[DomainPolicy]:
        """Domains that ``agent`` may read, by name."""
        return [each for each in self._domains() if each.consume & self._roles(agent)]

    def _domains(self) -> list[DomainPolicy]:
        return [self.domains[name] for name in sorted(self.domains)]

    def _roles(self, agent: AgentId) -> frozenset[RoleName]:
        held = self.agents.get(agent)
        return held.roles if held is not None else frozenset()


def canonical(document: Mapping[str, Any]) -> bytes:
    """RFC 8785 bytes of a policy document."""
    return rfc8785.dumps(dict(document))


def compile_policy(document: bytes) -> Policy:
    """The policy in canonical bytes. Raises WireError(version, decode) for another format or other bytes."""
    try:
        value = json.loads(document)
        if value["format"] != FORMAT:
            raise WireError(f"policy: expected format {FORMAT}, found {value['format']!r}", code=Code.VERSION)
        topics = value["topics"]
        domains = {
            DomainName(name): DomainPolicy(
                name=DomainName(name),
                tier=Tier[each["tier"]],
                produce=frozenset(map(RoleName, each["produce"])),
                consume=frozenset(map(RoleName, each["consume"])),
                metadata_masking=each["metadata_masking"],
                audit_full=each["audit_level"] == "FULL_MESH",
                attestation_required=each["attestation_required"],
                partitions=topics["partitions"],
                retention_ms=topics["retention_ms"],
                locations=each["locations"],
            )
            for name, each in value["domains"].items()
        }
        agents = {
            AgentId(name): AgentPolicy(AgentId(name), frozenset(map(RoleName, each["roles"])))
            for name, each in value["agents"].items()
        }
        if canonical(value) != document:
            raise WireError("policy: not in canonical form (RFC 8785)", code=Code.DECODE)
        return Policy(
            domains=domains,
            agents=agents,
            rotation_interval_ms=value["global"]["credential_rotation_interval_ms"],
            replication=topics["replication"],
            backlog_horizon_ms=topics["backlog_horizon_ms"],
            document=document,
            digest=hashlib.sha256(document).digest(),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WireError(f"policy: not a policy document: {error!r}", code=Code.DECODE) from error
