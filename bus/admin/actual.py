"""What the broker holds now: topics with their settings, users, ACLs, quotas, the live snapshot. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from bus.admin.desired import Acl, Quota, Topic
from bus.admin.quotas import list_quotas
from bus.admin.users import TIMEOUT, list_users
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot
from bus.errors import Unavailable
from bus.kafka.config import Connection
from bus.kafka.feed import Feed
from bus.wire.names import POLICY

WATCHED = (
    "cleanup.policy",
    "compression.type",
    "message.timestamp.type",
    "max.message.bytes",
    "min.insync.replicas",
    "retention.ms",
)


@dataclass(frozen=True, slots=True)
class Actual:
    """The broker's state, read by the user ``reader``; ``snapshot`` is None where no policy was applied."""

    cluster: str
    brokers: int
    topics: Mapping[str, Topic]
    users: frozenset[str]
    acls: frozenset[Acl]
    snapshot: LiveSnapshot | None
    quotas: frozenset[Quota] = frozenset()
    reader: str = "bus-admin"


def read_actual(connection: Connection, trust: TrustFile) -> Actual:
    """Read the cluster. Raises AccessRefused (credential), Unavailable, or Unverified for a forged snapshot."""
    client = AdminClient(connection.config())
    try:
        metadata = client.list_topics(timeout=TIMEOUT)
        names = sorted(name for name in metadata.topics if not name.startswith("__"))
        topics = _topics(client, {name: metadata.topics[name] for name in names})
        snapshot = read_snapshot(connection, trust) if POLICY in topics else None
        return Actual(
            cluster=metadata.cluster_id or "",
            brokers=len(metadata.brokers),
            topics=topics,
            users=frozenset(list_users(client)),
            acls=frozenset(list_acls(client)),
            snapshot=snapshot,
            quotas=frozenset(list_quotas(connection)),
            reader=connection.identity.principal,
        )
    except KafkaException as error:
        client.poll(0)  # a refused credential is told to the error callback
        connection.check()
        raise Unavailable(f"the broker at {connection.bootstrap} does not answer: {error.args[0]}") from error


def _topics(client: AdminClient, metadata: Mapping[str, object]) -> dict[str, Topic]:
    if not metadata:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in metadata]
    configs = {each.name: f.result(TIMEOUT) for each, f in client.describe_configs(resources).items()}
    topics = {}
    for name, told in metadata.items():
        partitions = told.partitions  # type: ignore[attr-defined]
        replication = min((len(each.replicas) for each in partitions.values()), default=0)
        config = tuple((key, configs[name][key].value) for key in sorted(WATCHED))
        topics[name] = Topic(name, len(partitions), replication, config)
    return topics


def list_acls(client: AdminClient) -> set[Acl]:
    """Every ACL of the cluster."""
    everything = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]  # None is "any" here; the published types lack it
        ResourcePatternType.ANY,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    return {
        Acl(
            principal=each.principal,
            operation=each.operation.name,
            resource=each.restype.name.lower(),
            name=each.name,
            permission=each.permission_type.name,
            host=each.host,
            pattern=each.resource_pattern_type.name,
        )
        for each in client.describe_acls(everything, request_timeout=TIMEOUT).result(TIMEOUT)
    }


def read_snapshot(connection: Connection, trust: TrustFile) -> LiveSnapshot | None:
    """The newest signed snapshot on bus.policy, or None where the topic is empty. Raises Unverified for a forgery."""
    feed = Feed(connection, POLICY)
    held: LiveSnapshot | None = None
    try:
        for value in feed.catch_up():
            held = open_snapshot(value, trust, held)
    finally:
        feed.close()
    return held
