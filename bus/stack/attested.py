"""The check of `bus doctor` on attestation: every agent that needs it has done it once, with what is accepted now.

A domain of the published form whose keys nobody can have yet is told, and is no fault.
"""

from __future__ import annotations

from bus.authority.enrolment import open_register
from bus.authority.local import now_ms
from bus.authority.standing import standings
from bus.errors import Refused
from bus.policy.attestation import check_issuing, gated, implied
from bus.policy.model import DomainPolicy, Policy
from bus.settings import Issuing
from bus.stack.local import Stack
from bus.wire.names import DomainName


def attestation(stack: Stack) -> str:
    """Names the first agent that lacks it. One whose last result ended is counted alone: it may be at rest."""
    policy = stack.load_policy()
    files = stack.settings.issuing is Issuing.FILES
    check_issuing(policy, files=files)
    idle = [each.name for each in gated(policy) if files or (implied(each) and not _accepts(policy, each))]
    lacks = 'keys are written into files (issuing = "authority" in bus.toml)' if files else "no measurement is accepted"
    found = [f"nobody has keys of {', '.join(idle)}, which requires it: {lacks}"] if idle else []
    if not files:
        found = _waiting(stack, policy, idle) + found
    return "; ".join(found) or "no domain requires it"


def _waiting(stack: Stack, policy: Policy, idle: list[DomainName]) -> list[str]:
    held = standings(open_register(stack.settings, stack.layout), policy, now_ms())
    waiting = [(each, needs) for each in held if (needs := [name for name in each.needs if name not in idle])]
    for each, needs in waiting:
        if each.lacks:
            why = f"{each.name} needs attestation for {', '.join(needs)}: {each.lacks}"
            raise Refused(why, hint=mend(each.name, each.law is not None and bool(each.law.measurements)))
    current = sum(each.in_force for each, _ in waiting)
    return [f"{len(waiting)} agents need it, {current} have a result in force"] if waiting else []


def _accepts(policy: Policy, domain: DomainPolicy) -> bool:
    """Whether a measurement of anybody who may write or read ``domain`` is accepted."""
    return any(policy.agents[name].measurements for name in {*policy.writers(domain), *policy.openers(domain)})


def mend(agent: str, told: bool) -> str:
    """One line: say what is accepted, or let the agent attest."""
    if told:
        return f"set attester in bus.toml where {agent} runs, and start it (`bus agent measure` says what it attests)"
    return f"agents.yaml: {agent}: {{measurements: [...]}} (`bus agent measure` where it runs), then bus policy apply"
