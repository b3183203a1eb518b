"""How each agent stands with the authority: enrolment, certificate, roles, what it attested last. For who looks."""

from __future__ import annotations

from dataclasses import dataclass

from bus.authority.attested import Attestations, Attested
from bus.authority.ca import CERTIFICATE_MS
from bus.authority.register import Enrolled, Register
from bus.policy.attestation import needed
from bus.policy.model import AgentPolicy, Policy
from bus.wire.names import AgentId, DomainName


@dataclass(frozen=True, slots=True)
class Standing:
    """One agent at ``now_ms``. ``law``: what the policy says of it; ``needs``: domains that it must attest for."""

    name: AgentId
    now_ms: int
    law: AgentPolicy | None
    needs: tuple[DomainName, ...]
    enrolled: Enrolled | None
    attested: Attested | None

    @property
    def certificate_ms(self) -> int:
        """How old the certificate in force is; 0 without one."""
        return self.now_ms - (self.enrolled.until - CERTIFICATE_MS) if self.enrolled and self.enrolled.serial else 0

    @property
    def in_force(self) -> bool:
        """Whether the last attestation result is one for the certificate in force, and has not ended."""
        last = self.attested
        return last is not None and last.until > self.now_ms and last.serial == (self.enrolled and self.enrolled.serial)

    @property
    def accepted(self) -> bool:
        """Whether the policy accepts now what was attested last."""
        held = self.law.measurements if self.law is not None else ()
        return self.attested is not None and self.attested.measurement in map(str, held)

    @property
    def lacks(self) -> str:
        """Why there is no attestation of an agent that needs one; empty for one that merely ended: it may not run."""
        if not self.needs:
            return ""
        if self.law is None or not self.law.measurements:
            return "no measurement of it is accepted"
        if self.attested is None:
            return "it never attested"
        return "" if self.accepted else f"{self.attested.measurement}, which it attested last, is not accepted"


def standings(register: Register, policy: Policy | None, now_ms: int) -> list[Standing]:
    """Every agent that was enrolled or is in ``policy``, by name."""
    enrolled = {each.name: each for each in register.list()}
    attested = Attestations(register).last()
    agents = policy.agents if policy is not None else {}
    return [
        Standing(
            name,
            now_ms,
            agents.get(name),
            tuple(needed(policy, name)) if policy is not None else (),
            enrolled.get(name),
            attested.get(name),
        )
        for name in sorted({*enrolled, *agents})
    ]
