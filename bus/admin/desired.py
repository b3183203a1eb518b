"""From a policy to what the broker must hold: topics with their settings, users, literal ACLs. Pure.

Agents get topics by name and one group that is their own id; no prefixes, no transactional id, nothing on the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus.kafka.config import FRAMING
from bus.policy.model import Policy
from bus.wire import names
from bus.wire.derived import MAX_VALUE

ENFORCER_GROUP: Final = "bus.enforcer"
AUDITOR: Final = "bus-audit"
AUTHORITY: Final = "bus-authority"
RECONCILER: Final = "bus-reconciler"
ROTATOR: Final = "bus-rotator"
CLUSTER: Final = "kafka-cluster"
NOTICE_RETENTION_MS: Final = 3_600_000


def enforcer_name(number: int) -> str:
    """Principal, transactional id and group instance id of the ``number``-th enforcer, from 1."""
    return f"bus-enforcer-{number}"


def service_names(enforcers: int) -> list[str]:
    """Principals of the services of a deployment with ``enforcers`` enforcers."""
    return [AUDITOR, AUTHORITY, RECONCILER, *(enforcer_name(number) for number in range(1, enforcers + 1))]


class Resource(StrEnum):
    """What an ACL is about."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional_id"
    CLUSTER = "broker"
    """Kafka's client library calls the whole cluster so."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """An ALLOW for one principal from any host; always literal. ``pattern`` is LITERAL unless it is someone else's."""

    principal: str
    operation: str
    resource: str
    name: str
    permission: str = "ALLOW"
    host: str = "*"
    pattern: str = "LITERAL"

    def __str__(self) -> str:
        extra = "".join(
            f" {each}" for each, usual in ((self.permission, "ALLOW"), (self.pattern, "LITERAL")) if each != usual
        )
        return f"{self.principal} {self.operation} {self.resource} {self.name}{extra}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it must be."""

    name: str
    partitions: int
    replication: int
    config: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, order=True)
class Quota:
    """One limit of one user; ``user`` is "" for the default of users without their own.

    ``key`` is Kafka's: producer_byte_rate and consumer_byte_rate in bytes/s, request_percentage in % of one thread.
    """

    user: str
    key: str
    value: float

    def __str__(self) -> str:
        return f"User:{self.user or '<default>'} {self.key}={self.value:g}"


@dataclass(frozen=True, slots=True)
class Desired:
    """What the broker must hold for a policy."""

    topics: tuple[Topic, ...]
    users: frozenset[str]
    acls: frozenset[Acl]
    quotas: frozenset[Quota] = frozenset()


def desired_state(
    policy: Policy, enforcers: int, brokers: int = 1, *, passwords: bool = True, rotates: bool = False
) -> Desired:
    """Topics, users and ACLs of ``policy`` with ``enforcers`` enforcer identities on ``brokers`` brokers.

    Without ``passwords`` services alone are users with one: agents come with tokens. With ``rotates`` a service
    replaces passwords, which takes Kafka's right to alter the cluster, ACLs included.
    """
    users = set(service_names(enforcers))
    acls: set[Acl] = set()
    for agent in policy.agents:
        acls |= set(_agent_acls(policy, agent))
    for number in range(1, enforcers + 1):
        acls |= set(_enforcer_acls(policy, enforcer_name(number)))
    acls |= {*_auditor_acls(policy), *_authority_acls(), *_reconciler_acls(policy)}
    replication = max(policy.replication, min(3, brokers))
    # Of agents alone: an enforcer that the broker slows down keeps everyone waiting.
    quotas = {Quota(agent, key, limit) for agent in policy.agents for key, limit in policy.broker_quotas(agent).items()}
    if rotates:
        users.add(ROTATOR)
        acls.add(Acl(f"User:{ROTATOR}", "ALTER", Resource.CLUSTER, CLUSTER))
    if passwords:
        users |= set(policy.agents)
    return Desired(tuple(_topics(policy, replication)), frozenset(users), frozenset(acls), frozenset(quotas))


def _topic(principal: str, operation: str, *topics: str) -> Iterable[Acl]:
    return (Acl(f"User:{principal}", operation, Resource.TOPIC, topic) for topic in topics)


