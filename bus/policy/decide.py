"""The PDP: (principal, action, resource, context, policy) -> decision. Pure, total, default deny.

The same function answers the SDK's early check and the enforcer. Order of rules: produce or consume, then the target's
right to read, then whether the tier can be had and is high enough. A decision names its rule and where it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus.codes import Code
from bus.policy.model import DomainPolicy, Policy
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, RoleName, Tier

AVAILABLE_TIERS: Final = frozenset({Tier.PLAINTEXT, Tier.RETRIEVAL})
"""Tiers that this release can protect for; a domain of another tier is refused, never weakened."""


class Action(StrEnum):
    """What a principal does to a domain."""

    PRODUCE = "produce"
    CONSUME = "consume"


@dataclass(frozen=True, slots=True)
class Context:
    """Environment of an action: what of an envelope the rules look at."""

    kind: Kind = Kind.MESSAGE
    target: str = ""
    tier_floor: Tier | None = None


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must be done with an allowed record. Exactly one of ``roles`` and ``target`` names its readers."""

    tier: Tier
    mask_metadata: bool
    audit_full: bool
    roles: tuple[RoleName, ...] = ()
    target: str = ""

    def names(self) -> tuple[str, ...]:
        """Short words for notices and logs."""
        readers = f"target:{self.target}" if self.target else "roles:" + ",".join(self.roles)
        return (f"tier:{self.tier.name}", readers, *(("masked",) if self.mask_metadata else ()))


@dataclass(frozen=True, slots=True)
class Decision:
    """ALLOW with obligations, or DENY with a code; always with a rule and its file:line."""

    code: Code
    rule: str
    location: str
    obligations: Obligations | None = None
    why: str = ""

    @property
    def allowed(self) -> bool:
        """Whether this is an ALLOW."""
        return self.obligations is not None


def decide(principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy) -> Decision:
    """Decide; every input falls into exactly one ALLOW or DENY."""
    domain = policy.domains.get(resource)
    agent = policy.agents.get(principal)
    rule = f"{resource}.{action}"
    code = Code.PRODUCE if action is Action.PRODUCE else Code.CONSUME
    if domain is None:
        return Decision(code, rule, "", why=f"no domain {resource!r}")
    where = domain.location(action)
    if agent is None:
        return Decision(code, rule, where, why=f"no agent {principal!r} in agents.yaml")
    granted = domain.produce if action is Action.PRODUCE else domain.consume
    if not granted & agent.roles:
        why = f"{', '.join(sorted(agent.roles))} not in [{', '.join(sorted(granted))}]"
        return Decision(code, rule, where, why=why)
    if action is Action.PRODUCE:
        refusal = _target_refusal(domain, context, policy)
        if refusal is not None:
            return refusal
    return _tier_decision(domain, rule, where, context)


def _target_refusal(domain: DomainPolicy, context: Context, policy: Policy) -> Decision | None:
    rule, where = f"{domain.name}.consume", domain.location("consume")
    if context.kind.targeted and not context.target:
        return Decision(Code.CONSUME, rule, where, why=f"{context.kind} needs a target")
    if not context.target:
        if not domain.consume:
            return Decision(Code.CONSUME, rule, where, why=f"nobody may read {domain.name}")
        return None
    reader = policy.agents.get(AgentId(context.target))
    if reader is None or not reader.roles & domain.consume:
        return Decision(Code.CONSUME, rule, where, why=f"target {context.target!r} may not read {domain.name}")
    return None


def _tier_decision(domain: DomainPolicy, rule: str, where: str, context: Context) -> Decision:
    if domain.tier not in AVAILABLE_TIERS or domain.attestation_required:
        line = "tier" if domain.tier not in AVAILABLE_TIERS else "attestation_required"
        why = f"{domain.tier.name}{' with attestation' if domain.attestation_required else ''} is not available yet"
        return Decision(Code.TIER_UNAVAILABLE, f"{domain.name}.tier", domain.location(line), why=why)
    if context.tier_floor is not None and domain.tier < context.tier_floor:
        why = f"{domain.tier.name} is below the envelope's floor {context.tier_floor.name}"
        return Decision(Code.TIER_FLOOR, f"{domain.name}.tier", domain.location("tier"), why=why)
    return Decision(
        Code.ALLOW,
        rule,
        where,
        Obligations(
            tier=domain.tier,
            mask_metadata=domain.metadata_masking,
            audit_full=domain.audit_full,
            roles=() if context.target else tuple(sorted(domain.consume)),
            target=context.target,
        ),
    )
