"""One value to a topic of the deployment, stored by all replicas before the call returns."""

from __future__ import annotations

from confluent_kafka import KafkaError, Producer

from bus.admin.users import TIMEOUT
from bus.errors import Unavailable
from bus.kafka.config import Connection


def publish(connection: Connection, topic: str, values: list[bytes], key: bytes | None = None) -> None:
    """``values`` in their order. Raises Unavailable unless every one is known to be stored."""
    failures: list[KafkaError] = []
    producer = Producer(connection.config(acks="all", enable_idempotence=True, message_timeout_ms=30_000))

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failures.append(error)

    for value in values:
        producer.produce(topic, value, key=key, on_delivery=delivered)
    if producer.flush(TIMEOUT) or failures:
        connection.check()
        raise Unavailable(f"{topic} could not be written: {failures[:1]}", hint="run it again")
