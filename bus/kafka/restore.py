"""Where a partition stands: its stable committed offset, and the records of its `.windows` partition.

The records are read with read_committed from the snapshot that the committed metadata names until the read_uncommitted
high watermark of that moment, so that a transaction which is still open has ended before anything is concluded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bus.errors import Unavailable
from bus.kafka.config import Connection
from bus.kafka.transaction import Place

DEADLINE_S = 40.0
METADATA_PREFIX = "w1:"


def snapshot_offset(metadata: str | None) -> int:
    """Offset of the window snapshot that committed metadata names; the beginning where it names none."""
    if metadata and metadata.startswith(METADATA_PREFIX):
        return int(metadata[len(METADATA_PREFIX) :])
    return OFFSET_BEGINNING


class WindowReader:
    """Reads `.windows` partitions for one enforcer process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = AdminClient(connection.config())

    def read(self, starts: Mapping[Place, int]) -> dict[Place, list[bytes]]:
        """Values of each (windows topic, partition) from its start. Raises Unavailable when time runs out."""
        targets = self._ends(list(starts))
        values: dict[tuple[str, int], list[bytes]] = {place: [] for place in starts}
        waiting = {place for place, end in targets.items() if end > 0}
        if not waiting:
            return values
        consumer = Consumer(
            self._connection.config(
                group_id="bus.enforcer",
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
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
        return values

    def _ends(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        request = {TopicPartition(topic, number): latest for topic, number in places}
        try:
            futures = self._admin.list_offsets(
                request, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=10
            )
            return {(each.topic, each.partition): future.result(15).offset for each, future in futures.items()}
        except KafkaException as error:
            raise Unavailable(f"the ends of the windows cannot be read: {error.args[0]}") from error
