"""Who attacks what on a running stack: chosen from the law that was applied last, so that every attack has a control.

A way is a permitted one: an agent that may write a domain, and one that may read what it writes. Domains whose rates,
circuit breakers or conditions of the moment may answer are taken last, those whose keys wait for an attestation not at
all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bus.authority.local import now_ms
from bus.errors import Refused
from bus.policy.decide import Decision, decide
from bus.policy.model import DomainPolicy, Policy
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName, Tier

PURPOSE: Final = "probe"


@dataclass(frozen=True, slots=True)
class Way:
    """``writer`` may write to ``domain`` what ``reader`` alone opens."""

    domain: DomainPolicy
    writer: AgentId
    reader: AgentId


@dataclass(frozen=True, slots=True)
class Scene:
    """``own``: where ``agent`` may write. Others' ways, None where the law has none: one into a domain that it may not
    write, one out of a domain that it may not read, one into a domain whose payloads are protected at their source."""

    policy: Policy
    agent: AgentId
    own: Way
    unwritable: Way | None
    unreadable: Way | None
    source: Way | None

    @property
    def elsewhere(self) -> DomainName | None:
        """Another domain than the agent's own."""
        return next((name for name in sorted(self.policy.domains) if name != self.own.domain.name), None)


def decided(policy: Policy, writer: AgentId, domain: DomainName, reader: AgentId) -> Decision:
    """What the PDP says of a record of this probe."""
    context = Context(target=reader, purpose=PURPOSE, labels=policy.floor(writer), time_ms=now_ms())
    return decide(writer, Action.PRODUCE, domain, context, policy)


def choose(policy: Policy, name: str = "") -> Scene:
    """The scene of the agent ``name``, or of the first that has most to attack. Raises Refused where there is none."""
    if name and name not in policy.agents:
        hint = f"one of {', '.join(sorted(policy.agents))}"
        raise Refused(f"no agent {name!r} in the law that was applied", hint=hint)
    agents = [AgentId(name)] if name else sorted(policy.agents)
    scenes = [scene for agent in agents if (scene := _scene(policy, agent)) is not None]
    if not scenes:
        raise Refused(
            f"{name or 'no agent'} may write no domain that this can be tried in: one that it may write without"
            " attestation, delegation or user, whose payloads the enforcer sees, and that somebody may read",
            hint="name another agent with --as: `bus policy who` says who may write what",
        )
    return min(scenes, key=lambda each: (each.unwritable is None) + (each.unreadable is None))


def _scene(policy: Policy, agent: AgentId) -> Scene | None:
    own = next(_ways(policy, [agent]), None)
    if own is None:
        return None
    others = list(_ways(policy, sorted(policy.agents)))
    sources = [agent, *sorted(policy.agents)]
    return Scene(
        policy,
        agent,
        own,
        next((way for way in others if agent not in policy.writers(way.domain)), None),
        next((way for way in others if agent not in policy.openers(way.domain)), None),
        next(_ways(policy, sources, at_source=True), None),
    )


def _ways(policy: Policy, writers: list[AgentId], *, at_source: bool = False) -> Iterator[Way]:
    """One for each writer and domain, to itself where it may read; FHE takes no payload of this probe."""
    domains = [each for _, each in sorted(policy.domains.items()) if each.at_source is at_source]
    for domain in sorted(domains, key=lambda each: any((each.rate, each.breaker, each.moment))):
        if domain.attestation_required or domain.tier is Tier.FHE:
            continue
        for writer in writers:
            readers = sorted(policy.openers(domain), key=lambda name: (name != writer, name))
            allowed = (name for name in readers if decided(policy, writer, domain.name, name).allowed)
            if (reader := next(allowed, None)) is not None:
                yield Way(domain, writer, reader)
