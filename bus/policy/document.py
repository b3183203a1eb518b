"""The shape of the policy files, as pydantic models: mesh.yaml (``security_mesh``) and agents.yaml.

``global`` and ``domains`` are the published document; the rest extends it. Models check one file's shape; what holds
between values (names that collide, roles that exist, safe values together) is ``bus.policy.loader``'s.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_LONGEST = 3650 * 86_400_000
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"([1-9][0-9]{0,8})(ms|s|m|h|d)", value)):
        return min(int(match[1]) * _UNITS[match[2]], _LONGEST + 1)
    raise ValueError('expected a duration, as in "90s", 24h or 7d')


def _first_version(value: Any) -> Any:
    if type(value) is not int or value != 1:
        raise ValueError("expected 1")
    return value


Duration = Annotated[int, BeforeValidator(_milliseconds), Field(le=_LONGEST)]
LowerName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
RoleText = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]
TierText = Literal["PLAINTEXT", "RETRIEVAL", "COMPUTATION", "FHE"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Global(_Strict):
    """What holds for the whole mesh."""

    tls_min_version: Literal["1.3"]
    credential_rotation_interval_ms: Annotated[int, Field(ge=1000, le=900_000)]
    audit_scope: Literal["FULL_MESH"]


class Topics(_Strict):
    """How topics are made; fixed at creation where Kafka fixes it."""

    partitions: Annotated[int, Field(ge=1, le=256)] = 4
    replication: Annotated[int, Field(ge=1, le=7)] = 1
    retention: Duration = 7 * 86_400_000
    backlog_horizon: Duration = 86_400_000


class Domain(_Strict):
    """One data domain. ``produce`` and ``consume`` may only narrow ``allowed_roles``."""

    name: LowerName
    tier: TierText
    allowed_roles: Annotated[list[RoleText], Field(min_length=1, max_length=32)]
    metadata_masking: bool
    audit_level: Literal["FULL_MESH", "OUTPUT_ONLY"]
    attestation_required: bool = False
    produce: list[RoleText] | None = None
    consume: list[RoleText] | None = None


class SecurityMesh(_Strict):
    """The law."""

    version: Annotated[int, BeforeValidator(_first_version)] = 1
    global_: Global = Field(alias="global")
    topics: Topics = Topics()
    domains: Annotated[list[Domain], Field(min_length=1, max_length=256)]


class MeshFile(_Strict):
    """mesh.yaml."""

    security_mesh: SecurityMesh


class Agent(_Strict):
    """Who an agent is: one role or several."""

    role: RoleText | None = None
    roles: Annotated[list[RoleText], Field(min_length=1, max_length=16)] | None = None


class AgentsFile(_Strict):
    """agents.yaml."""

    agents: Annotated[dict[LowerName, Agent], Field(min_length=1, max_length=10_000)]