def _agent_acls(policy: Policy, agent: names.AgentId) -> Iterable[Acl]:
    for domain in policy.may_produce(agent):
        yield from _topic(agent, "WRITE", names.domain_topics(domain.name).inbound)
    consumed = policy.may_consume(agent)
    for domain in consumed:
        yield from _topic(agent, "READ", names.domain_topics(domain.name).outbound)
    yield Acl(f"User:{agent}", "READ", Resource.GROUP, agent)
    yield from _topic(agent, "READ", names.NOTICE, names.POLICY)
    yield from _topic(agent, "WRITE", names.CLAIMS)


def _enforcer_acls(policy: Policy, name: str) -> Iterable[Acl]:
    for domain in policy.domains:
        topics = names.domain_topics(domain)
        yield from _topic(name, "READ", topics.inbound, topics.windows)
        yield from _topic(name, "WRITE", topics.outbound, topics.dead, topics.windows)
    yield from _topic(name, "WRITE", names.AUDIT, names.NOTICE)
    yield from _topic(name, "READ", names.POLICY, names.CONTROL)
    yield Acl(f"User:{name}", "READ", Resource.GROUP, ENFORCER_GROUP)
    yield Acl(f"User:{name}", "WRITE", Resource.TRANSACTIONAL_ID, name)
    yield Acl(f"User:{name}", "DESCRIBE", Resource.TRANSACTIONAL_ID, name)


def _auditor_acls(policy: Policy) -> Iterable[Acl]:
    for domain in policy.domains.values():
        if domain.payload_kept:
            yield from _topic(AUDITOR, "READ", names.domain_topics(domain.name).inbound)
    yield from _topic(AUDITOR, "READ", names.AUDIT, names.ISSUE, names.CLAIMS, names.POLICY)
    yield from _topic(AUDITOR, "WRITE", names.ALERTS)
    yield Acl(f"User:{AUDITOR}", "READ", Resource.GROUP, AUDITOR)
    yield Acl(f"User:{AUDITOR}", "DESCRIBE", Resource.GROUP, ENFORCER_GROUP)


def _reconciler_acls(policy: Policy) -> Iterable[Acl]:
    """Ciphertext of every domain, to compare with the ledger; it has no key of any."""
    for domain in policy.domains:
        topics = names.domain_topics(domain)
        yield from _topic(RECONCILER, "READ", topics.inbound, topics.outbound, topics.dead)
    yield Acl(f"User:{RECONCILER}", "READ", Resource.GROUP, RECONCILER)


def _authority_acls() -> Iterable[Acl]:
    yield from _topic(AUTHORITY, "WRITE", names.ISSUE)
    yield from _topic(AUTHORITY, "READ", names.POLICY)


def _topics(policy: Policy, replication: int) -> Iterable[Topic]:
    def topic(name: str, partitions: int, retention: int, *, compact: bool = False) -> Topic:
        # Agents write there: the broker stores nothing compressed, so that a batch is as large as it looks. It refuses
        # what is over max.message.bytes once unpacked; a reader would fail to unpack it for ever, or fill its memory.
        agents = name == names.CLAIMS or name.endswith(".in")
        config = {
            "cleanup.policy": "compact" if compact else "delete",
            "compression.type": "uncompressed" if agents else "producer",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(MAX_VALUE + FRAMING),
            "min.insync.replicas": str(max(1, replication - 1)),
            "retention.ms": str(-1 if compact else retention),
        }
        return Topic(name, partitions, replication, tuple(sorted(config.items())))

    horizon = policy.backlog_horizon_ms
    longest = horizon
    for each in sorted(policy.domains.values(), key=lambda domain: domain.name):
        topics = names.domain_topics(each.name)
        longest = max(longest, each.retention_ms)
        for name in (topics.inbound, topics.outbound, topics.dead, topics.windows):
            yield topic(name, each.partitions, each.retention_ms)
    yield topic(names.AUDIT, names.AUDIT_PARTITIONS, longest)
    yield topic(names.ISSUE, 1, longest)
    yield topic(names.CLAIMS, names.CLAIMS_PARTITIONS, longest)
    yield topic(names.NOTICE, names.NOTICE_PARTITIONS, NOTICE_RETENTION_MS)
    yield topic(names.CONTROL, 1, longest)
    yield topic(names.ALERTS, 1, longest)
    yield topic(names.POLICY, 1, longest, compact=True)
