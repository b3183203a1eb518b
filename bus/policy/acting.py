"""Who acts and by whose right: the cases of a question, and the rule of delegations. Pure.

Under a delegation the right of who gave it is asked for: its tenant, zone, roles, tools and conditions. Who acts must
stand where the giver stands, and adds to the record's label what its own record would have. An agent that may write by
itself is asked, too: showing a delegation only narrows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bus.codes import Code
from bus.policy.labels import BOTTOM, Label
from bus.policy.model import AgentPolicy, DomainPolicy, Policy
from bus.policy.question import Action, Case, Context, Finding
from bus.wire.names import AgentId


def record_label(agent: AgentPolicy, action: Action, domain: DomainPolicy, context: Context, policy: Policy) -> Label:
    """The domain's own label, joined with what the record builds on as far as none of its writers may lower it."""
    label = policy.scheme.parse(context.labels) or BOTTOM
    if action is Action.CONSUME:
        return domain.label.join(label)
    found = domain.label.join(policy.lowered(agent, domain, label))
    for name in context.delegated_by:
        if (giver := policy.agents.get(name)) is not None:
            floor = policy.scheme.parse(policy.floor(name)) or BOTTOM
            found = found.join(policy.lowered(giver, domain, label.join(floor)))
    return found


def cases(
    principal: AgentId, action: Action, domain: DomainPolicy, context: Context, policy: Policy
) -> tuple[Case, ...]:
    """All must be allowed, the first of which says how: that of whose right it is, then the principal's own."""
    agent = policy.agents[principal]
    case = Case(agent, action, domain, context, policy, record_label(agent, action, domain, context, policy))
    giver = policy.agents.get(context.delegated_by[0]) if context.delegated_by else None
    if giver is None or action is Action.CONSUME:
        return (case,)
    under = replace(case, agent=giver, delegate=agent)
    own = replace(case, context=replace(context, delegated_by=()))
    return (under, own) if domain.produce & agent.roles else (under,)


def delegation(case: Case) -> Iterator[Finding]:
    """Who may write only under a delegation shows one; whoever passed one on still might act, and stands there too."""
    domain, by = case.domain, case.context.delegated_by
    acting = case.delegate or case.agent
    rule, where = f"{domain.name}.delegates", domain.location("delegates")
    if case.action is not Action.PRODUCE:
        return
    if by:
        fault = _fault(case, acting)
        yield Finding(rule, fault or " > ".join((*by, acting.name)), where, Code.DELEGATES if fault else None)
    elif domain.delegates & acting.roles and not domain.produce & acting.roles:
        yield Finding(rule, f"{acting.name} may write only under a delegation", where, Code.DELEGATES)


def _fault(case: Case, acting: AgentPolicy) -> str:
    domain = case.domain
    for name in (*case.context.delegated_by, acting.name):
        agent = case.policy.agents.get(name)
        if agent is None:
            return f"no agent {name!r} in agents.yaml"
        if not agent.roles & domain.writing:
            return f"{name} may not write {domain.name}, nor under a delegation"
        if (agent.tenant, agent.zone) != (acting.tenant, acting.zone):
            return f"{name} is of another tenant or zone than {acting.name}"
    return ""
