"""The check of `bus doctor` on attestation: every agent that needs it has done it once, with what is accepted now."""

from __future__ import annotations

from bus.authority.enrolment import open_register
from bus.authority.local import now_ms
from bus.authority.standing import standings
from bus.errors import Refused
from bus.policy.attestation import check_issuing
from bus.settings import Issuing
from bus.stack.local import Stack


def attestation(stack: Stack) -> str:
    """Names the first agent that lacks it. One whose last result ended is counted alone: it may be at rest."""
    policy = stack.load_policy()
    check_issuing(policy, files=stack.settings.issuing is Issuing.FILES)
    if stack.settings.issuing is Issuing.FILES:
        return "no domain requires it"
    waiting = [each for each in standings(open_register(stack.settings, stack.layout), policy, now_ms()) if each.needs]
    for each in waiting:
        if each.lacks:
            why = f"{each.name} needs attestation for {', '.join(each.needs)}: {each.lacks}"
            raise Refused(why, hint=mend(each.name, each.law is not None and bool(each.law.measurements)))
    current = sum(each.in_force for each in waiting)
    return f"{len(waiting)} agents need it, {current} have a result in force" if waiting else "no domain requires it"


def mend(agent: str, told: bool) -> str:
    """One line: say what is accepted, or let the agent attest."""
    if told:
        return f"set attester in bus.toml where {agent} runs, and start it (`bus agent measure` says what it attests)"
    return f"agents.yaml: {agent}: {{measurements: [...]}} (`bus agent measure` where it runs), then bus policy apply"
