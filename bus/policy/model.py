"""The compiled policy: frozen, digested, the same in the SDK, the enforcer and the CLI.

``document`` is canonical JSON (RFC 8785) and is what a signed snapshot carries; ``bus.policy.compiling`` reads it.
Rules know their file and line, so that a refusal can name where it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bus.policy.conditions import Condition, Look
from bus.policy.labels import BOTTOM, Label, Propagate, Scheme, joined
from bus.policy.sharing import SharingRule
from bus.wire.envelope import Kind
from bus.wire.measurement import Measurement
from bus.wire.names import AgentId, DomainName, RoleName, Tier

QUOTA_KEYS: Final = ("consumer_byte_rate", "producer_byte_rate", "request_percentage")
"""Kafka's names of client quotas: bytes/s, bytes/s, % of one thread of the broker."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """One mask. Keys of metadata, and paths into a payload (JSON, Avro). ``keep`` None keeps what nothing else
    names."""

    name: str
    keep: frozenset[str] | None
    drop: frozenset[str]
    hash: frozenset[str]
    last4: frozenset[str]
    generalise: frozenset[str]
    payload: Mapping[tuple[str, ...], str]
    """Path to one of "drop", "hash", "last4" and "generalise"."""


@dataclass(frozen=True, slots=True)
class GuardrailRule:
    """One guardrail: types that are looked for in ``payload`` or ``metadata``; ``then`` redact, deny or flag."""

    name: str
    detect: frozenset[str]
    payload: bool
    metadata: bool
    then: str


@dataclass(frozen=True, slots=True)
class RateRule:
    """A token bucket per ``per`` ("agent", "role", "tenant", "domain") and input partition."""

    name: str
    per: str
    per_hour: int
    burst: int
    max_bytes: int | None


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Opens at ``count`` refusals ``within_ms``; lets one try after ``half_open_ms``. Per input partition."""

    name: str
    per: str
    count: int
    within_ms: int
    half_open_ms: int


@dataclass(frozen=True, slots=True)
class FlowRule:
    """The one way of records of ``domains`` from ``source`` to ``target``, up to ``ceiling``'s level."""

    id: str
    source: str
    target: str
    domains: frozenset[DomainName]
    ceiling: int | None
    forbid: frozenset[str]
    location: str

    def forbids(self, label: Label) -> str:
        """ "max_label" or "forbid", whichever keeps ``label`` from going; "" where it may go."""
        if label.categories & self.forbid:
            return "forbid"
        return "max_label" if self.ceiling is not None and label.level > self.ceiling else ""


@dataclass(frozen=True, slots=True)
class DeclassifyRule:
    """Holders of ``role`` may lower what is at most at level ``above`` to ``to``, without the categories ``drop``, in
    domains whose guardrails are at least ``after``."""

    id: str
    role: RoleName
    above: int
    to: int
    drop: frozenset[str]
    after: frozenset[str]


