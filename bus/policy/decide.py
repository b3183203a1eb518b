"""The PDP: (principal, action, resource, context, policy) -> decision. Pure, total, default deny.

The same function answers the SDK's early check, the enforcer and `bus policy test | explain`. The rules, in order:

 1. the domain and the agent exist
 2. delegations: who may write only under one shows one
 3. tenants: no record crosses
 4. zones: only named flows cross
 5. produce or consume
 6. kind and tools
 7. labels: somebody who is cleared may read; the target is one of them
 8. conditions (`when`) of what is written; those that look at time, load or size last
 9. the tier can be had and is high enough

Under a delegation these are asked of who gave it (``bus.policy.acting``).

Guardrails, rates and breakers follow where the record's bytes are (the enforcer). A decision names its rule and where
it is written; an error anywhere denies.
"""

from __future__ import annotations

from dataclasses import dataclass

from bus.codes import Code
from bus.policy.acting import cases
from bus.policy.model import Policy
from bus.policy.question import Action, Context, Finding
from bus.policy.rules import RULES, moment_conditions, readers
from bus.wire.names import AgentId, DomainName, Tier


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must be done with an allowed record. Exactly one of ``roles`` and ``target`` names its readers.

    ``roles`` are reader groups: a role, narrowed to tenant and zone where the policy has those.
    """

    tier: Tier
    mask_metadata: bool
    audit_full: bool
    roles: tuple[str, ...] = ()
    target: str = ""
    masks: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    label: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Short words for notices and logs."""
        readers = f"target:{self.target}" if self.target else "roles:" + ",".join(self.roles)
        label = (f"label:{'+'.join(self.label)}",) if self.label else ()
        masked = ("masked",) if self.mask_metadata else ()
        return (f"tier:{self.tier.name}", readers, *masked, *label, *self.masks, *self.guardrails)


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
    decision = decide_constant(principal, action, resource, context, policy)
    return decide_moment(decision, principal, action, resource, context, policy)


def decide_constant(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy
) -> Decision:
    """The decision but for conditions on time, load and size: the same for every record of one profile."""
    unknown = _unknown(principal, action, resource, policy)
    if unknown is not None:
        return Decision(unknown.refusal or Code.INTERNAL, unknown.rule, unknown.location, why=unknown.why)
    domain = policy.domains[resource]
    asked = cases(principal, action, domain, context, policy)
    for each in asked:
        for rule in RULES:
            for finding in rule(each):
                if finding.refusal is not None:
                    return Decision(finding.refusal, finding.rule, finding.location, why=finding.why)
    case = asked[0]
    return Decision(
        Code.ALLOW,
        f"{resource}.{action}",
        domain.location(action),
        Obligations(
            tier=domain.tier,
            mask_metadata=domain.metadata_masking,
            audit_full=domain.audit_full,
            roles=() if context.target else readers(case),
            target=context.target,
            masks=tuple(each.name for each in domain.masks),
            guardrails=tuple(each.name for each in domain.guardrails),
            label=policy.scheme.names(case.label),
        ),
    )


def decide_moment(
    decision: Decision, principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy
) -> Decision:
    """``decision`` with the conditions that look at this record's time, load or size."""
    domain = policy.domains.get(resource)
    if domain is None or not domain.moment or not (decision.allowed or decision.rule == f"{resource}.tier"):
        return decision
    for case in cases(principal, action, domain, context, policy):
        for finding in moment_conditions(case):
            if finding.refusal is not None:
                return Decision(finding.refusal, finding.rule, finding.location, why=finding.why)
    return decision


def findings(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy
) -> list[Finding]:
    """What every rule says, in order, also behind the first refusal: the answer of `bus policy explain`."""
    unknown = _unknown(principal, action, resource, policy)
    if unknown is not None:
        return [unknown]
    found: list[Finding] = []
    for case in cases(principal, action, policy.domains[resource], context, policy):
        found += [finding for rule in RULES[:-1] for finding in rule(case)]
        found += moment_conditions(case)
        found += RULES[-1](case)
    return found


def _unknown(principal: AgentId, action: Action, resource: DomainName, policy: Policy) -> Finding | None:
    code = Code.PRODUCE if action is Action.PRODUCE else Code.CONSUME
    rule = f"{resource}.{action}"
    if resource not in policy.domains:
        return Finding(rule, f"no domain {resource!r}", refusal=code)
    if principal not in policy.agents:
        where = policy.domains[resource].location(action)
        return Finding(rule, f"no agent {principal!r} in agents.yaml", where, code)
    return None
