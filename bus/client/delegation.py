"""``Delegation``: a right to write that one agent was given by another, as the SDK holds it, shows it and passes it on.

It holds one chain for each domain (``bus.wire.delegation``), since each domain's enforcers prove it with that domain's
keys alone. It is no secret: only the agent that it is made out to can use it or pass it on, with its own keys, which
needs no network.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Self

from bus.attestation import base64url
from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.delegations import give, pass_on
from bus.crypto.keys import Secret
from bus.errors import Denied, Refused, RetryLater, WireError
from bus.policy.model import Policy
from bus.wire.delegation import MAX_BLOCKS, Block, Chain, parse, told
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, RoleName

MAX_TEXT: Final = 256 * 1024
"""Characters of a delegation as text."""


class Delegation:
    """Immutable. ``str()`` gives the text to hand over, ``parse`` takes it; its repr tells who may do what, no more."""

    __slots__ = ("_held",)

    def __init__(self, chains: Iterable[bytes]) -> None:
        """Raises WireError(decode, too-large), or Refused(schema) for no chain, two of a domain, other agents."""
        held: dict[DomainName, tuple[bytes, Chain]] = {}
        for data in chains:
            chain, _ = parse(data)
            if chain.domain in held:
                raise Refused(f"delegation: {chain.domain} stands in it twice", code=Code.SCHEMA)
            held[chain.domain] = (data, chain)
        if not held or len({each.agents for _, each in held.values()}) != 1:
            raise Refused("delegation: expected one chain of agents, for a domain or more", code=Code.SCHEMA)
        self._held: Mapping[DomainName, tuple[bytes, Chain]] = held

    @classmethod
    def parse(cls, text: str) -> Self:
        """The delegation of a text that ``str`` gave. Raises WireError(decode, too-large) or Refused(schema)."""
        if len(text) > MAX_TEXT:
            raise WireError(f"delegation: expected at most {MAX_TEXT} characters", code=Code.TOO_LARGE)
        return cls([base64url.decode(each) for each in text.strip().split(".")])

    def __str__(self) -> str:
        return ".".join(base64url.encode(data) for data, _ in self._held.values())

    def __repr__(self) -> str:
        return f"Delegation({told(self.agents)}: {', '.join(self.domains)})"

    @property
    def agents(self) -> tuple[AgentId, ...]:
        """Everyone who held it, the giver first, its user last."""
        return next(iter(self._held.values()))[1].agents

    @property
    def domains(self) -> tuple[str, ...]:
        """Where it lets its user write, by name."""
        return tuple(sorted(self._held))

    def not_after(self, domain: str) -> int:
        """When it ends for ``domain`` (ms since 1970). Raises Denied where it is not for that domain."""
        return self.chain(domain)[1].not_after

    def shown(self, agent: str, domain: str, kind: Kind, tool: str) -> tuple[bytes, tuple[AgentId, ...]]:
        """What a record of ``agent`` shows, and who gave it the right. Raises Denied where it would be refused."""
        data, chain = self.chain(domain)
        if fault := chain.refuses(agent, kind, tool, _now()):
            raise denied(fault, f"it is made out to {chain.agents[-1]}" if fault == "audience" else f"of {domain}")
        return data, chain.agents[:-1]

    def chain(self, domain: str) -> tuple[bytes, Chain]:
        """What it is for ``domain``, as bytes and read. Raises Denied where it is not for that domain."""
        found = self._held.get(DomainName(domain))
        if found is None:
            raise denied("domain", f"for {', '.join(self.domains)}, not {domain}")
        return found


class Delegating:
    """How one agent delegates, with the keys that it holds under ``policy``. ``grace_ms``: of every epoch."""

    def __init__(self, agent: AgentId, policy: Policy, keys: KeyStore, deployment: bytes, grace_ms: int) -> None:
        self._agent = agent
        self._policy = policy
        self._keys = keys
        self._deployment = deployment
        self._grace_ms = grace_ms

    def first(self, block: Block, domain: str) -> bytes:
        """The agent's own right to write ``domain``. Raises Denied, or RetryLater where there is no key now."""
        name = DomainName(domain)
        self._check(name, self._agent, "produce")
        self._check(name, block.to, "delegates")
        held = self._keys.sending(name, _now())
        ends = min(block.not_after, held.epoch.not_after + self._grace_ms)
        chain = Chain(held.epoch.epoch, name, self._agent, (replace(block, not_after=ends),))
        return give(self._key(held.delegation, name), self._deployment, chain)

    def passed_on(self, block: Block, domain: str, under: Delegation) -> bytes:
        """The right that the agent holds ``under`` another delegation. Raises Denied where it asks for more, is passed
        on too often or not the agent's; RetryLater where its epoch's keys are away."""
        data, chain = under.chain(domain)
        if chain.agents[-1] != self._agent:
            raise denied("audience", f"it is made out to {chain.agents[-1]}")
        if len(chain.blocks) >= MAX_BLOCKS:
            raise denied("depth", f"passed on {MAX_BLOCKS} times, which is the most")
        made = replace(block, not_after=min(block.not_after, chain.not_after))
        if more := chain.with_block(made).claims_more():
            raise denied("claims-more", f"{more}: more than it was given for {domain}")
        self._check(chain.domain, block.to, "delegates")
        held = self._keys.held(chain.domain, chain.epoch)
        return pass_on(self._key(held.delegation if held is not None else None, chain.domain), data, made)

    def _key(self, key: Secret | None, name: DomainName) -> Secret:
        if key is None:
            raise RetryLater(f"{self._agent}: no key to delegate {name} with now", after=1)
        return key

    def _check(self, name: DomainName, agent: AgentId, rule: str) -> None:
        domain, who = self._policy.domains.get(name), self._policy.agents.get(agent)
        granted = frozenset[RoleName]() if domain is None else domain.produce if rule == "produce" else domain.writing
        if who is None or not who.roles & granted:
            raise Denied(f"{agent} may not write {name}", rule=f"{name}.{rule}", code=Code(rule))


def denied(fault: str, why: str) -> Denied:
    """The refusal that the enforcer would give, before anything is sent."""
    return Denied(f"delegation.{fault}: {why}", rule=f"delegation.{fault}", code=Code.DELEGATION)


def end_of(minutes: float) -> int:
    """So many minutes from now (ms since 1970). Raises Refused(schema) unless they are some."""
    if not 0 < minutes <= 60 * 24:
        raise Refused(f"minutes: expected up to a day, found {minutes!r}", code=Code.SCHEMA)
    return _now() + int(minutes * 60_000)


def _now() -> int:
    return time.time_ns() // 1_000_000
