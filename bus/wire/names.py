"""Identifiers and topic names: which strings may name a domain, agent, zone, tenant, role or tool.

Kafka treats ``.`` and ``_`` in topic names as colliding, so names that are equal after folding ``.``, ``-`` and ``_``
are refused together (``folded``). ``bus`` is reserved for the deployment's own topics and principals.
"""

from __future__ import annotations

import functools
import re
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from bus.codes import Code
from bus.errors import WireError

AgentId = NewType("AgentId", str)
DomainName = NewType("DomainName", str)
ZoneName = NewType("ZoneName", str)
RoleName = NewType("RoleName", str)
TopicName = NewType("TopicName", str)

NO_ZONE = ZoneName("")
"""The zone of a deployment that declares none: topics then have no prefix."""

_LOWER = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_ROLE = re.compile(r"[A-Z][A-Z0-9_]{0,62}\Z")

AUDIT = TopicName("bus.audit")
ISSUE = TopicName("bus.issue")
CLAIMS = TopicName("bus.claims")
NOTICE = TopicName("bus.notice")
POLICY = TopicName("bus.policy")
CONTROL = TopicName("bus.control")
ALERTS = TopicName("bus.alerts")

AUDIT_PARTITIONS = 4
CLAIMS_PARTITIONS = 4
NOTICE_PARTITIONS = 4

LOWER_NAME = "a lower-case letter, then up to 62 of a-z, 0-9, _ or -; `bus` is reserved"
ROLE_NAME = "an upper-case letter, then up to 62 of A-Z, 0-9 or _"


class Tier(IntEnum):
    """Security tiers, weakest first; the number stands in a Derived head."""

    PLAINTEXT = 0
    RETRIEVAL = 1
    COMPUTATION = 2
    FHE = 3


def is_lower_name(text: str) -> bool:
    """Whether ``text`` may name a domain, agent, zone or tenant."""
    return bool(_LOWER.match(text)) and folded(text) != "bus" and not folded(text).startswith("bus.")


def is_role_name(text: str) -> bool:
    """Whether ``text`` may name a role."""
    return bool(_ROLE.match(text))


def folded(text: str) -> str:
    """``text`` with ``-`` and ``_`` read as ``.``: two names with one folding are refused together."""
    return text.replace("-", ".").replace("_", ".")


@dataclass(frozen=True, slots=True)
class DomainTopics:
    """The four topics of a domain. All have the same number of partitions; output partition = input partition."""

    inbound: TopicName
    outbound: TopicName
    dead: TopicName
    windows: TopicName


@functools.lru_cache(4096)
def domain_topics(domain: DomainName, zone: ZoneName = NO_ZONE) -> DomainTopics:
    """Topics of ``domain`` in ``zone``."""
    stem = f"{zone}.{domain}" if zone else domain
    return DomainTopics(*(TopicName(f"{stem}.{part}") for part in ("in", "out", "dead", "windows")))


def domain_of(inbound: str) -> DomainName:
    """The domain of an input topic, `[zone.]domain.in`: a domain's own name has no dot."""
    return DomainName(inbound.removesuffix(".in").rpartition(".")[2])


def audit_partition(partition: int) -> int:
    """Which partition of bus.audit the hops of an input partition go to."""
    return partition % AUDIT_PARTITIONS


def notice_partition(agent: str) -> int:
    """Which partition of bus.notice an agent reads."""
    return zlib.crc32(agent.encode()) % NOTICE_PARTITIONS


def agent_id(text: str) -> AgentId:
    """``text`` as an agent id. Raises WireError where it may not be one."""
    if not is_lower_name(text):
        raise WireError(f"agent id: expected {LOWER_NAME}, found {text!r}", code=Code.BOUNDS)
    return AgentId(text)
