"""Kafka client quotas of users: read, set, removed. librdkafka has no call for them; kafka-python speaks the protocol.

One connection a call, over TLS 1.3 with the same user as the other admin calls.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.protocol.admin import AlterClientQuotasRequest, DescribeClientQuotasRequest

from bus.admin.desired import Quota
from bus.admin.users import TIMEOUT
from bus.errors import Unavailable
from bus.kafka.config import Connection

_MATCH_SPECIFIED: Final = 2


def list_quotas(connection: Connection) -> set[Quota]:
    """Quotas of users, those of (user, client id) pairs left out. Raises Unavailable."""
    with _client(connection) as send:
        answer = send(DescribeClientQuotasRequest(components=[("user", _MATCH_SPECIFIED, None)], strict=True))
        _check(answer.error_code, answer.error_message)
        return {
            Quota(entry.entity[0].entity_name or "", value.key, value.value)
            for entry in answer.entries or []
            for value in entry.values
        }


def alter_quotas(connection: Connection, remove: Iterable[Quota], put: Iterable[Quota]) -> None:
    """Remove and set. Raises Unavailable where the broker does not take one."""
    operations: dict[str, list[tuple[str, float, bool]]] = {}
    for gone, quotas in ((True, remove), (False, put)):
        for each in quotas:
            operations.setdefault(each.user, []).append((each.key, 0.0 if gone else each.value, gone))
    entries = [([("user", user or None)], told) for user, told in sorted(operations.items())]
    if not entries:
        return
    with _client(connection) as send:
        for entry in send(AlterClientQuotasRequest(entries=entries, validate_only=False)).entries:
            _check(entry.error_code, entry.error_message)


def _check(code: int, message: str | None) -> None:
    if code:
        raise Unavailable(f"the broker did not take the quotas: {message or f'error {code}'}", hint="run it again")


@contextmanager
def _client(connection: Connection) -> Iterator[Any]:
    context = ssl.create_default_context(cafile=str(connection.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if connection.certificate is not None:
        context.load_cert_chain(connection.certificate.path)
    try:
        client = KafkaAdminClient(
            bootstrap_servers=connection.bootstrap.split(","),
            client_id=connection.identity.principal,
            security_protocol="SASL_SSL",
            ssl_context=context,
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=connection.identity.principal,
            sasl_plain_password=connection.password.reveal().decode(),
            request_timeout_ms=int(TIMEOUT * 1000),
            bootstrap_timeout_ms=int(TIMEOUT * 1000),
        )
    except KafkaError as error:
        raise Unavailable(f"the broker at {connection.bootstrap} does not answer: {type(error).__name__}") from error
    try:
        yield lambda request: client._manager.run(client._manager.send, request)
    except KafkaError as error:
        raise Unavailable(f"quotas: {type(error).__name__}: {error}", hint="run it again") from error
    finally:
        client.close()
