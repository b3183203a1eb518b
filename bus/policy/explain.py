"""Why a decision is what it is, and what would change it: every rule's answer, roles that would allow. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from bus.policy.decide import Decision, findings
from bus.policy.decide import decide as pdp
from bus.policy.model import Policy
from bus.policy.question import Action, Context, Finding
from bus.wire.names import AgentId, DomainName

Decides = Callable[[AgentId, Action, DomainName, Context, Policy], Decision]
_QUOTED = re.compile(r"""["]([^"]*)["]|[']([^']*)[']""")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, all rules, the roles with any of which it would be ALLOW, and other agents that share a refusal."""

    decision: Decision
    findings: tuple[Finding, ...]
    roles: tuple[str, ...]
    purposes: tuple[str, ...]
    sharing: tuple[AgentId, ...]


def explain(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy, *, floor: bool = False
) -> Explanation:
    """Explain one decision, as it is or as it would be. With ``floor`` as the enforcer decides on a record that proves
    nothing of what it builds on: each agent that is asked about has its own floor."""

    def decide(agent: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy) -> Decision:
        return pdp(agent, action, resource, _floored(agent, context, policy, floor=floor), policy)

    decision = decide(principal, action, resource, context, policy)
    told = tuple(findings(principal, action, resource, _floored(principal, context, policy, floor=floor), policy))
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
        _roles_that_allow(principal, action, resource, context, policy, decide),
        _words_that_allow(principal, action, resource, context, policy, decide),
        sharing,
    )


def _floored(agent: AgentId, context: Context, policy: Policy, *, floor: bool) -> Context:
    return replace(context, labels=(*context.labels, *policy.floor(agent))) if floor else context


def _roles_that_allow(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy, decide: Decides
) -> tuple[str, ...]:
    agent, domain = policy.agents.get(principal), policy.domains.get(resource)
    if agent is None or domain is None:
        return ()
    found = []
    for role in sorted((domain.writing | domain.consume | set(policy.clearances)) - agent.roles):
        held = replace(agent, roles=agent.roles | policy.inherited(role))
        other = replace(policy, agents={**policy.agents, principal: held})
        if decide(principal, action, resource, context, other).allowed:
            found.append(str(role))
    return tuple(found)


def _words_that_allow(
    principal: AgentId, action: Action, resource: DomainName, context: Context, policy: Policy, decide: Decides
) -> tuple[str, ...]:
    """Purposes that stand in the conditions and would allow: words in quotes, tried one by one."""
    domain = policy.domains.get(resource)
    texts = [each.text for each in domain.when] if domain is not None else []
    words = sorted({a or b for text in texts if "purpose" in text for a, b in _QUOTED.findall(text)})
    return tuple(
        word for word in words if decide(principal, action, resource, replace(context, purpose=word), policy).allowed
    )
