"""The shape of the policy files, as pydantic models: mesh.yaml (``security_mesh``) and agents.yaml.

``global`` and ``domains`` are the published document; the rest extends it. Models check one file's shape; what holds
between values (names that collide, roles that exist, safe values together) is ``bus.policy.checks``'.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bus.policy.compiling import SOURCED
from bus.policy.values import (
    ByteRate,
    DigestText,
    Duration,
    Expression,
    LowerName,
    MeasurementText,
    Percent,
    RecordRate,
    Refusals,
    RoleText,
    Size,
    Strict,
    TierText,
    ToolText,
    Version,
)

Names = Annotated[list[LowerName], Field(max_length=64)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
FieldText = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z_][A-Za-z0-9_-]{0,63}){0,7}$")]
KindText = Literal["MESSAGE", "RPC_REQUEST", "RPC_REPLY", "TOOL_CALL", "TOOL_RESULT", "REASONING", "MEMORY", "ARTIFACT"]


class Global(Strict):
    """What holds for the whole mesh."""

    tls_min_version: Literal["1.3"]
    credential_rotation_interval_ms: Annotated[int, Field(ge=1000, le=900_000)]
    audit_scope: Literal["FULL_MESH"]


class Topics(Strict):
    """How topics are made; fixed at creation where Kafka fixes it."""

    partitions: Annotated[int, Field(ge=1, le=256)] = 4
    replication: Annotated[int, Field(ge=1, le=7)] = 1
    retention: Duration = 7 * 86_400_000
    backlog_horizon: Duration = 86_400_000


class BrokerQuota(Strict):
    """What the broker lets one agent's user do before it slows that user down (Kafka client quotas)."""

    produce: ByteRate | None = None
    consume: ByteRate | None = None
    requests: Percent | None = None


class Role(Strict):
    """What a role inherits, and what its holders are cleared for."""

    inherits: Annotated[list[RoleText], Field(max_length=16)] = []
    clearance: LowerName | None = None
    categories: Names = []


class Zone(Strict):
    """Where a zone's data lives and which regulations hold there; told in hops and reports."""

    residency: str | None = None
    regulations: Annotated[list[str], Field(max_length=16)] = []


class Flow(Strict):
    """The one way in which records of these domains go from one zone into another."""

    id: LowerName
    from_: LowerName = Field(alias="from")
    to: LowerName
    domains: Annotated[list[LowerName], Field(min_length=1, max_length=256)]
    max_label: LowerName | None = None
    forbid: Names = []


class Declassify(Strict):
    """Who may lower a label, and behind which guardrails."""

    id: LowerName
    role: RoleText
    from_: LowerName = Field(alias="from")
    to: LowerName
    drop: Names = []
    after: Names = []


class Labels(Strict):
    """Levels, lowest first, and categories; whether and how labels follow the data."""

    levels: Annotated[list[LowerName], Field(min_length=1, max_length=16)]
    categories: Names = []
    propagate: Literal["session", "tickets", "none"] = "none"
    declassify: Annotated[list[Declassify], Field(max_length=64)] = []


class Mask(Strict):
    """What happens to metadata (``KEY`` or ``metadata.KEY``) and to fields of a JSON payload (``payload.a.b``)."""

    keep: Annotated[list[Key], Field(max_length=64)] | None = None
    drop: Annotated[list[Key], Field(max_length=64)] = []
    hash: Annotated[list[Key], Field(max_length=64)] = []
    last4: Annotated[list[Key], Field(max_length=64)] = []
    generalise: Annotated[list[Key], Field(max_length=64)] = []

    @property
    def changed(self) -> list[str]:
        """Keys that do not stay as they are."""
        return [*self.drop, *self.hash, *self.last4, *self.generalise]


class Guardrail(Strict):
    """What is looked for, where, and what happens to what was found."""

    detect: Annotated[list[RoleText], Field(min_length=1, max_length=64)]
    on: Annotated[list[Literal["payload", "metadata"]], Field(min_length=1, max_length=2)] = ["payload"]
    then: Literal["redact", "deny", "flag"]


class RateLimit(Strict):
    """How many records of whom, and how large each: a token bucket, divided over the partitions of a domain."""

    per: Literal["agent", "role", "tenant", "domain"]
    rate: RecordRate
    burst: Annotated[int, Field(ge=1, le=1_000_000)]
    max_bytes: Size | None = None


class CircuitBreaker(Strict):
    """After so many refusals nothing goes, until one record may try again."""

    per: Literal["agent", "role", "tenant", "domain"]
    open_after: Refusals
    half_open_after: Duration


class SharedParty(Strict):
    """A party's public key, as `bus mpc init` prints it; ``peer`` where it belongs to another deployment."""

    key: DigestText
    peer: LowerName | None = None


