"""A topic from its beginning, or a time, to the end that each partition has when it is reached; no group is joined."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from bus.codes import Code
from bus.errors import RetryLater
from bus.kafka.config import Connection

BATCH: Final = 500


def whole(
    connection: Connection, topic: str, group: str, timeout: float, since: int = 0
) -> Generator[Message, None, None]:
    """Every record of ``topic``, in order within a partition; ``group`` is one that the identity may read as.

    With ``since`` (ms since 1970) those alone that the broker appended then or later.

    Raises AccessRefused, Unavailable, or RetryLater when ``timeout`` s pass first.
    """
    deadline = time.monotonic() + timeout
    consumer = Consumer(
        connection.config(
            group_id=group,
            enable_auto_commit=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
            fetch_wait_max_ms=50,
        )
    )
    try:
        partitions = connection.partitions(consumer, topic, timeout)
        places = [TopicPartition(topic, number, since or OFFSET_BEGINNING) for number in partitions]
        if since:
            try:
                places = consumer.offsets_for_times(places, timeout)
            except KafkaException as failed:
                raise connection.typed(failed.args[0], "read", topic) from failed
        consumer.assign(places)
        reading = set(partitions)
        while reading:
            if time.monotonic() > deadline:
                raise RetryLater(f"{topic} was not read to its end in {timeout:g} s", code=Code.RETRY)
            for message in consumer.consume(BATCH, 0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard(message.partition())
                elif not error.retriable():
                    raise connection.typed(error, "read", topic)
            connection.check()
    finally:
        consumer.close()
