"""Why a decision is what it is, and what would change it: every rule's answer, roles that would allow. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bus.policy.decide import Decision, decide, findings
from bus.policy.model import Policy
from bus.policy.question import Action, Context, Finding
from bus.wire.names import AgentId, DomainName


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, all rules, the roles with any of which it would be ALLOW, and other agents that share a refusal."""

    decision: Decision
    findings: tuple[Finding, ...]
    roles: tuple[str, ...]
    purposes: tuple[str, ...]
    sharing: tuple[AgentId, ...]


def explain(principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy) -> Explanation:
    """Explain one decision, as it is or as it would be."""
    decision = decide(principal, action, resource, context, policy)
    told = tuple(findings(principal, action, resource, context, policy))
    if decision.allowed:
        return Explanation(decision, told, (), (), ())
    sharing = tuple(
        name
        for name in sorted(policy.agents)
        if name != principal
        and decide(name, action, resource, context, policy).rule == decision.rule
        and not decide(name, action, resource, context, policy).allowed
    )
    return Explanation(
        decision,
        told,
        _roles_that_allow(principal, action, resource, context, policy),
        _words_that_allow(principal, action, resource, context, policy),
        sharing,
    )


def _roles_that_allow(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy
) -> tuple[str, ...]:
    agent, domain = policy.agents.get(principal), policy.domains.get(resource)
    if agent is None or domain is None:
        return ()
    found = []
    for role in sorted((domain.produce | domain.consume | set(policy.clearances)) - agent.roles):
        held = replace(agent, roles=agent.roles | policy.inherited(role))
        other = replace(policy, agents={**policy.agents, principal: held})
        if decide(principal, action, resource, context, other).allowed:
            found.append(str(role))
    return tuple(found)


def _words_that_allow(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy
) -> tuple[str, ...]:
    """Purposes that stand in the conditions and would allow: words in quotes, tried one by one."""
    domain = policy.domains.get(resource)
    texts = [each.text for each in domain.when] if domain is not None else []
    words = sorted({word for text in texts if "purpose" in text for word in text.split('"')[1::2]})
    return tuple(
        word for word in words if decide(principal, action, resource, replace(context, purpose=word), policy).allowed
    )
