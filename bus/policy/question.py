"""What the PDP is asked, and what one rule answers: principal, action, resource, context; a finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bus.codes import Code
from bus.policy.labels import Label
from bus.policy.model import AgentPolicy, DomainPolicy, Policy
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, Tier


class Action(StrEnum):
    """What a principal does to a domain."""

    PRODUCE = "produce"
    CONSUME = "consume"


@dataclass(frozen=True, slots=True)
class Context:
    """Environment of an action: what of an envelope, and of the moment, the rules look at.

    ``labels`` are the record's own beside the domain's. ``tenant`` and ``to`` say where it goes where that is not the
    principal's tenant and zone. ``delegated_by`` passed on the right that the principal acts under, the first has it
    by itself; empty where the principal acts by its own. ``time_ms`` is the broker's append time, ``load`` the
    enforcer's (1 is all its cores). ``user`` is the id of the one on whose behalf it is, whose token was verified
    (``bus.crypto.users``); empty where there is none.
    """

    kind: Kind = Kind.MESSAGE
    target: str = ""
    tier_floor: Tier | None = None
    tool: str = ""
    task_type: str = ""
    purpose: str = ""
    user: str = ""
    labels: tuple[str, ...] = ()
    tenant: str = ""
    to: str = ""
    delegated_by: tuple[AgentId, ...] = ()
    time_ms: int = 0
    load: float = 0.0
    size: int = 0
    at_source: bool | None = None
    """Whether the envelope says that its payload is protected at its source; None: as the domain asks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says; ``refusal`` is None where it lets the action pass."""

    rule: str
    why: str
    location: str = ""
    refusal: Code | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One question, with what the rules look up more than once.

    ``agent`` is whose right is asked for; ``delegate`` who acts, where that is another one.
    """

    agent: AgentPolicy
    action: Action
    domain: DomainPolicy
    context: Context
    policy: Policy
    label: Label
    delegate: AgentPolicy | None = None

    @property
    def tenant(self) -> str:
        """Where the record goes, or comes from."""
        return self.context.tenant or self.agent.tenant

    @property
    def to(self) -> str:
        """The zone that it goes to, or comes from."""
        return self.context.to or self.agent.zone