class SharedNumber(Strict):
    """The range of a number that is added up, and in how many bins it is counted."""

    min: Annotated[float, Field(strict=False, allow_inf_nan=False)]
    max: Annotated[float, Field(strict=False, allow_inf_nan=False)]
    bins: Annotated[int, Field(ge=2, le=256)] | None = None


Values = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=2, max_length=256)]


class Mpc(Strict):
    """What a domain of tier COMPUTATION by mpc adds up, who holds shares, and who may have the totals."""

    parties: Annotated[dict[LowerName, SharedParty], Field(min_length=2, max_length=8)]
    fields: Annotated[dict[FieldText, SharedNumber], Field(max_length=32)] = {}
    groups: Annotated[dict[FieldText, Values], Field(max_length=8)] = {}
    minimum_cohort: Annotated[int, Field(ge=2, le=1_000_000)]
    minimum_sources: Annotated[int, Field(ge=2, le=1000)] | None = None
    release_to: Annotated[list[RoleText], Field(min_length=1, max_length=32)]


class Domain(Strict):
    """One data domain. ``produce``, ``delegates`` and ``consume`` may only narrow ``allowed_roles``."""

    name: LowerName
    tier: TierText
    allowed_roles: Annotated[list[RoleText], Field(min_length=1, max_length=32)]
    metadata_masking: bool
    audit_level: Literal["FULL_MESH", "OUTPUT_ONLY"]
    audit_payload: Literal["digest", "sealed"] = "digest"
    attestation_required: bool = False
    produce: list[RoleText] | None = None
    consume: list[RoleText] | None = None
    delegates: Annotated[list[RoleText], Field(max_length=32)] = []
    kinds: Annotated[list[KindText], Field(min_length=1)] | None = None
    tools: Annotated[dict[ToolText, list[RoleText]], Field(max_length=256)] | None = None
    label: Names = []
    when: Names = []
    masks: Names = []
    guardrails: Names = []
    rate_limit: LowerName | None = None
    circuit_breaker: LowerName | None = None
    max_token_age_ms: Annotated[int, Field(ge=1000, le=900_000)] | None = None
    padding: Annotated[int, Field(ge=256, le=16_384)] | None = None
    computation: Literal["tee", "mpc"] | None = None
    protect_at: Literal["source", "enforcer"] | None = None
    fhe_context: DigestText | None = None
    mpc: Mpc | None = None
    sealed_fields: Annotated[dict[FieldText, LowerName], Field(min_length=1, max_length=32)] | None = None
    constant_size: bool = False
    user_required: bool = False
    blind_index: Annotated[list[FieldText], Field(min_length=1, max_length=8)] | None = None

    @property
    def producers(self) -> list[str]:
        """Roles that may write by themselves."""
        if self.produce is not None:
            return self.produce
        return [role for role in self.allowed_roles if role not in self.delegates]

    @property
    def sourced(self) -> bool:
        """Whether payloads are protected at their source."""
        return (self.protect_at or SOURCED.get(self.tier)) == "source"


class SecurityMesh(Strict):
    """The law."""

    version: Version = 1
    global_: Global = Field(alias="global")
    topics: Topics = Topics()
    broker_quotas: Annotated[dict[RoleText | Literal["default"], BrokerQuota], Field(max_length=256)] = {}
    roles: Annotated[dict[RoleText, Role], Field(max_length=256)] = {}
    tenants: Names = []
    zones: Annotated[dict[LowerName, Zone], Field(max_length=64)] = {}
    flows: Annotated[list[Flow], Field(max_length=256)] = []
    labels: Labels | None = None
    conditions: Annotated[dict[LowerName, Expression], Field(max_length=1024)] = {}
    masks: Annotated[dict[LowerName, Mask], Field(max_length=256)] = {}
    guardrails: Annotated[dict[LowerName, Guardrail], Field(max_length=256)] = {}
    rate_limits: Annotated[dict[LowerName, RateLimit], Field(max_length=256)] = {}
    circuit_breakers: Annotated[dict[LowerName, CircuitBreaker], Field(max_length=256)] = {}
    domains: Annotated[list[Domain], Field(min_length=1, max_length=256)]


class MeshFile(Strict):
    """mesh.yaml."""

    security_mesh: SecurityMesh


class Agent(Strict):
    """Who an agent is: one role or several, its tenant and zone; what attestation may find of it."""

    role: RoleText | None = None
    roles: Annotated[list[RoleText], Field(min_length=1, max_length=16)] | None = None
    tenant: LowerName | None = None
    zone: LowerName | None = None
    measurements: Annotated[list[MeasurementText], Field(min_length=1, max_length=64)] | None = None


class AgentsFile(Strict):
    """agents.yaml."""

    agents: Annotated[dict[LowerName, Agent], Field(min_length=1, max_length=10_000)]
