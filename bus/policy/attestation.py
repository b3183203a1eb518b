"""Domains whose keys wait for attestation, who needs them, and whether anybody can ask for it. Pure."""

from __future__ import annotations

from bus.errors import PolicyError
from bus.policy.model import DomainPolicy, Policy
from bus.wire.names import AgentId, DomainName


def gated(policy: Policy) -> list[DomainPolicy]:
    """Domains that require attestation and have keys at all, by name."""
    held = (policy.domains[name] for name in sorted(policy.domains))
    return [each for each in held if each.attestation_required and each.protectable]


def needed(policy: Policy, agent: AgentId) -> list[DomainName]:
    """Those that ``agent`` may write or read: it has no keys of them before it attested."""
    held = {each.name for each in (*policy.may_produce(agent), *policy.may_consume(agent))}
    return [each.name for each in gated(policy) if each.name in held]


def implied(domain: DomainPolicy) -> bool:
    """Whether nothing but its tier makes ``domain`` protect at the source, as the published policy's: it may stand
    there before anybody attests."""
    return domain.at_source and "protect_at" not in domain.locations


def check_issuing(policy: Policy, *, files: bool) -> None:
    """Raise PolicyError where a domain waits for attestation and keys are ``files``, which ask nobody anything.

    Not where that is ``implied``: there are no keys of it then, and whoever asks for them is told why.
    """
    for each in gated(policy) if files else ():
        if implied(each):
            continue
        raise PolicyError(
            f'attestation_required: {each.name}: expected issuing = "authority" in bus.toml, found "files": '
            "keys that are written into files go to nobody who was asked",
            file=each.location("attestation_required"),
            hint='issuing = "authority" in bus.toml, then bus stack up',
        )