@dataclass(frozen=True, slots=True)
class DomainPolicy:
    """One domain. Roles in ``produce`` may write, in ``consume`` read; both within the file's ``allowed_roles``."""

    name: DomainName
    tier: Tier
    produce: frozenset[RoleName]
    consume: frozenset[RoleName]
    metadata_masking: bool
    audit_full: bool
    attestation_required: bool
    partitions: int
    retention_ms: int
    locations: Mapping[str, str] = field(default_factory=dict)
    kinds: frozenset[Kind] | None = None
    tools: Mapping[str, frozenset[RoleName]] | None = None
    label: Label = BOTTOM
    when: tuple[Condition, ...] = ()
    masks: tuple[MaskRule, ...] = ()
    guardrails: tuple[GuardrailRule, ...] = ()
    rate: RateRule | None = None
    breaker: BreakerRule | None = None
    max_token_age_ms: int = 0
    """How long a key epoch of this domain is at most; 0 as long as the policy says for all."""
    padding: int = 0
    """Records are filled to a multiple of so many bytes before they are sealed; 0 not at all."""
    delegates: frozenset[RoleName] = frozenset()
    user_required: bool = False
    """Whether records must be on behalf of a verified user."""
    """Roles that may write under a delegation alone, from an agent that may produce."""
    computation: str = "tee"
    """How a domain of tier COMPUTATION computes: "tee" or "mpc"."""
    at_source: bool = False
    """Whether payloads are protected where they come from: no enforcer sees them."""
    fhe_context: bytes = b""
    """SHA-256 of the context of homomorphic encryption that a domain of tier FHE encrypts under."""
    sealed_fields: Mapping[tuple[str, ...], DomainName] = field(default_factory=dict)
    """Fields of payloads that are sealed for the readers of another domain."""
    constant_size: bool = False
    """Whether every record fills one cell of ``padding`` bytes; what is larger goes in parts."""
    sharing: SharingRule | None = None
    """What a domain of tier COMPUTATION by "mpc" adds up, and by whom."""
    blind_index: tuple[str, ...] = ()
    """Fields of payloads, keys with dots between them, by whose values records are found without being opened."""
    payload_kept: bool = False
    """Whether the audit keeps each record, sealed as it was sent, with its hop."""

    def location(self, rule: str) -> str:
        """file:line of ``produce``, ``consume`` or ``tier`` in the files that were loaded."""
        return self.locations.get(rule, self.locations.get("name", ""))

    @property
    def protectable(self) -> bool:
        """Whether this release can protect for its tier; records of another are refused, never weakened."""
        match self.tier:
            case Tier.COMPUTATION:
                return self.at_source and (self.computation == "tee" or self.sharing is not None)
            case Tier.FHE:
                return self.at_source and bool(self.fhe_context)
        return True

    @property
    def whole(self) -> bool:
        """Whether a rule needs payloads as a whole: what they say (guardrails, masks of payload fields, the blind
        index), or how large they are. A message in parts is refused then."""
        inside = any(each.payload for each in self.guardrails) or any(each.payload for each in self.masks)
        sized = (self.rate is not None and self.rate.max_bytes is not None) or self.looks is None
        inside = inside or bool(self.blind_index) or bool(self.sealed_fields)
        if self.at_source:
            inside = False  # what looks into payloads does so at their source, before they are cut
        return inside or sized or Look.SIZE in (self.looks or ())

    @property
    def writing(self) -> frozenset[RoleName]:
        """Roles that may write, by themselves or under a delegation."""
        return self.produce | self.delegates

    @property
    def moment(self) -> bool:
        """Whether a condition looks at what differs from record to record."""
        return any(each.moment for each in self.when)

    @property
    def looks(self) -> frozenset[Look] | None:
        """What of the moment the conditions look at, all together; None where that is not plain to see of one."""
        seen: frozenset[Look] = frozenset()
        for each in self.when:
            if each.looks is None:
                return None
            seen |= each.looks
        return seen


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """One agent: its roles with all that they inherit, tenant and zone ("" where the policy has none).

    ``measurements``: any one of them lets it have keys of domains that require attestation; without any it gets none.
    """

    name: AgentId
    roles: frozenset[RoleName]
    tenant: str = ""
    zone: str = ""
    measurements: frozenset[Measurement] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy. ``digest`` = SHA-256 of ``document``; ``quotas`` by role or "default"; ``clearances`` by role."""

    domains: Mapping[DomainName, DomainPolicy]
    agents: Mapping[AgentId, AgentPolicy]
    rotation_interval_ms: int
    replication: int
    backlog_horizon_ms: int
    document: bytes = field(repr=False)
    digest: bytes
    quotas: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tenants: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    flows: tuple[FlowRule, ...] = ()
    scheme: Scheme = field(default_factory=Scheme)
    clearances: Mapping[RoleName, Label] = field(default_factory=dict)
    propagate: Propagate = Propagate.NONE
    declassify: tuple[DeclassifyRule, ...] = ()
    inherits: Mapping[RoleName, frozenset[RoleName]] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)

    def interval_ms(self, domain: DomainName) -> int:
        """How long a key epoch of ``domain`` is (ms)."""
        return min(self.rotation_interval_ms, self.domains[domain].max_token_age_ms or self.rotation_interval_ms)

    def inherited(self, role: RoleName) -> frozenset[RoleName]:
        """``role`` and all that its holders have with it."""
        return self.inherits.get(role, frozenset({role}))

    def may_produce(self, agent: AgentId) -> list[DomainPolicy]:
        """Domains that ``agent`` may write, by itself or under a delegation, by name."""
        return [each for each in self._domains() if each.writing & self._roles(agent)]

    def may_consume(self, agent: AgentId) -> list[DomainPolicy]:
        """Domains of which ``agent`` may read what has the domain's own label, by name."""
        return [each for each in self._domains() if self.readers(each, each.label) & self._roles(agent)]

    def writers(self, domain: DomainPolicy) -> list[AgentId]:
        """Agents that may write ``domain``, by name: ``may_produce`` asked from the other side."""
        return sorted(name for name, each in self.agents.items() if each.roles & domain.writing)

    def openers(self, domain: DomainPolicy) -> list[AgentId]:
        """Agents that may read what has the domain's own label, by name: ``may_consume`` from the other side."""
        roles = self.readers(domain, domain.label)
        return sorted(name for name, each in self.agents.items() if each.roles & roles)

    def readers(self, domain: DomainPolicy, label: Label) -> frozenset[RoleName]:
        """Roles that may read records of ``domain`` with this label."""
        return frozenset(role for role in domain.consume if self.clearance(role).covers(label))

    def names(self, agent: AgentPolicy) -> frozenset[str]:
        """What ``agent`` answers to among the readers of a record: its id and its reader groups."""
        tenant, zone = agent.tenant if self.tenants else "", agent.zone if self.zones else ""
        return frozenset({agent.name, *(reader_group(role, tenant, zone) for role in agent.roles)})

    def groups(self, agent: AgentId, domain: DomainPolicy) -> list[str]:
        """Reader groups of ``domain`` that ``agent`` is in."""
        held = self.agents[agent]
        tenant, zone = held.tenant if self.tenants else "", held.zone if self.zones else ""
        return [reader_group(role, tenant, zone) for role in sorted(held.roles & self.readers(domain, domain.label))]

    def clearance(self, role: RoleName) -> Label:
        """What holders of ``role`` may read."""
        return self.clearances.get(role, BOTTOM)

    def cleared(self, agent: AgentPolicy) -> Label:
        """What ``agent`` may read, all its roles together."""
        return joined([self.clearance(role) for role in agent.roles])

    def floor(self, agent: AgentId) -> tuple[str, ...]:
        """Labels of what ``agent`` writes where nothing proves what it builds on: the highest that it could have read.

        Empty where labels do not follow the data, or the agent reads nothing.
        """
        if self.propagate is Propagate.NONE or not self.may_consume(agent):
            return ()
        return self.scheme.names(self.cleared(self.agents[agent]))

    def lowered(self, agent: AgentPolicy, domain: DomainPolicy, label: Label) -> Label:
        """``label`` as ``agent`` may write it to ``domain``: lowered where it is a declassifier."""
        guarded = {rule.name for rule in domain.guardrails if rule.then != "flag"}
        for each in self.declassify:
            if each.role in agent.roles and label.level <= each.above and each.after <= guarded:
                label = Label(min(label.level, each.to), label.categories - each.drop)
        return label

    def broker_quotas(self, agent: AgentId) -> dict[str, int]:
        """Client quotas of an agent's user by Kafka's names: of its roles the most generous, unlimited where one is."""
        default = self.quotas.get("default", {})
        held = [self.quotas.get(role, default) for role in self._roles(agent)]
        limited = [key for key in QUOTA_KEYS if held and all(key in each for each in held)]
        return {key: max(each[key] for each in held) for key in limited}

    def _domains(self) -> list[DomainPolicy]:
        return [self.domains[name] for name in sorted(self.domains)]

    def _roles(self, agent: AgentId) -> frozenset[RoleName]:
        held = self.agents.get(agent)
        return held.roles if held is not None else frozenset()


def reader_group(role: str, tenant: str, zone: str) -> str:
    """Name of the readers that share a KEK: holders of ``role`` in one tenant and zone, as far as there are any."""
    return role + (f"@{tenant}" if tenant else "") + (f"/{zone}" if zone else "")
