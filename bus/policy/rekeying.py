"""Which domains a draft re-keys: a digest of what decides who may open a domain. Pure; epochs are started elsewhere.

Counted is who holds keys of the domain, and for which records: its writers (their own keys open what they sealed), its
reader groups with their agents and the labels that each role is cleared for, the flows that lead its records from its
writers to its readers, its label, its tier, and where keys wait for attestation, which measurements of each agent are
accepted. Not counted is what decides on single records behind that: kinds, tools, conditions, masks, guardrails, rates,
breakers, declassifiers, quotas, locations.

The digest may change where nobody gains or loses (a level that no record has yet); it never stays where somebody does.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from bus.policy.compiling import canonical
from bus.policy.labels import Label
from bus.policy.model import DomainPolicy, FlowRule, Policy, reader_group
from bus.wire.names import AgentId, DomainName


def rekeyed(live: Policy, draft: Policy) -> tuple[DomainName, ...]:
    """Domains of both policies that other agents may open under ``draft``, by name.

    A domain that only one of them has is left out: a new one has no keys yet, of one that is gone nobody gets any.
    """
    both = sorted({*live.domains} & {*draft.domains})
    return tuple(name for name in both if opening_digest(live, name) != opening_digest(draft, name))


def opening_digest(policy: Policy, domain: DomainName) -> bytes:
    """SHA-256 (32 bytes) over the canonical JSON of what decides who may open ``domain``.

    Raises KeyError for a domain that the policy does not have.
    """
    return hashlib.sha256(canonical(_opening(policy, policy.domains[domain]))).digest()


def _opening(policy: Policy, domain: DomainPolicy) -> dict[str, Any]:
    writers, openers = policy.writers(domain), policy.openers(domain)
    groups: defaultdict[str, list[AgentId]] = defaultdict(list)
    for agent in openers:
        for group in policy.groups(agent, domain):
            groups[group].append(agent)
    held = {role for agent in openers for role in policy.agents[agent].roles}
    return {
        "tier": domain.tier.name,
        **({"protect_at": "source"} if domain.at_source else {}),
        **({"mpc": domain.sharing.digest.hex()} if domain.sharing is not None else {}),
        "attested": _attested(policy, domain, writers, openers),
        "label": list(policy.scheme.names(domain.label)),
        "writers": [_placed(policy, agent) for agent in writers],
        "groups": groups,
        "cleared": {
            role: _upto(policy, domain, policy.clearance(role))
            for role in sorted(held & policy.readers(domain, domain.label))
        },
        "flows": _flows(policy, domain, writers, openers),
    }


def _attested(
    policy: Policy, domain: DomainPolicy, writers: list[AgentId], openers: list[AgentId]
) -> dict[str, list[str]] | bool:
    """What may be found of each agent that gets keys of a domain that requires attestation; False of any other."""
    if not domain.attestation_required:
        return False
    return {each: sorted(map(str, policy.agents[each].measurements)) for each in {*writers, *openers}}


def _placed(policy: Policy, agent: AgentId) -> str:
    """A writer with the tenant and zone that its records go to."""
    each = policy.agents[agent]
    return reader_group(agent, each.tenant if policy.tenants else "", each.zone if policy.zones else "")


def _upto(policy: Policy, domain: DomainPolicy, label: Label) -> list[str]:
    """Names of the levels from the domain's label to ``label``, and of its categories."""
    return [*policy.scheme.levels[domain.label.level : label.level + 1], *sorted(label.categories)]


def _flows(
    policy: Policy, domain: DomainPolicy, writers: list[AgentId], openers: list[AgentId]
) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Ways from a zone with writers to one with readers: from, to, the highest level, what may not go."""
    sources = {policy.agents[agent].zone for agent in writers}
    targets = {policy.agents[agent].zone for agent in openers}
    ways = {
        (flow.source, flow.target, _ceiling(policy, flow), tuple(sorted(flow.forbid)))
        for flow in policy.flows
        if domain.name in flow.domains and flow.source in sources and flow.target in targets
        if not flow.forbids(domain.label)
    }
    return sorted(ways)


def _ceiling(policy: Policy, flow: FlowRule) -> str:
    return "" if flow.ceiling is None else policy.scheme.levels[flow.ceiling]
