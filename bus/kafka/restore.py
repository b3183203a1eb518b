"""Where a partition stands: its stable committed offset, and the records of its `.windows` partition.

The records are read with read_committed from the snapshot that the committed metadata names until the read_uncommitted
high watermark of that moment, so that a transaction which is still open has ended before anything is concluded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from bus.errors import RetryLater, Unavailable
from bus.kafka.config import Connection
from bus.kafka.transaction import Place

DEADLINE_S = 40.0
METADATA_PREFIX = "w1:"


_OFFSET = re.compile("0|[1-9][0-9]{0,18}")


def snapshot_offset(metadata: str | None) -> int:
    """Offset of the window snapshot that committed metadata names; the beginning where it names none.

    Raises RetryLater for metadata that no enforcer writes.
    """
    if metadata and metadata.startswith(METADATA_PREFIX):
        if not _OFFSET.fullmatch(metadata, len(METADATA_PREFIX)):
            raise RetryLater(f"committed metadata: expected a window snapshot's offset, found {metadata[:40]!r}")
        return int(metadata[len(METADATA_PREFIX) :])
    return OFFSET_BEGINNING


def unstable_offsets(connection: Connection, group: str, places: list[TopicPartition]) -> list[TopicPartition]:
    """What a group committed last, whatever transaction may be open. Raises Unavailable."""
    admin = AdminClient(connection.config())
    request = ConsumerGroupTopicPartitions(group, places)
    try:
        answer = admin.list_consumer_group_offsets([request], require_stable=False, request_timeout=10)
        return list(answer[group].result(15).topic_partitions)
    except KafkaException as error:
        raise Unavailable(f"committed offsets cannot be read: {error.args[0]}") from error


class WindowReader:
    """Reads `.windows` partitions for one enforcer process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, starts: Mapping[Place, int]) -> dict[Place, list[bytes] | None]:
        """Values of each (windows topic, partition) from its start, or from the log's start where that lies behind.

        None where retention has deleted everything: whatever was there is older than any epoch that is still open.
        Raises Unavailable when time runs out.
        """
        targets = self._offsets(list(starts), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        begins = self._offsets(list(starts), OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        values: dict[Place, list[bytes]] = {place: [] for place in starts}
        deleted = {place: None for place, begin in begins.items() if begin > 0 and begin == targets[place]}
        waiting = {place for place, end in targets.items() if end > begins[place]}
        if not waiting:
            return values | deleted
        consumer = Consumer(
            self._connection.config(
                group_id="bus.enforcer",
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                fetch_wait_max_ms=50,
            )
        )
        try:
            consumer.assign([TopicPartition(topic, number, starts[topic, number]) for topic, number in waiting])
            deadline = time.monotonic() + DEADLINE_S
            while waiting:
                message = consumer.poll(1)
                if time.monotonic() > deadline:
                    raise Unavailable(f"windows of {sorted(waiting)} could not be read in time")
                if message is None:
                    self._connection.check()
                    continue
                place = (message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    values[place].append(message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:
                    if (message.offset() or 0) >= targets[place]:
                        waiting.discard(place)
                elif not error.retriable():
                    raise self._connection.typed(error, "read", place[0])
        finally:
            consumer.close()
        return values | deleted

    def _offsets(self, places: list[Place], which: OffsetSpec) -> dict[Place, int]:
        # A client of its own each time: one that outlives its broker keeps a leader epoch that is fenced for ever.
        admin = AdminClient(self._connection.config())
        request = {TopicPartition(topic, number): which for topic, number in places}
        try:
            futures = admin.list_offsets(request, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=10)
            return {(each.topic, each.partition): future.result(15).offset for each, future in futures.items()}
        except KafkaException as error:
            raise Unavailable(f"the ends of the windows cannot be read: {error.args[0]}") from error
