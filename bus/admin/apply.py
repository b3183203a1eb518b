"""Carry out a plan: revoke, then topics, users and grants, then publish the signed snapshot.

Each step is idempotent: a run that was cut off is finished by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from bus.admin.desired import Acl
from bus.admin.plan import Plan
from bus.admin.publish import publish
from bus.admin.quotas import alter_quotas
from bus.admin.users import TIMEOUT, delete_users, set_passwords
from bus.authority.trust import TrustFile
from bus.crypto.signing import Signer, sign_object
from bus.errors import Unavailable
from bus.files import Layout, make_folder, write_file
from bus.kafka.config import Connection
from bus.wire.names import POLICY
from bus.wire.objects import SignedSnapshot

VALID_MS = 365 * 86_400_000
Say = Callable[[str], None]
T = TypeVar("T")


def apply_plan(
    plan: Plan,
    connection: Connection,
    layout: Layout,
    signer: Signer,
    trust: TrustFile,
    owners: Mapping[str, int],
    say: Say = lambda _: None,
) -> None:
    """Make the broker as ``plan`` says. Raises Unavailable where the broker does not follow."""
    client = AdminClient(connection.config())
    try:
        # 1. Revoke before granting: nobody holds an old and a new right at once.
        _delete_acls(client, plan.revoke)
        if plan.delete_users:
            delete_users(client, list(plan.delete_users))
        # 2. Topics, users, grants, quotas.
        _create_topics(client, plan)
        _alter_topics(client, plan)
        if plan.create_users:
            folders = {name: layout.principal(name) for name in plan.create_users}
            set_passwords(client, folders, owners)
        _create_acls(client, plan.grant)
        alter_quotas(connection, plan.remove_quotas, plan.set_quotas)
        for change in plan.changes:
            say(str(change))
        # 3. The snapshot last: whoever reads it finds the broker as it says.
        if plan.publish:
            _publish(plan, connection, layout, signer, trust)
    except KafkaException as error:
        connection.check()
        raise Unavailable(f"the broker did not take the plan: {error.args[0]}", hint="run it again") from error


def _wait(futures: Mapping[Any, Future[Any]], *, allow: int | None = None) -> None:
    for future in futures.values():
        try:
            future.result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != allow:
                raise


def _binding(acl: Acl, kind: Callable[..., T]) -> T:
    return kind(
        ResourceType[acl.resource.upper()],
        acl.name,
        ResourcePatternType[acl.pattern],
        acl.principal,
        acl.host,
        AclOperation[acl.operation],
        AclPermissionType[acl.permission],
    )


def _delete_acls(client: AdminClient, acls: tuple[Acl, ...]) -> None:
    if acls:
        _wait(client.delete_acls([_binding(acl, AclBindingFilter) for acl in acls], request_timeout=TIMEOUT))


def _create_acls(client: AdminClient, acls: tuple[Acl, ...]) -> None:
    if acls:
        _wait(client.create_acls([_binding(acl, AclBinding) for acl in acls], request_timeout=TIMEOUT))


def _create_topics(client: AdminClient, plan: Plan) -> None:
    topics = [
        NewTopic(each.name, each.partitions, each.replication, config=dict(each.config)) for each in plan.create_topics
    ]
    if topics:
        _wait(client.create_topics(topics, operation_timeout=TIMEOUT), allow=KafkaError.TOPIC_ALREADY_EXISTS)


def _alter_topics(client: AdminClient, plan: Plan) -> None:
    resources = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config
            ],
        )
        for name, config in plan.alter_topics
    ]
    if resources:
        _wait(client.incremental_alter_configs(resources))


def _publish(plan: Plan, connection: Connection, layout: Layout, signer: Signer, trust: TrustFile) -> None:
    now = time.time_ns() // 1_000_000
    snapshot = SignedSnapshot(
        deployment=trust.deployment,
        number=plan.live_number + 1,
        digest=plan.policy.digest,
        valid_from=now,
        valid_until=now + VALID_MS,
        document=plan.policy.document,
    )
    value = sign_object(signer, snapshot)
    publish(connection, POLICY, [value], key=b"policy")
    # The local issuer and `bus stack` read the applied policy here; the topic is the truth.
    make_folder(layout.snapshot.parent, 0o711)
    write_file(layout.snapshot, value)
    write_file(make_folder(layout.history, 0o711) / f"{snapshot.number:08d}", value)
